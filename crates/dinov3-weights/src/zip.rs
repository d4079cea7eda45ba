//! A zip archive of stored entries, as `torch.save` writes it: names, places and checksums.

use std::collections::BTreeMap;
use std::ops::Range;

use rawzip::{CompressionMethod, ZipArchive};

use crate::files::MOST_TENSORS;

/// Every tensor's storage and the few records beside them.
const MOST_ENTRIES: usize = MOST_TENSORS + 100;
/// PyTorch's own names have some tens of bytes.
const LONGEST_NAME_BYTES: usize = 512;

/// A stored entry.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its bytes in the file.
    pub range: Range<usize>,
    /// CRC-32 of these bytes as the directory states it; not checked here.
    pub crc32: u32,
}

/// Reads the central directory and the local headers; the data stays untouched.
///
/// Entries must be stored without compression, have distinct names, and not overlap: nothing can unfold.
///
/// # Errors
/// The reason, without the file's name.
pub(crate) fn read_directory(bytes: &[u8]) -> Result<BTreeMap<String, Entry>, String> {
    let archive = ZipArchive::from_slice(bytes)
        .map_err(|error| format!("its zip directory cannot be read: {error} (is the file cut short?)"))?;
    let mut entries = BTreeMap::new();
    let mut places: Vec<Range<u64>> = Vec::new();
    for record in archive.entries() {
        let record = record.map_err(|error| format!("its zip directory is damaged: {error}"))?;
        if entries.len() == MOST_ENTRIES {
            return Err(format!("more than {MOST_ENTRIES} zip entries"));
        }
        let path = record.file_path();
        let raw_name: &[u8] = path.as_ref();
        let name = std::str::from_utf8(raw_name).ok().filter(|name| name.len() <= LONGEST_NAME_BYTES);
        let name =
            name.ok_or_else(|| format!("a zip entry whose name is not UTF-8 of at most {LONGEST_NAME_BYTES} bytes"))?;
        let shown = name.escape_debug();
        let method = record.compression_method();
        if method != CompressionMethod::STORE || record.compressed_size_hint() != record.uncompressed_size_hint() {
            return Err(format!("the zip entry '{shown}' is compressed ({method:?}); torch.save stores as it is"));
        }
        if record.flags().is_encrypted() {
            return Err(format!("the zip entry '{shown}' is encrypted"));
        }
        let entry =
            archive.get_entry(record.wayfinder()).map_err(|error| format!("the zip entry '{shown}': {error}"))?;
        if entry.local_header().file_path().as_ref() != raw_name {
            return Err(format!("the zip entry '{shown}' has another name in its own header"));
        }
        let (start, end) = entry.compressed_data_range();
        if end > archive.directory_offset() {
            return Err(format!("the zip entry '{shown}' reaches into the directory"));
        }
        places.push(record.local_header_offset()..end);
        let entry = Entry { range: start as usize..end as usize, crc32: record.crc32() };
        if entries.insert(name.to_string(), entry).is_some() {
            return Err(format!("two zip entries are called '{shown}'"));
        }
    }
    places.sort_by_key(|place| place.start);
    if places.windows(2).any(|pair| pair[0].end > pair[1].start) {
        return Err("zip entries overlap".to_string());
    }
    Ok(entries)
}
