//! Checkpoints that were made to do harm, and ten thousand that were damaged by chance.
//!
//! Every one is refused with its file and a reason, or opens and is read within the limits. Nothing panics, nothing
//! takes more than [`MOST_BYTES`] or [`LONGEST`].

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dinov3_model::config_json;
use dinov3_model::dialect::Dialect;
use dinov3_model::spec::{self, ModelSpec};
use dinov3_model::tensors::tensors;
use dinov3_model::weights::{WeightSource, WeightsError};
use dinov3_testing::checkpoints::{Type, synthetic_weights, write, write_pth, write_shards};
use dinov3_testing::pth::{Layout, PickleWriter, Record, ZipWriter, contiguous};
use dinov3_weights::{Checkpoint, verify_files};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const MOST_BYTES: usize = 64 << 20;
const LONGEST: Duration = Duration::from_millis(200);
const MUTATIONS: u64 = 10_000;

/// The allocator counts for the whole process: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(|error| error.into_inner())
}

const TINY: &str = r#"{"architecture": "vit_small_patch16_dinov3", "num_classes": 0, "model_args":
    {"embed_dim": 8, "depth": 1, "num_heads": 2, "patch_size": 2, "mlp_ratio": 2}}"#;

fn tiny() -> ModelSpec {
    config_json::parse(TINY, "tiny").unwrap()
}

/// All that this crate does with a checkpoint.
fn use_it(path: &Path, model: &ModelSpec) -> Result<(), WeightsError> {
    verify_files(path, &mut |_, _| ControlFlow::Continue(()))?;
    let checkpoint = Checkpoint::open(path, model)?;
    for tensor in tensors(model) {
        checkpoint.read(&tensor.name, 0, &mut vec![0.0; tensor.elements()])?;
    }
    Ok(())
}

/// Runs `use_it` within the limits; `name` tells which case it was.
fn within_limits(name: &str, path: &Path, model: &ModelSpec) -> Result<(), WeightsError> {
    let mut shortest = Duration::MAX;
    for _ in 0..3 {
        let before = ALLOCATED.current_usage();
        ALLOCATED.reset_peak_usage();
        let start = time_spent();
        let result = catch_unwind(AssertUnwindSafe(|| use_it(path, model)));
        let (elapsed, peak) = (time_spent() - start, ALLOCATED.peak_usage().saturating_sub(before));
        assert!(peak <= MOST_BYTES, "{name}: {peak} bytes");
        let result = result.unwrap_or_else(|_| panic!("{name}: panicked"));
        if let Err(error) = &result {
            let text = error.to_string();
            let folder = path.parent().unwrap().display().to_string();
            assert!(
                text.contains(&folder) && (20..20_000).contains(&(text.len() - folder.len())),
                "{name}: no file, no reason, or too many: {text}"
            );
        }
        shortest = shortest.min(elapsed);
        if shortest <= LONGEST {
            return result;
        }
    }
    panic!("{name}: took {shortest:?}");
}

/// Processor time of this thread where Linux tells it, so that a busy machine fails no test; else the time of day.
fn time_spent() -> Duration {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let spent = spent.and_then(|text| text.split(' ').next()?.parse().ok());
    spent.map_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap(), Duration::from_nanos)
}

// --- the corpus -----------------------------------------------------------------------------------------------

