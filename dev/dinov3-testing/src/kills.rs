//! Runs that are killed at random moments and continued: the output shall be that of an undisturbed run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::geotiff::{TiffFile, TiffImage, TiffValue, utm_tags};

/// What is embedded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// By `dinov3 embed`.
    Pictures,
    /// By `dinov3 scene embed`: 130 overlapping chips of each.
    Scenes,
    /// By `dinov3 scene embed --dense`, the first of them: its patches, with basis and picture.
    Dense,
    /// The same into a folder: units one after the other, with their items and markers, and the collection.
    Folder,
    /// The same by `dinov3 scene run`, into a Zarr store that was planned; `scene merge` follows.
    Shards,
}

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'p> {
    /// The `dinov3` program.
    pub program: &'p Path,
    /// An empty folder.
    pub folder: &'p Path,
    /// Of the output: `parquet`, ...
    pub extension: &'p str,
    /// How many pictures or scenes to draw.
    pub pictures: usize,
    /// How often to kill.
    pub kills: usize,
    /// How often of these after the last row is in the journal, while the output is being finished.
    pub finishing: usize,
    /// Of the moments.
    pub seed: u64,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Kills.
    pub kills: usize,
    /// Of these, while the output was being finished.
    pub finishing: usize,
    /// Outputs that were completed after one or several kills, and compared.
    pub outputs: usize,
    /// Runs that ended before their moment came.
    pub too_late: usize,
    /// Rows that were on the disk when a run was continued for the last time, and were made once more; of scenes alone.
    pub repeated: usize,
}

/// What lies in the folder while nothing runs.
const INPUTS: [&str; 4] = ["photos", "scenes", "tiny.json", "plan.parquet"];

