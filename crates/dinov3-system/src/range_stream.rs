//! A file that is larger than the memory, read ahead of its use and let go behind it.

use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::memory_map::MappedFile;

/// Brings the ranges of a mapped file into memory one after the other, each while the one before is used, and lets go of
/// those behind. The first ones may stay for good.
///
/// Only a matter of time and memory: whatever is used without being announced is read when it is touched.
pub struct RangeStream {
    entered: Sender<usize>,
}

impl RangeStream {
    /// For ranges that are used in their order, again and again; the first `resident` of them stay in memory.
    pub fn new(file: MappedFile, ranges: Vec<Range<usize>>, resident: usize) -> Self {
        let (entered, entries) = channel();
        // Without a thread the system reads what is touched, as it does anyway.
        let _ = std::thread::Builder::new()
            .name("dinov3-read".to_string())
            .spawn(move || read_ahead(&file, &ranges, resident, &entries));
        Self { entered }
    }

    /// Says that range number `index` is used from now on, and the one before it no more.
    pub fn enter(&self, index: usize) {
        let _ = self.entered.send(index);
    }
}

/// Until nobody is left who could say anything.
fn read_ahead(file: &MappedFile, ranges: &[Range<usize>], resident: usize, entries: &Receiver<usize>) {
    while let Ok(entered) = entries.recv() {
        if entered >= ranges.len() {
            continue;
        }
        let before = (entered + ranges.len() - 1) % ranges.len();
        if before != entered && before >= resident {
            file.discard(ranges[before].clone());
        }
        // What stays needs no reading once it is there; after the last one comes the first that did not stay.
        let next = match entered + 1 {
            next if next < ranges.len() => next,
            _ => resident.min(entered),
        };
        if next != entered {
            file.prefetch(ranges[next].clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_is_there_whenever_it_is_entered() {
        let path = std::env::temp_dir().join(format!("dinov3-stream-{}", std::process::id()));
        let bytes: Vec<u8> = (0..100_000_u32).map(|index| (index / 100) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = MappedFile::open(&path).unwrap();
        let ranges: Vec<Range<usize>> = (0..10).map(|index| index * 10_000..(index + 1) * 10_000).collect();
        for resident in [0, 3, 10] {
            let stream = RangeStream::new(file.clone(), ranges.clone(), resident);
            for (index, range) in ranges.iter().enumerate().cycle().take(35) {
                stream.enter(index);
                assert_eq!(file[range.clone()], bytes[range.clone()]);
            }
            stream.enter(99);
        }
        std::fs::remove_file(&path).unwrap();
    }
}
