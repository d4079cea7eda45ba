//! SHA-256 of weight files: from the file's own record, from a cache, or computed beside the run.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

/// Files larger than this many entries are not kept: the cache stays a page of text.
const MOST_CACHE_ENTRIES: usize = 512;

/// A file and its hash.
#[derive(Clone, Debug, serde::Serialize)]
pub struct FileHash {
    /// The file's name, without its folder: folders differ from machine to machine.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

/// Hashes on a thread of its own; [`PendingHashes::wait`] gives the result.
pub struct PendingHashes(std::thread::JoinHandle<Vec<std::io::Result<FileHash>>>);

impl PendingHashes {
    /// Starts hashing `paths` in the background.
    pub fn start(paths: &[PathBuf]) -> Self {
        let paths = paths.to_vec();
        Self(std::thread::spawn(move || {
            let cache = dinov3_system::cache_directory().map(|folder| folder.join("sha256.json"));
            paths.iter().map(|path| file_hash(path, cache.as_deref())).collect()
        }))
    }

    /// Waits for the hashes, in the order of the paths.
    pub fn wait(self) -> Vec<std::io::Result<FileHash>> {
        let failed = || vec![Err(std::io::Error::other("the hashing thread failed"))];
        self.0.join().unwrap_or_else(|_| failed())
    }
}

/// The hash of one file.
///
/// # Errors
/// If the file cannot be read. A cache that cannot be read or written is no error.
pub fn file_hash(path: &Path, cache: Option<&Path>) -> std::io::Result<FileHash> {
    let real = path.canonicalize()?;
    let information = std::fs::metadata(&real)?;
    let bytes = information.len();
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    // In the hub's cache the link names the hash; where it leads may again be a link, to a name of another kind.
    let linked = path.read_link().ok().and_then(|target| Some(path.parent()?.join(target)));
    if let Some(sha256) = linked.as_deref().and_then(recorded).or_else(|| recorded(&real)) {
        return Ok(FileHash { name, bytes, sha256 });
    }
    let modified_ns = information
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map_or(0, |duration| duration.as_nanos());
    let key = format!("{}|{bytes}|{modified_ns}", real.display());
    let mut known: BTreeMap<String, String> = cache
        .and_then(|cache| std::fs::read_to_string(cache).ok())
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    if let Some(sha256) = known.get(&key).filter(|text| is_sha256(text)) {
        return Ok(FileHash { name, bytes, sha256: sha256.clone() });
    }
    let sha256 = compute(&real, &mut |_| {})?;
    if let Some(cache) = cache {
        if known.len() >= MOST_CACHE_ENTRIES {
            known.clear();
        }
        known.insert(key, sha256.clone());
        // Only a cache: a failure to write it costs the next run some time.
        let _ = store(cache, &known);
    }
    Ok(FileHash { name, bytes, sha256 })
}

/// A file's hash, computed now, beside the one that its cache filed it under.
#[derive(Clone, Debug)]
pub struct CheckedFile {
    /// As computed from the bytes.
    pub hash: FileHash,
    /// The blob's name in a Hugging Face cache, if the file lies in one.
    pub recorded: Option<String>,
}

impl CheckedFile {
    /// Whether the bytes are those that the cache filed; true where nothing is on record.
    pub fn is_intact(&self) -> bool {
        self.recorded.as_ref().is_none_or(|recorded| *recorded == self.hash.sha256)
    }
}

/// Hashes a file, trusting no record of it. `progress` is told how many more bytes were read, every megabyte.
///
/// # Errors
/// If the file cannot be read.
pub fn check_file(path: &Path, progress: &mut dyn FnMut(usize)) -> std::io::Result<CheckedFile> {
    let real = path.canonicalize()?;
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let hash = FileHash { name, bytes: std::fs::metadata(&real)?.len(), sha256: compute(&real, progress)? };
    Ok(CheckedFile { hash, recorded: recorded(&real) })
}

/// The Hugging Face cache keeps large files under their SHA-256: a snapshot's file is a link to `blobs/<hash>`.
fn recorded(real: &Path) -> Option<String> {
    let name = real.file_name()?.to_str()?;
    let in_blobs = real.parent()?.file_name()? == "blobs";
    (in_blobs && is_sha256(name)).then(|| name.to_string())
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn compute(path: &Path, progress: &mut dyn FnMut(usize)) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => {
                hasher.update(&buffer[..count]);
                progress(count);
            }
        }
    }
    Ok(hex(&hasher.finalize()))
}

/// The SHA-256 of bytes that come in pieces.
#[derive(Clone, Default)]
pub struct StreamHash(Sha256);

impl StreamHash {
    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of all pieces, in hexadecimal.
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

/// The SHA-256 of some bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn store(cache: &Path, known: &BTreeMap<String, String>) -> std::io::Result<()> {
    if let Some(folder) = cache.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let temporary = cache.with_extension(format!("json.{}", std::process::id()));
    std::fs::write(&temporary, serde_json::to_string_pretty(known)?)?;
    std::fs::rename(temporary, cache)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_computed_once_and_noticed_when_the_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (file, cache) = (folder.path().join("w.safetensors"), folder.path().join("cache/sha256.json"));
        std::fs::write(&file, b"abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(file_hash(&file, Some(&cache)).unwrap().sha256, expected);
        // A tampered cache entry shows that the second answer comes from the cache.
        let text = std::fs::read_to_string(&cache).unwrap().replace("ba7816bf", "00000000");
        std::fs::write(&cache, text).unwrap();
        assert!(file_hash(&file, Some(&cache)).unwrap().sha256.starts_with("00000000"));
        std::fs::write(&file, b"abcd").unwrap();
        assert!(file_hash(&file, Some(&cache)).unwrap().sha256.starts_with("88d4266f"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_a_blob_tells_its_hash_wherever_the_blob_lies() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let (sha256, other) = ("0123456789abcdef".repeat(4), "fedcba9876543210".repeat(4));
        for name in ["store/fe", "model/blobs", "model/snapshots/commit"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("store/fe").join(&other), b"abc").unwrap();
        let blob = folder.path().join("model/blobs").join(&sha256);
        symlink(format!("../../store/fe/{other}"), &blob).unwrap();
        let file = folder.path().join("model/snapshots/commit/w.safetensors");
        symlink(format!("../../blobs/{sha256}"), &file).unwrap();
        let hash = file_hash(&file, None).unwrap();
        assert_eq!((hash.sha256, hash.bytes, hash.name.as_str()), (sha256, 3, "w.safetensors"));
    }

    #[test]
    fn a_blob_of_the_hub_cache_is_its_own_record() {
        let folder = tempfile::tempdir().unwrap();
        let name = "0123456789abcdef".repeat(4);
        std::fs::create_dir(folder.path().join("blobs")).unwrap();
        let blob = folder.path().join("blobs").join(&name);
        std::fs::write(&blob, b"abc").unwrap();
        assert_eq!(file_hash(&blob, None).unwrap().sha256, name);
        let checked = check_file(&blob, &mut |_| {}).unwrap();
        assert_eq!((checked.recorded.as_ref(), checked.is_intact()), (Some(&name), false));
        let honest = folder.path().join("blobs").join(&checked.hash.sha256);
        std::fs::rename(blob, &honest).unwrap();
        assert!(check_file(&honest, &mut |_| {}).unwrap().is_intact());
    }
}