impl Plan<'_> {
    /// [`run_on`](Self::run_on) pictures.
    ///
    /// # Panics
    /// As that.
    pub fn run(&self, say: &mut dyn FnMut(String)) -> Tally {
        self.run_on(Input::Pictures, say)
    }

    /// Kills with SIGKILL and continues, until there were enough kills; every output is compared with that of an
    /// undisturbed run. `say` gets a line per kill.
    ///
    /// # Panics
    /// If an output differs, a run fails, or something is left in the folder.
    pub fn run_on(&self, input: Input, say: &mut dyn FnMut(String)) -> Tally {
        self.prepare(input);
        let mut random = Random(self.seed);
        let (expected, journal_bytes, before, finishing) = self.undisturbed(input);
        say(format!(
            "{}: undisturbed: {:.0} ms until the last row, {:.0} ms to finish, journal of {journal_bytes} bytes",
            self.extension,
            before.as_secs_f64() * 1e3,
            finishing.as_secs_f64() * 1e3
        ));
        let mut tally = Tally::default();
        while tally.kills < self.kills || tally.finishing < self.finishing {
            assert!(
                tally.too_late < 100 + 10 * self.kills,
                "{}: the runs end before they can be killed",
                self.extension
            );
            let interruptions = 1 + random.below(4);
            let mut finished = false;
            for index in 0..interruptions {
                // Early ones first, so that the last run of a row of them may be killed while finishing.
                let at_end = index + 1 == interruptions && tally.finishing < self.finishing;
                let was_full = self.journal_bytes() == journal_bytes;
                let start = Instant::now();
                let mut child = self.start(input);
                if at_end {
                    while self.journal_bytes() < journal_bytes && !ended(&mut child) {
                        std::thread::sleep(Duration::from_micros(100));
                    }
                    std::thread::sleep(random.duration(finishing));
                } else {
                    std::thread::sleep(random.duration(before + finishing));
                }
                if ended(&mut child) {
                    assert!(child.wait().unwrap().success(), "a run that was not killed failed");
                    tally.too_late += 1;
                    finished = true;
                    break;
                }
                child.kill().unwrap();
                let killed = !child.wait().unwrap().success();
                if !killed {
                    // It came to its end between the question and the signal.
                    tally.too_late += 1;
                    finished = true;
                    break;
                }
                let bytes = self.journal_bytes();
                let while_finishing = bytes == journal_bytes && !was_full;
                tally.kills += 1;
                tally.finishing += usize::from(while_finishing);
                say(format!(
                    "{}: kill {} after {:.1} ms, journal {bytes} of {journal_bytes} bytes{}",
                    self.extension,
                    tally.kills,
                    start.elapsed().as_secs_f64() * 1e3,
                    if while_finishing { ", finishing" } else { "" }
                ));
            }
            if !finished {
                let before = rows_in(&self.journal()).unwrap_or_default();
                let last = self.command(input).stderr(Stdio::piped()).output().unwrap();
                let told = String::from_utf8_lossy(&last.stderr);
                assert!(last.status.success(), "the run that continues failed: {told}");
                if input == Input::Scenes {
                    tally.repeated += (told_encoded(&told) + before).saturating_sub(CHIPS * self.pictures);
                }
            }
            assert!(self.outputs() == expected, "{}: the output differs, or something is left", self.extension);
            tally.outputs += 1;
            self.clear();
        }
        tally
    }

    fn prepare(&self, input: Input) {
        let inputs = self.folder.join(input.folder());
        fs::create_dir_all(&inputs).unwrap();
        for index in 0..self.pictures as u32 {
            match input {
                Input::Pictures => fs::write(inputs.join(format!("{index:04}.bmp")), crate::bmp(48, 40, index)),
                Input::Scenes | Input::Dense | Input::Folder | Input::Shards => {
                    fs::write(inputs.join(format!("{index:04}.tif")), scene(index))
                }
            }
            .unwrap();
        }
        // Wide for its depth, so that writing takes its part of the time.
        let model = r#"{"architecture": "vit_small_patch16_dinov3",
            "model_args": {"embed_dim": 256, "depth": 1, "num_heads": 4}}"#;
        fs::write(self.folder.join("tiny.json"), model).unwrap();
        if input == Input::Shards {
            let line = format!("scene plan scenes {} --format zarr {MODEL} -o plan.parquet", input.options());
            self.succeed(input, &line);
        }
    }

    fn succeed(&self, input: Input, line: &str) {
        let done = self.program(input, line).stderr(Stdio::piped()).output().unwrap();
        assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn start(&self, input: Input) -> Child {
        self.command(input).stderr(Stdio::null()).spawn().unwrap()
    }

    fn command(&self, input: Input) -> Command {
        let options = input.options();
        let command = match input {
            Input::Pictures => format!("embed photos {options} {MODEL} --resume"),
            Input::Dense => format!("scene embed scenes/0000.tif {options} {MODEL} --resume"),
            Input::Scenes | Input::Folder => format!("scene embed scenes {options} {MODEL} --resume"),
            Input::Shards => "scene run --plan plan.parquet".to_owned(),
        };
        let output = match input {
            Input::Folder => "out/".to_owned(),
            _ => format!("out.{}", self.extension),
        };
        self.program(input, &format!("{command} --threads 1 --batch-size {BATCH} -o {output}"))
    }

    fn program(&self, input: Input, line: &str) -> Command {
        let mut command = Command::new(self.program);
        command
            .current_dir(self.folder)
            .env("DINOV3_CACHE", self.folder.join(input.folder()).join(".cache"))
            .args(line.split(' '))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// The output's files, the largest size of the journal, and the time before and after it was reached.
    fn undisturbed(&self, input: Input) -> (Vec<(String, Vec<u8>)>, u64, Duration, Duration) {
        let start = Instant::now();
        let mut child = self.start(input);
        let (mut most, mut reached) = (0, start);
        while !ended(&mut child) {
            let bytes = self.journal_bytes();
            if bytes > most {
                (most, reached) = (bytes, Instant::now());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        let end = Instant::now();
        assert!(child.wait().unwrap().success(), "the undisturbed run failed");
        let outputs = self.outputs();
        self.clear();
        (outputs, most, reached - start, end - reached)
    }

    fn journal(&self) -> PathBuf {
        self.folder.join(format!(".out.{}.dinov3-journal", self.extension))
    }

    fn journal_bytes(&self) -> u64 {
        fs::metadata(self.journal()).map_or(0, |information| information.len())
    }

    /// What lies in the folder beside its inputs.
    fn entries(&self) -> impl Iterator<Item = PathBuf> {
        let entries = fs::read_dir(self.folder).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| !INPUTS.iter().any(|name| path.ends_with(name)))
    }

    /// All files, those of stores too.
    fn outputs(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        for path in self.entries() {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            match path.is_dir() {
                true => files.extend(tree(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes))),
                false => files.push((name, fs::read(path).unwrap())),
            }
        }
        files.sort();
        files
    }

    fn clear(&self) {
        for path in self.entries() {
            if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        }
    }
}

/// All files below a folder, by their names from there.
fn tree(top: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![top.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let name = path.strip_prefix(top).unwrap().to_string_lossy().into_owned();
                    files.push((name, fs::read(&path).unwrap()));
                }
            }
        }
    }
    files.sort();
    files
}

