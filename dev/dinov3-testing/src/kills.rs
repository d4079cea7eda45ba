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
}

/// What lies in the folder while nothing runs.
const INPUTS: [&str; 3] = ["photos", "scenes", "tiny.json"];

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
                assert!(self.start(input).wait().unwrap().success(), "the run that continues failed");
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
                Input::Scenes => fs::write(inputs.join(format!("{index:04}.tif")), scene(index)),
            }
            .unwrap();
        }
        // Wide for its depth, so that writing takes its part of the time.
        let model = r#"{"architecture": "vit_small_patch16_dinov3",
            "model_args": {"embed_dim": 256, "depth": 1, "num_heads": 4}}"#;
        fs::write(self.folder.join("tiny.json"), model).unwrap();
    }

    fn start(&self, input: Input) -> Child {
        let (command, options) = match input {
            Input::Pictures => ("embed photos", "--size 32"),
            Input::Scenes => ("scene embed scenes", "--chip 32 --stride 24"),
        };
        let output = format!("out.{}", self.extension);
        let line = format!(
            "{command} {options} -m tiny.json --weights synthetic:7 --threads 1 --batch-size 2 --resume -o {output}"
        );
        Command::new(self.program)
            .current_dir(self.folder)
            .env("DINOV3_CACHE", self.folder.join(input.folder()).join(".cache"))
            .args(line.split(' '))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
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

    fn journal_bytes(&self) -> u64 {
        let journal = format!(".out.{}.dinov3-journal", self.extension);
        fs::metadata(self.folder.join(journal)).map_or(0, |information| information.len())
    }

    fn outputs(&self) -> Vec<(String, Vec<u8>)> {
        let read = |path: PathBuf| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap());
        let entries = fs::read_dir(self.folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            entries.filter(|path| !INPUTS.iter().any(|name| path.ends_with(name))).map(read).collect();
        files.sort();
        files
    }

    fn clear(&self) {
        self.outputs().iter().for_each(|(name, _)| fs::remove_file(self.folder.join(name)).unwrap());
    }
}

impl Input {
    fn folder(self) -> &'static str {
        match self {
            Self::Pictures => "photos",
            Self::Scenes => "scenes",
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
