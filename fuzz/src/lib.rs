//! Everything that reads bytes from strangers, called with hostile ones.
//!
//! A [`Target`] is a function of bytes that panics if a promise is broken: no crash, no more memory than the limits
//! allow, what is accepted fits together, what is refused is refused with a reason. The same functions serve twice:
//!
//! - `cargo test -p dinov3-fuzz` runs them over their seeds, the committed corpora and a fixed number of mutations. It
//!   takes seconds, needs nothing but stable Rust and gives the same answer every time.
//! - `fuzz/run.sh TARGET` searches for new inputs with libFuzzer, guided by coverage, under AddressSanitizer, with the C
//!   code under UndefinedBehaviorSanitizer as well. See `docs/fuzzing.md`.

pub mod mutate;
mod targets;

use std::path::PathBuf;

/// One door that strangers' bytes come through.
pub struct Target {
    /// The name of the target and of the folder of its corpus.
    pub name: &'static str,
    /// Hands the bytes to the code under test; panics if a promise is broken.
    pub run: fn(&[u8]),
    /// Well-formed inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// The longest input that is tried.
    pub longest_bytes: usize,
    /// Words of the format, for mutations that bytes alone would not find.
    pub words: &'static [&'static [u8]],
}

/// All targets. Header parsers first, then decoders.
pub const TARGETS: &[Target] = targets::ALL;

/// The target of this name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

impl Target {
    /// The folder of the committed corpus.
    pub fn corpus_folder(&self) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(self.name)
    }

    /// The committed corpus, in the order of the file names; nothing if there is none yet.
    pub fn corpus(&self) -> std::io::Result<Vec<Vec<u8>>> {
        let folder = self.corpus_folder();
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let mut paths = std::fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<std::io::Result<Vec<PathBuf>>>()?;
        paths.sort();
        paths.into_iter().map(std::fs::read).collect()
    }
}