impl Input {
    fn folder(self) -> &'static str {
        match self {
            Self::Pictures => "photos",
            Self::Scenes | Self::Dense | Self::Folder | Self::Shards => "scenes",
        }
    }

    fn options(self) -> &'static str {
        match self {
            Self::Pictures => "--size 32",
            Self::Scenes => "--chip 32 --stride 24",
            Self::Dense => "--dense --window 64 --overlap 32 --dims 32",
            Self::Folder | Self::Shards => "--chip 32 --stride 24 --datetime 2026-05-17",
        }
    }
}

/// What was done to a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FolderTally {
    /// Kills.
    pub kills: usize,
    /// Of these, after the last row of the unit that was in work: while its files were written.
    pub finishing: usize,
    /// Folders that were completed after one or several kills, and compared.
    pub folders: usize,
    /// Chips of these folders.
    pub chips: usize,
    /// Chips that were on the disk when a process was killed, and were encoded once more.
    pub repeated: usize,
    /// Most rows that are not on the disk while a process encodes: what one kill can cost.
    pub interval: usize,
}

impl Plan<'_> {
    /// As [`run_on`](Self::run_on), with a folder as output: data files shall be byte-identical, items equal but for time and
    /// energy, nothing there twice, and no chip encoded again that was on the disk.
    ///
    /// # Panics
    /// If that does not hold, or a run fails.
    pub fn run_on_folder(&self, say: &mut dyn FnMut(String)) -> FolderTally {
        self.run_on_units(Input::Folder, say)
    }

    /// The same with a Zarr store that is made by units. It shall be the one that a single process makes.
    ///
    /// # Panics
    /// As that.
    pub fn run_on_shards(&self, say: &mut dyn FnMut(String)) -> FolderTally {
        self.run_on_units(Input::Shards, say)
    }

    fn run_on_units(&self, input: Input, say: &mut dyn FnMut(String)) -> FolderTally {
        self.prepare(input);
        let out = match input {
            Input::Shards => self.folder.join(format!("out.{}", self.extension)),
            _ => self.folder.join("out"),
        };
        let start = Instant::now();
        assert!(self.start(input).wait().unwrap().success(), "the undisturbed run failed");
        let whole = start.elapsed();
        self.complete(input);
        let expected = folder_state(&out);
        if input == Input::Shards {
            let line = format!("scene embed scenes {} {MODEL} -o one.{}", input.options(), self.extension);
            self.succeed(input, &line);
            let of_jobs = |(name, _): &(String, Vec<u8>)| name.starts_with(".dinov3/");
            let single = tree(&self.folder.join(format!("one.{}", self.extension)));
            let found: Vec<_> = tree(&out).into_iter().filter(|file| !of_jobs(file)).collect();
            assert!(found == single, "one process: {}", first_difference(&found, &single));
        }
        let chips = CHIPS * self.pictures;
        fs::remove_dir_all(&out).unwrap();
        say(format!("folder: undisturbed: {:.0} ms, {} files", whole.as_secs_f64() * 1e3, expected.len()));
        let mut random = Random(self.seed);
        // The batch that is encoded and the one that waits for the sink.
        let mut tally = FolderTally { interval: 2 * BATCH, ..FolderTally::default() };
        while tally.kills < self.kills || tally.finishing < self.finishing {
            assert!(tally.folders < 10 * self.kills, "the runs end before they can be killed");
            let mut encoded = 0;
            let mut kills = 0;
            for _ in 0..1 + random.below(4) {
                let before = rows_on_disk(&out);
                let mut child = self.start(input);
                if tally.finishing < self.finishing {
                    // Just after a journal is full: files are written then.
                    let deadline = Instant::now() + whole;
                    let goal = (before / CHIPS + 1) * CHIPS;
                    while rows_on_disk(&out) < goal.min(chips) && Instant::now() < deadline && !ended(&mut child) {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                    std::thread::sleep(random.duration(Duration::from_millis(12)));
                } else {
                    std::thread::sleep(random.duration(whole));
                }
                if ended(&mut child) {
                    assert!(child.wait().unwrap().success(), "a run that was not killed failed");
                    encoded += rows_on_disk(&out) - before;
                    break;
                }
                child.kill().unwrap();
                child.wait().unwrap();
                let after = rows_on_disk(&out);
                let at_end = is_finishing(&out);
                encoded += after.saturating_sub(before);
                kills += 1;
                tally.kills += 1;
                tally.finishing += usize::from(at_end);
                say(format!(
                    "folder: kill {}: {after} of {chips} rows on the disk{}",
                    tally.kills,
                    if at_end { ", finishing" } else { "" }
                ));
            }
            let last = self.command(input).stderr(Stdio::piped()).output().unwrap();
            let told = String::from_utf8_lossy(&last.stderr).into_owned();
            assert!(last.status.success(), "the run that continues failed: {told}");
            self.complete(input);
            encoded += told_encoded(&told);
            let found = folder_state(&out);
            assert!(found == expected, "{}", first_difference(&found, &expected));
            tally.folders += usize::from(kills > 0);
            tally.chips += chips;
            tally.repeated += encoded.saturating_sub(chips);
            fs::remove_dir_all(&out).unwrap();
        }
        tally
    }

    /// What follows when all units are there.
    fn complete(&self, input: Input) {
        if input == Input::Shards {
            self.succeed(input, &format!("scene merge out.{}", self.extension));
        }
    }
}