/// Files by name; the first one is opened.
type Files = Vec<(&'static str, Vec<u8>)>;

/// What it is, what part of the refusal is expected ("" if it may open), the files.
type Case = (String, &'static str, Files);

fn case(name: &str, expected: &'static str, files: Files) -> Case {
    (name.to_string(), expected, files)
}

fn safetensors(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data_bytes, 0);
    bytes
}

fn one_tensor(dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#"{{"norm.weight":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
}

fn safetensors_cases() -> Vec<Case> {
    let good = one_tensor("F32", "[2,3]", "[0,24]");
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |name: &str, expected: &'static str, bytes: Vec<u8>| {
        cases.push(case(&format!("safetensors: {name}"), expected, vec![("model.safetensors", bytes)]));
    };
    let whole = safetensors(&good, 24);
    for cut in [0, 1, 7, 8, 9, 20, 8 + good.len() - 1, 8 + good.len(), whole.len() - 1] {
        add(&format!("cut after {cut} bytes"), "not a well-formed", whole[..cut].to_vec());
    }
    let with_length = |length: u64| [&length.to_le_bytes()[..], &whole[8..]].concat();
    add("header of no bytes", "not a well-formed", with_length(0));
    add("header of 2^64 - 1 bytes", "above the limit", with_length(u64::MAX));
    add("header of 2^63 bytes", "above the limit", with_length(1 << 63));
    add("header longer than the file", "not a well-formed", with_length(100_000));
    add("header a byte above the limit", "above the limit", with_length((1 << 20) + 1));
    add("header a byte short", "not a well-formed", with_length(good.len() as u64 - 1));
    let mut bytes = whole.clone();
    bytes[12] = 0xFF;
    add("header that is not UTF-8", "not a well-formed", bytes);
    for (name, header) in [
        ("no object", "[]".to_string()),
        ("a number", "1e999".to_string()),
        ("nothing but spaces", " ".repeat(1 << 20)),
        ("a hundred thousand brackets", "[".repeat(100_000)),
        ("a hundred thousand objects", r#"{"a":"#.repeat(100_000)),
        ("an unknown dtype", one_tensor("F31", "[2,3]", "[0,24]")),
        ("a dtype of 1 MB", one_tensor(&"F".repeat(1_000_000), "[2,3]", "[0,24]")),
        ("a negative size", one_tensor("F32", "[-2,3]", "[0,24]")),
        ("half a size", one_tensor("F32", "[2.5,3]", "[0,24]")),
        ("a size of 2^64", one_tensor("F32", "[18446744073709551616]", "[0,24]")),
        ("a shape that overflows", one_tensor("F32", "[4294967296,4294967296,4]", "[0,24]")),
        ("a shape that overflows but for a zero", one_tensor("F32", "[4294967296,4294967296,0]", "[0,0]")),
        ("bytes that overflow", one_tensor("F32", "[4611686018427387904]", "[0,24]")),
        ("a shape of half a million ones", one_tensor("F32", &format!("[{}1]", "1,".repeat(500_000)), "[0,24]")),
        ("reversed offsets", one_tensor("F32", "[2,3]", "[24,0]")),
        ("offsets beyond the data", one_tensor("F32", "[2,3]", "[24,48]")),
        ("the largest offsets", one_tensor("F32", "[2,3]", "[18446744073709551592,18446744073709551615]")),
        ("a hole before the data", one_tensor("F32", "[1,3]", "[12,24]")),
        ("fewer bytes than the shape needs", one_tensor("F32", "[2,4]", "[0,24]")),
        ("no offsets", r#"{"norm.weight":{"dtype":"F32","shape":[2,3]}}"#.to_string()),
        ("metadata that is no text", r#"{"__metadata__":{"a":1}}"#.to_string()),
        (
            "overlapping tensors",
            r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[4],"data_offsets":[8,24]}}"#
                .to_string(),
        ),
        (
            "one name, two places",
            r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},"a":{"dtype":"F32","shape":[3],"data_offsets":[12,24]}}"#
                .to_string(),
        ),
    ] {
        add(name, "not a well-formed", safetensors(&header, 24));
    }
    add("bytes behind the last tensor", "not a well-formed", safetensors(&good, 25));
    let mut many = String::from("{");
    for index in 0..10_001 {
        write!(many, r#""t{index}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}},"#).unwrap();
    }
    add("10,001 tensors", "above the limit", safetensors(&format!("{}}}", many.trim_end_matches(',')), 0));
    let mut metadata = String::from(r#"{"__metadata__":{"#);
    (0..80_000).for_each(|index| write!(metadata, r#""{index}":"","#).unwrap());
    add("80,000 entries of metadata", "", safetensors(&format!("{}}}}}", metadata.trim_end_matches(',')), 0));
    add("no tensors at all", "not DINOv3 weights", safetensors("{}", 0));
    add("tensors of something else", "not DINOv3 weights", whole);
    add("a Git LFS pointer", "Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0".to_vec());
    cases
}

fn index_cases() -> Vec<Case> {
    let shard = safetensors(&one_tensor("F32", "[2,3]", "[0,24]"), 24);
    let map = |file: &str| format!(r#"{{"metadata":{{}},"weight_map":{{"norm.weight":"{file}"}}}}"#);
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |name: &str, expected: &'static str, text: String| {
        let files = vec![
            ("model.safetensors.index.json", text.into_bytes()),
            ("a.safetensors", shard.clone()),
            ("b.json", map("a.safetensors").into()),
        ];
        cases.push(case(&format!("index: {name}"), expected, files));
    };
    for (name, file) in [
        ("a folder above", "../a.safetensors"),
        ("an absolute path", "/etc/passwd"),
        ("a path below", "sub/a.safetensors"),
        ("a Windows path", "C:\\\\secret"),
        ("a Windows drive", "C:a.safetensors"),
        ("the folder above", ".."),
        ("the folder", "."),
        ("no name", ""),
        ("itself", "model.safetensors.index.json"),
        ("a zero byte", "a\\u0000.safetensors"),
    ] {
        add(name, "is not the name of a weight file beside the index", map(file));
    }
    add("a missing shard", "c.safetensors", map("c.safetensors"));
    add("another index as shard", "not a safetensors file", map("b.json"));
    add("a tensor that is not there", "is not in it", map("a.safetensors").replace("norm.weight", "norm.bias"));
    let two = map("a.safetensors").replace("}}", r#","norm.weight":"a.safetensors"}}"#);
    add("a tensor twice", "is in it twice", two);
    add("cut short", "not an index", map("a.safetensors")[..40].to_string());
    add("not JSON", "not an index", "weights".to_string());
    add("no map", "not an index", r#"{"metadata":{}}"#.to_string());
    add("a map that is a list", "not an index", r#"{"weight_map":["a.safetensors"]}"#.to_string());
    add("a file that is a number", "not an index", r#"{"weight_map":{"a":1}}"#.to_string());
    add("an empty map", "the weight map is empty", r#"{"weight_map":{}}"#.to_string());
    add("nothing", "not an index", String::new());
    add("a hundred thousand brackets", "not an index", format!(r#"{{"metadata":{}"#, "[".repeat(100_000)));
    add("too many bytes", "above the limit", " ".repeat((1 << 20) + 1));
    let list = |count: usize, file: &dyn Fn(usize) -> String| {
        let entries: Vec<String> = (0..count).map(|index| format!(r#""t{index}":"{}""#, file(index))).collect();
        format!(r#"{{"weight_map":{{{}}}}}"#, entries.join(","))
    };
    add("10,001 tensors", "more than 10000 tensors", list(10_001, &|_| "a.safetensors".to_string()));
    add("1,001 shards", "above the limit", list(1001, &|index| format!("{index}.safetensors")));
    let mut both = safetensors_pair();
    both.insert(0, ("model.safetensors.index.json", map("a.safetensors").into_bytes()));
    cases.push(case("index: a tensor that it does not list", "but not in", both));
    cases
}

/// A shard with two tensors.
fn safetensors_pair() -> Files {
    let header = r#"{"norm.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"norm.bias":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    vec![("a.safetensors", safetensors(header, 8))]
}

fn zip(entries: &[(&str, &[u8])], change: impl FnOnce(&mut Vec<Record>)) -> Vec<u8> {
    let mut zip = ZipWriter::new(Vec::new());
    for (name, bytes) in entries {
        zip.entry(name, bytes).unwrap();
    }
    change(&mut zip.records);
    zip.finish().unwrap()
}

/// {"norm.weight": a tensor}, from what `tensor` writes.
fn pickled(tensor: impl FnOnce(&mut PickleWriter)) -> Vec<u8> {
    let mut pickle = PickleWriter::new(2);
    pickle.op(b"}");
    pickle.text("norm.weight");
    tensor(&mut pickle);
    pickle.op(b"s");
    pickle.finish()
}

fn good_pickle() -> Vec<u8> {
    pickled(|pickle| pickle.tensor(Type::F32, "0", 0, &[2, 3], &[3, 1], 6))
}

fn zip_cases() -> Vec<Case> {
    let (pickle, data) = (good_pickle(), [0; 24]);
    let entries: [(&str, &[u8]); 3] = [("a/data.pkl", &pickle), ("a/data/0", &data), ("a/version", b"3\n")];
    let good = zip(&entries, |_| {});
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |name: &str, expected: &'static str, bytes: Vec<u8>| {
        cases.push(case(&format!("zip: {name}"), expected, vec![("weights.pth", bytes)]));
    };
    for eighth in 1..8 {
        add(&format!("cut after {eighth} eighths"), "cut short", good[..good.len() * eighth / 8].to_vec());
    }
    add("a byte short", "zip", good[..good.len() - 1].to_vec());
    add("nothing but its first bytes", "cut short", b"PK\x03\x04".to_vec());
    add("an empty file", "torch.save writes a zip", Vec::new());
    add("of the wrong kind of tensors", "not DINOv3 weights", good.clone());
    add("compressed", "is compressed", zip(&entries, |records| records[1].method = 8));
    add("of an unknown method", "is compressed", zip(&entries, |records| records[0].method = 99));
    add("that unpacks to 16 EB", "is compressed", zip(&entries, |records| records[1].bytes = u64::MAX - 1));
    add(
        "with an entry of 16 EB",
        "zip entry 'a/data/0'",
        zip(&entries, |records| {
            (records[1].bytes, records[1].stored_bytes) = (u64::MAX - 1, u64::MAX - 1);
        }),
    );
    add(
        "with an entry of 4 GB",
        "zip entry 'a/data/0'",
        zip(&entries, |records| {
            (records[1].bytes, records[1].stored_bytes) = (1 << 32, 1 << 32);
        }),
    );
    add("encrypted", "is encrypted", zip(&entries, |records| records[0].flags |= 1));
    for offset in [1, 1 << 20, u64::MAX - 1, u64::MAX >> 1] {
        add(
            &format!("with an entry at {offset}"),
            "zip",
            zip(&entries, |records| {
                records[1].offset = offset;
            }),
        );
    }
    add(
        "with overlapping entries",
        "zip entries overlap",
        zip(&entries, |records| {
            (records[0].bytes, records[0].stored_bytes) = (300, 300);
        }),
    );
    add("with the same entry twice", "two zip entries", zip(&entries, |records| records.push(records[1].clone())));
    add(
        "with ten thousand names for one entry",
        "another name",
        zip(&entries, |records| {
            let names = (0..10_000).map(|index| Record { name: format!("a/data/{index}x"), ..records[1].clone() });
            records.extend(names.collect::<Vec<_>>());
        }),
    );
    add("whose entry has two names", "another name", zip(&entries, |records| records[1].name = "a/data/1".into()));
    let long = "n".repeat(60_000);
    add("with a name of 60 kB", "name is not UTF-8 of at most", zip(&[(&long, b"")], |_| {}));
    let mut bytes = good.clone();
    // The local header comes first; the directory, 98 bytes from the end, has three entries.
    for place in [30, bytes.len() - 98 - 3 * 46 - "a/data.pkla/data/0a/version".len() + 46] {
        assert_eq!(bytes[place], b'a');
        bytes[place] = 0xFF;
    }
    add("with a name that is no text", "name is not UTF-8", bytes);
    let many: Vec<String> = (0..10_101).map(|index| format!("a/data/{index}")).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), &b""[..])).collect();
    add("with 10,101 entries", "more than 10100 zip entries", zip(&many, |_| {}));
    add("without a pickle", "which has one data.pkl", zip(&[("readme.txt", b"hello")], |_| {}));
    add("with two pickles", "which has one data.pkl", zip(&[("a/data.pkl", &pickle), ("b/data.pkl", &pickle)], |_| {}));
    add("of a program", "TorchScript", zip(&[("a/data.pkl", &pickle), ("a/constants.pkl", b"")], |_| {}));
    add("of the other byte order", "byte order", zip(&[("a/data.pkl", &pickle), ("a/byteorder", b"big")], |_| {}));
    add("without its storage", "data/0 is missing", zip(&[("a/data.pkl", &pickle)], |_| {}));
    add("with a short storage", "has 20 bytes", zip(&[("a/data.pkl", &pickle), ("a/data/0", &data[..20])], |_| {}));
    add("with a long storage", "has 25 bytes", zip(&[("a/data.pkl", &pickle), ("a/data/0", &[0; 25])], |_| {}));
    add("with a wrong checksum", "CRC-32", zip(&entries, |records| records[1].crc32 ^= 1));
    add(
        "with a way out in a name",
        "not DINOv3",
        zip(&[("a/data.pkl", &pickle), ("a/data/0", &data), ("a/../../../etc/passwd", b"x")], |_| {}),
    );
    add("before PyTorch 1.6", "before PyTorch 1.6", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec());
    cases
}

fn pickle_cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |name: &str, expected: &'static str, pickle: &[u8]| {
        let bytes = zip(&[("a/data.pkl", pickle), ("a/data/0", &[0; 24])], |_| {});
        cases.push(case(&format!("pickle: {name}"), expected, vec![("weights.pth", bytes)]));
    };
    let good = good_pickle();
    for part in 0..16 {
        let cut = good.len() * part / 16;
        add(&format!("cut after {cut} bytes"), "of the pickle", &good[..cut]);
    }
    let raw = |body: &[u8]| [b"\x80\x02", body].concat();
    let repeated =
        |start: &[u8], part: &[u8], count: usize, end: &[u8]| [b"\x80\x02", start, &part.repeat(count), end].concat();
    add("protocol 0", "protocol 0", b"\x80\x00}.");
    add("protocol 9", "protocol 9", b"\x80\x09}.");
    add("an unknown opcode", "no opcode", &raw(b"\xff."));
    add("a text of 4 GB", "cut short", &raw(b"X\xff\xff\xff\xffabc."));
    add("a text of 16 EB", "cut short", &raw(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc."));
    add("bytes of 16 EB", "cut short", &raw(b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc."));
    add("a number of 2 GB", "cut short", &raw(b"\x8b\xff\xff\xff\x7f\x01."));
    add("a number of minus one byte", "cut short", &raw(b"\x8b\xff\xff\xff\xff\x01."));
    add("a text that is not UTF-8", "not UTF-8", &raw(b"X\x02\x00\x00\x00\xff\xfe."));
    add("a frame of 16 EB", "no dictionary", &raw(b"\x95\xff\xff\xff\xff\xff\xff\xff\xff]."));
    let mut puts = raw(b"N");
    (0..390_000u32).for_each(|index| {
        puts.push(b'r');
        puts.extend((index.wrapping_mul(2_654_435_761)).to_le_bytes());
    });
    puts.push(b'.');
    add("390,000 memories", "no dictionary", &puts);
    add("390,000 memories of newer kind", "no dictionary", &repeated(b"N", b"\x94", 390_000, b"."));
    add("lists in lists", "no dictionary", &repeated(b"", b"]", 190_000, &[&b"a".repeat(189_999)[..], b"."].concat()));
    add("tuples in tuples", "no dictionary", &repeated(b")", b"\x85", 390_000, b"."));
    add("half a million lists", "opcodes", &repeated(b"(", b"]", 500_000, b"t."));
    add("four million dictionaries", "opcodes", &repeated(b"(", b"}", 4_000_000, b"t."));
    add("half a million marks", "opcodes", &repeated(b"", b"(", 500_000, b"."));
    add("more than 4 MB", "above the limit", &repeated(b"(", b"N", 5_000_000, b"t."));
    // ((a, a), (a, a)) and so on: two hundred levels of pairs, 2^200 leaves if anyone walked them.
    add("pairs of pairs", "no dictionary", &repeated(b")q\x00", b"h\x00\x86q\x00", 200, b"."));
    add("a list in itself", "no dictionary", &raw(b"]q\x00h\x00a."));
    add("a tuple in itself", "no dictionary", &raw(b"]q\x00h\x00\x85q\x01ah\x01\x86."));
    add("a dictionary in itself", "no tensors", &raw(b"}q\x00X\x07\x00\x00\x00teacherh\x00s."));
    let two = b"}q\x00X\x05\x00\x00\x00modelq\x01}q\x02h\x01h\x00ss.";
    add("two dictionaries in each other", "no tensors", &raw(two));
    add("half an entry", "no dictionary", &raw(b"}(Nu."));
    add("an entry for a number", "no dictionary", &raw(b"K\x01NNs."));
    add("an element for a dictionary", "no list", &raw(b"}Na."));
    add("nothing to take", "the stack is empty", &raw(b"s."));
    add("something below the mark", "the stack is empty", &raw(b"}NN(s."));
    add("no mark", "no mark", &raw(b"Nt."));
    add("an open mark", "left over", &raw(b"}(}."));
    add("nothing remembered", "nothing was remembered", &raw(b"h\x07."));
    add("a call of a text", "is no function", &raw(b"X\x01\x00\x00\x00a)R."));
    add("a call of a class", "is no function", &raw(b"ctorch\nFloatStorage\n)R."));
    add("a call without arguments", "without arguments", &raw(b"ccollections\nOrderedDict\nNR."));
    add("an OrderedDict of itself", "with arguments", &raw(b"ccollections\nOrderedDict\nN\x85R."));
    add("attributes of a list", "no OrderedDict", &raw(b"]}b."));
    add("a global without an end", "without an end", &raw(b"cposix"));
    add("a global of 4 MB", "without an end", &raw(&[b"c", &b"m".repeat(4_000_000)[..], b"\nx\n."].concat()));
    add("a global that is not UTF-8", "not UTF-8", &raw(b"c\xff\nx\n."));
    add("os.system", "the global posix.system", &raw(b"cposix\nsystem\n(X\x02\x00\x00\x00idtR."));
    add("eval under a newer opcode", "the global builtins.eval", &raw(b"\x8c\x08builtins\x8c\x04eval\x93)R."));
    add("a global of numbers", "not a text", &raw(b"K\x01K\x02\x93."));
    add("an instance", "the opcode INST", &raw(b"(iposix\nsystem\n."));
    add("an object", "the opcode OBJ", &raw(b"(No."));
    add("an extension", "the opcode EXT4", &raw(b"\x84\x01\x00\x00\x00."));
    add("a key that is a number", "is not a text", &{
        let mut pickle = PickleWriter::new(2);
        pickle.op(b"}K\x07");
        pickle.tensor(Type::F32, "0", 0, &[6], &[1], 6);
        pickle.op(b"s");
        pickle.finish()
    });
    add("a name twice", "two tensors are called", &{
        let mut pickle = PickleWriter::new(2);
        pickle.op(b"}(");
        for _ in 0..2 {
            pickle.text("w");
            pickle.tensor(Type::F32, "0", 0, &[6], &[1], 6);
        }
        pickle.op(b"u");
        pickle.finish()
    });
    let mut tensor = |name: &str, expected, key: &str, first, shape: &[usize], strides: &[usize], elements| {
        add(
            &format!("tensor {name}"),
            expected,
            &pickled(|pickle| {
                pickle.tensor(Type::F32, key, first, shape, strides, elements);
            }),
        );
    };
    tensor("of a storage elsewhere", "is missing", "../../etc/passwd", 0, &[6], &[1], 6);
    tensor("larger than its storage", "its storage has 6", "0", 0, &[7], &[1], 6);
    tensor("behind its storage", "its storage has 6", "0", 7, &[0], &[1], 6);
    tensor("at a negative offset", "negative storage offset", "0", -1, &[6], &[1], 6);
    tensor("at the largest offset", "its storage has 6", "0", i64::MAX, &[6], &[1], 6);
    tensor("of an exabyte", "has 24 bytes", "0", 0, &[1 << 60], &[1], 1 << 60);
    tensor("of a size that overflows", "overflows", "0", 0, &[1 << 40, 1 << 40], &[1 << 40, 1], 6);
    let empty = [1 << 40, 1 << 40, 0];
    tensor("of a size that overflows but for a zero", "overflows", "0", 0, &empty, &[0, 0, 1], 6);
    tensor("of a negative size", "a size or stride of -1", "0", 0, &[usize::MAX], &[1], 6);
    tensor("repeated by stride zero", "not contiguous", "0", 0, &[1 << 40], &[0], 6);
    tensor("transposed", "not contiguous", "0", 0, &[2, 3], &[1, 2], 6);
    tensor("of nine dimensions", "at most 8", "0", 0, &[1; 9], &contiguous(&[1; 9]), 6);
    for (name, expected, body) in [
        ("tensor of nothing", "unknown arguments", &b"ctorch._utils\n_rebuild_tensor_v2\n)R"[..]),
        ("tensor of texts", "unknown arguments", b"ctorch._utils\n_rebuild_tensor_v2\n(NNNNNNtR"),
        ("tensor of a list that grew", "unknown arguments", b"ctorch._utils\n_rebuild_tensor_v2\n]NaR"),
        ("parameter of nothing", "no tensor", b"ctorch._utils\n_rebuild_parameter\nNNN\x87R"),
        ("parameter of a parameter", "no tensor", b"ctorch._utils\n_rebuild_parameter\nq\x00h\x00NNN\x87RNN\x87R"),
        (
            "storage that is a text",
            "its storage is not described",
            b"ctorch._utils\n_rebuild_tensor_v2\n(NQK\x00))NNtR",
        ),
    ] {
        add(name, expected, &pickled(|pickle| pickle.op(body)));
    }
    cases
}

#[test]
fn every_hostile_checkpoint_is_refused_with_its_file_and_a_reason() {
    let _alone = alone();
    let model = tiny();
    let cases = [safetensors_cases(), index_cases(), zip_cases(), pickle_cases()].concat();
    assert!(cases.len() > 150, "{}", cases.len());
    let mut wrong = String::new();
    for (name, expected, files) in &cases {
        let folder = tempfile::tempdir().unwrap();
        for (file, bytes) in files {
            std::fs::write(folder.path().join(file), bytes).unwrap();
        }
        match within_limits(name, &folder.path().join(files[0].0), &model) {
            Ok(()) => writeln!(wrong, "{name}: opened").unwrap(),
            Err(error) if !error.to_string().contains(expected) => {
                writeln!(wrong, "{name}: expected '{expected}' in {error}").unwrap();
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn tensors_that_are_read_whole_are_no_larger_than_the_model_s() {
    let _alone = alone();
    let model = tiny();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write(&path, &synthetic_weights(&model, 1, Dialect::Timm), Type::F32);
    let whole = std::fs::read(&path).unwrap();
    let header_end = 8 + u64::from_le_bytes(*whole.first_chunk::<8>().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&whole[8..header_end]).unwrap();
    let data_bytes = whole.len() - header_end;
    // Sparse files: little on disk, gigabytes for whoever reads them before looking at the shape.
    for (shape, elements) in
        [("[500000000]", 500_000_000), ("[8000000000]", 8_000_000_000), ("[0,4294967296,4294967296]", 0)]
    {
        let mut header = header.clone();
        let offsets = [data_bytes, data_bytes + 4 * elements];
        let shape: serde_json::Value = serde_json::from_str(shape).unwrap();
        let bias = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": offsets});
        header["blocks.0.attn.k_bias"] = bias;
        let header = header.to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(&whole[header_end..]);
        let length = (bytes.len() + 4 * elements) as u64;
        std::fs::write(&path, bytes).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        let before = ALLOCATED.current_usage();
        ALLOCATED.reset_peak_usage();
        let error = Checkpoint::open(&path, &model).err().unwrap().to_string();
        assert!(ALLOCATED.peak_usage().saturating_sub(before) <= MOST_BYTES, "{shape}");
        assert!(error.contains("blocks.0.attn.k_bias") || error.contains("overflow"), "{error}");
    }
}

#[test]
fn hostile_configurations_are_refused() {
    let _alone = alone();
    let vit = |args: &str| format!(r#"{{"architecture": "vit_small_patch16_dinov3", "model_args": {{{args}}}}}"#);
    let hf = |fields: &str| format!(r#"{{"model_type": "dinov3_vit", {fields}}}"#);
    for text in [
        String::new(),
        "null".into(),
        "[".repeat(100_000),
        r#"{"a":"#.repeat(100_000),
        vit(r#""embed_dim": 0"#),
        vit(r#""embed_dim": -8"#),
        vit(r#""embed_dim": 18446744073709551615"#),
        vit(r#""embed_dim": 1e400"#),
        vit(r#""embed_dim": 65536, "num_heads": 1024, "depth": 1024"#),
        vit(r#""depth": 1048576"#),
        vit(r#""patch_size": 1048576"#),
        vit(r#""num_heads": 0"#),
        vit(r#""mlp_ratio": -1"#),
        vit(r#""mlp_ratio": 1e300"#),
        vit(r#""mlp_ratio": "four""#),
        vit(r#""num_reg_tokens": 1048576"#),
        vit(r#""rope_temperature": 0"#),
        hf(r#""hidden_size": 0, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4"#),
        hf(r#""hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 0, "intermediate_size": 4"#),
        hf(r#""hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 0"#),
        hf(
            r#""hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 64, "layer_norm_eps": -1"#,
        ),
    ] {
        let error = config_json::parse(&text, "config.json").err();
        let error = error.unwrap_or_else(|| panic!("accepted: {}", &text[..text.len().min(200)])).to_string();
        assert!(!error.is_empty() && error.len() < 500, "{error}");
    }
}

// --- damage by chance -----------------------------------------------------------------------------------------

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// One to four changes, half of them among the first or last kilobyte, where the structure is.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let length = bytes.len();
        let at = match random.below(4) {
            0 => random.below(length.min(1024)),
            1 => length - 1 - random.below(length.min(1024)),
            _ => random.below(length),
        };
        match random.below(9) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF, b'(', b'R', b'"', b'9'][random.below(9)],
            2 => bytes[at] = random.next() as u8,
            3 => {
                let number = [0, 1, u64::MAX, u64::MAX >> 1, 1 << 31, 1 << 32, random.next()][random.below(7)];
                let width = [2, 4, 8][random.below(3)];
                for (byte, new) in bytes[at..].iter_mut().zip(&number.to_le_bytes()[..width]) {
                    *byte = *new;
                }
            }
            4 => bytes.truncate(at.max(1)),
            5 => {
                let end = (at + 1 + random.below(40)).min(length);
                if end - at < length {
                    bytes.drain(at..end);
                }
            }
            6 => {
                let part = bytes[at..(at + 1 + random.below(200)).min(length)].to_vec();
                bytes.splice(at..at, part);
            }
            7 => {
                let inserted: Vec<u8> = (0..1 + random.below(9)).map(|_| random.next() as u8).collect();
                bytes.splice(at..at, inserted);
            }
            _ => {
                // Digits become other digits: shapes, offsets and counts.
                for byte in bytes[at..].iter_mut().take(64).filter(|byte| byte.is_ascii_digit()) {
                    *byte = b'0' + random.below(10) as u8;
                }
            }
        }
    }
}

#[test]
fn ten_thousand_damaged_files_are_refused_or_harmless() {
    let _alone = alone();
    let (folder, model) = (tempfile::tempdir().unwrap(), tiny());
    let meta = synthetic_weights(&model, 1, Dialect::Meta);
    let place = |name: &str| folder.path().join(name);
    write(&place("model.safetensors"), &meta, Type::F32);
    write_pth(&place("flat.pth"), &meta, Type::F32, &Layout::default());
    let training = Layout { protocol: 4, wrapper: Some("teacher"), parameters: true };
    write_pth(&place("training.pth"), &meta, Type::Bf16, &training);
    std::fs::create_dir(place("shards")).unwrap();
    write_shards(&place("shards"), &meta, Type::F16, 3);
    let paths: Vec<PathBuf> =
        ["model.safetensors", "flat.pth", "training.pth", "shards/model.safetensors.index.json"].map(place).to_vec();
    let originals: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    for path in &paths {
        use_it(path, &model).unwrap();
    }
    let (mut refused, mut harmless) = (0, 0);
    for seed in 0..MUTATIONS {
        let mut random = Random(seed);
        // In a checksummed file most damage ends at the checksum: the pickle is also damaged before it is packed.
        let ok = match seed % 6 {
            kind @ 0..4 => {
                let (path, mut bytes) = (&paths[kind as usize], originals[kind as usize].clone());
                damage(&mut bytes, &mut random);
                std::fs::write(path, bytes).unwrap();
                let name = format!("seed {seed} of {}", path.display());
                let ok = within_limits(&name, path, &model).is_ok();
                std::fs::write(path, &originals[kind as usize]).unwrap();
                ok
            }
            4 => {
                let names: Vec<(String, Vec<usize>)> =
                    meta.iter().map(|(name, shape, _)| (name.clone(), shape.clone())).collect();
                let mut pickle = dinov3_testing::pth::state_dict(&names, Type::F32, &Layout::default());
                damage(&mut pickle, &mut random);
                let bytes: Vec<Vec<u8>> = meta.iter().map(|(_, _, values)| Type::F32.bytes(values)).collect();
                let mut zip = ZipWriter::new(Vec::new());
                zip.entry("a/data.pkl", &pickle).unwrap();
                for (index, bytes) in bytes.iter().enumerate() {
                    zip.entry(&format!("a/data/{index}"), bytes).unwrap();
                }
                let path = place("pickle.pth");
                std::fs::write(&path, zip.finish().unwrap()).unwrap();
                let name = format!("seed {seed} of a pickle");
                within_limits(&name, &path, &model).is_ok()
            }
            _ => {
                let mut text = TINY.as_bytes().to_vec();
                damage(&mut text, &mut random);
                let text = String::from_utf8_lossy(&text).into_owned();
                let parsed = catch_unwind(|| config_json::parse(&text, "config.json"));
                let parsed = parsed.unwrap_or_else(|_| panic!("seed {seed} of config.json panicked: {text}"));
                let limits = |spec: &ModelSpec| assert!(spec.parameter_count() <= spec::MOST_PARAMETERS, "seed {seed}");
                parsed.inspect(limits).is_ok()
            }
        };
        if ok { harmless += 1 } else { refused += 1 }
    }
    println!("{refused} refused, {harmless} harmless");
    assert!(refused > harmless, "{refused} refused, {harmless} harmless: the damage is too small");
}