/// Whether a journal is full whose unit has no marker.
fn is_finishing(out: &Path) -> bool {
    journals(out).iter().any(|(unit, rows)| *rows == CHIPS && !marker(out, unit).exists())
}

/// What a run says that it has encoded: `130 chips in 0.1 s, 900.0 chips/s, 0 failed, 50 from before -> ...`, per unit.
fn told_encoded(text: &str) -> usize {
    let number_before =
        |line: &str, what: &str| -> Option<usize> { line.split_once(what)?.0.rsplit([' ', ',']).next()?.parse().ok() };
    let of_units = text.lines().filter(|line| line.contains(" chips in "));
    of_units
        .map(|line| {
            let done = number_before(line, " chips in ").unwrap_or_default();
            done - number_before(line, " from before").unwrap_or_default()
        })
        .sum()
}

/// Images per batch of the runs.
const BATCH: usize = 2;
/// Of a scene.
const CHIPS: usize = 130;
const MODEL: &str = "-m tiny.json --weights synthetic:7";

fn marker(out: &Path, unit: &str) -> PathBuf {
    out.join(".dinov3/units").join(format!("{unit}.json"))
}

/// Units with a journal, and its whole rows.
fn journals(out: &Path) -> Vec<(String, usize)> {
    let entries =
        [out.to_path_buf(), out.join(".dinov3/parts")].map(|folder| fs::read_dir(folder).into_iter().flatten());
    let unit = |path: PathBuf| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        let output = name.strip_prefix('.')?.strip_suffix(".dinov3-journal")?;
        let unit = output.strip_suffix(".parquet").or(output.strip_suffix(".zarr"))?.to_owned();
        Some((unit, rows_in(&path)?))
    };
    entries.into_iter().flatten().flatten().filter_map(|entry| unit(entry.path())).collect()
}

/// Whole rows of a journal.
fn rows_in(journal: &Path) -> Option<usize> {
    let bytes = fs::read(journal).ok()?;
    // Magic; then records of a length, a checksum and so many bytes, of which the first is the fingerprint.
    let (mut rest, mut records) = (bytes.get(16..)?, 0_usize);
    while let Some(length) = rest.first_chunk::<4>() {
        let Some(after) = rest.get(8 + u32::from_le_bytes(*length) as usize..) else { break };
        (rest, records) = (after, records + 1);
    }
    Some(records.saturating_sub(1))
}

/// Chips that need not be encoded any more: those of finished units, and those in journals.
fn rows_on_disk(out: &Path) -> usize {
    let finished = fs::read_dir(out.join(".dinov3/units")).into_iter().flatten().flatten();
    let finished = finished.filter(|entry| entry.file_name().to_string_lossy().ends_with(".json")).count();
    let waiting = journals(out).into_iter().filter(|(unit, _)| !marker(out, unit).exists()).map(|(_, rows)| rows);
    CHIPS * finished + waiting.sum::<usize>()
}

/// All files below, without what tells the time: items without it, markers by name alone.
fn folder_state(out: &Path) -> Vec<(String, Vec<u8>)> {
    let of_time = ["processing:datetime", "emb:energy"];
    let kept = |(name, bytes): (String, Vec<u8>)| {
        let kept = match name.as_str() {
            marker if marker.starts_with(".dinov3/units") => Vec::new(),
            store if store.ends_with("zarr.json") => bytes,
            item if item.ends_with(".json") => {
                let mut item: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                if let Some(properties) = item["properties"].as_object_mut() {
                    properties.retain(|name, _| !of_time.contains(&name.as_str()));
                }
                item.to_string().into_bytes()
            }
            _ => bytes,
        };
        (name, kept)
    };
    tree(out).into_iter().map(kept).collect()
}

fn first_difference(found: &[(String, Vec<u8>)], expected: &[(String, Vec<u8>)]) -> String {
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    match names(found) == names(expected) {
        false => format!("files are {:?}, and should be {:?}", names(found), names(expected)),
        true => {
            let differs = found.iter().zip(expected).find(|(found, expected)| found != expected);
            format!("{} differs", differs.map_or("nothing", |(found, _)| &found.0))
        }
    }
}

/// Chips of 32 pixels every 24 are 13 columns and 10 rows. Scenes overlap, so that their rows are mixed in the output.
fn scene(index: u32) -> Vec<u8> {
    let mut tags = utm_tags();
    let corner = vec![0.0, 0.0, 0.0, 399_960.0 + 570.0 * f64::from(index), 4_200_000.0, 0.0];
    tags.retain(|(tag, _)| *tag != MODEL_TIEPOINT);
    tags.push((MODEL_TIEPOINT, TiffValue::Double(corner)));
    tags.sort_by_key(|(tag, _)| *tag);
    TiffFile::of(TiffImage { width_px: 320, height_px: 248, tags, ..TiffImage::default() }).to_bytes()
}

/// Pixel 0, 0, 0 and where it lies.
const MODEL_TIEPOINT: u16 = 33922;

fn ended(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_some()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// From nothing to `longest`.
    fn duration(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.below(1 << 20) as f64 / f64::from(1 << 20))
    }
}
