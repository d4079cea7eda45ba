//! Directories of TIFF files, classic and big, little-endian.

/// What a tag holds, little-endian.
pub(super) struct Entry {
    tag: u16,
    kind: u16,
    count: u64,
    bytes: Vec<u8>,
}

impl Entry {
    pub(super) fn short(tag: u16, values: &[u16]) -> Self {
        Self { tag, kind: 3, count: values.len() as u64, bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect() }
    }

    pub(super) fn long(tag: u16, values: &[u32]) -> Self {
        Self { tag, kind: 4, count: values.len() as u64, bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect() }
    }

    pub(super) fn double(tag: u16, values: &[f64]) -> Self {
        Self { tag, kind: 12, count: values.len() as u64, bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect() }
    }

    pub(super) fn text(tag: u16, text: &str) -> Self {
        // The zero ends it.
        let bytes: Vec<u8> = text.bytes().filter(|&byte| byte != 0).chain([0]).collect();
        Self { tag, kind: 2, count: bytes.len() as u64, bytes }
    }

    /// Positions in the file, in 4 or 8 bytes each.
    pub(super) fn offsets(tag: u16, values: &[u64], is_big: bool) -> Self {
        let count = values.len() as u64;
        let (kind, bytes) = match is_big {
            true => (16, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            // Only files that are small enough are not big.
            false => (4, values.iter().flat_map(|value| (*value as u32).to_le_bytes()).collect()),
        };
        Self { tag, kind, count, bytes }
    }
}

/// Bytes that a directory takes with what its tags hold.
pub(super) fn directory_bytes(entries: &[Entry], is_big: bool) -> u64 {
    let (head, entry, inline) = if is_big { (16, 20, 8) } else { (6, 12, 4) };
    let outside = entries.iter().map(|entry| entry.bytes.len()).filter(|&bytes| bytes > inline);
    let outside: usize = outside.map(|bytes| bytes.next_multiple_of(8)).sum();
    (head + entry * entries.len() + outside).next_multiple_of(8) as u64
}

/// The directory at `start`, a multiple of 8; the next one begins right behind it, unless it is the last.
pub(super) fn directory(mut entries: Vec<Entry>, start: u64, is_last: bool, is_big: bool) -> Vec<u8> {
    entries.sort_by_key(|entry| entry.tag);
    let size = directory_bytes(&entries, is_big);
    let (head, entry_bytes, inline) = if is_big { (16, 20, 8) } else { (6, 12, 4) };
    let (mut fixed, mut outside) = (Vec::new(), Vec::new());
    let outside_start = start + (head + entry_bytes * entries.len()) as u64;
    let number = |bytes: &mut Vec<u8>, value: u64| match is_big {
        true => bytes.extend(value.to_le_bytes()),
        false => bytes.extend((value as u32).to_le_bytes()),
    };
    match is_big {
        true => fixed.extend((entries.len() as u64).to_le_bytes()),
        false => fixed.extend((entries.len() as u16).to_le_bytes()),
    }
    for Entry { tag, kind, count, mut bytes } in entries {
        fixed.extend(tag.to_le_bytes());
        fixed.extend(kind.to_le_bytes());
        number(&mut fixed, count);
        if bytes.len() <= inline {
            bytes.resize(inline, 0);
            fixed.extend(bytes);
        } else {
            number(&mut fixed, outside_start + outside.len() as u64);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            outside.extend(bytes);
        }
    }
    number(&mut fixed, if is_last { 0 } else { start + size });
    fixed.extend(outside);
    fixed.resize(size as usize, 0);
    fixed
}

/// What comes before the first directory: the header, and GDAL's note that the file is laid out as a COG.
pub(super) fn preamble(is_big: bool) -> Vec<u8> {
    // The space leaves room for YES: a program that changes the file in a way that breaks this writes it there.
    let note = "LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n\
                BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n ";
    let note = format!("GDAL_STRUCTURAL_METADATA_SIZE={:06} bytes\n{note}", note.len());
    let header = if is_big { 16 } else { 8 };
    let first = (header + note.len()).next_multiple_of(8);
    let mut bytes = match is_big {
        true => [b"II\x2b\x00\x08\x00\x00\x00".as_slice(), &(first as u64).to_le_bytes()].concat(),
        false => [b"II\x2a\x00".as_slice(), &(first as u32).to_le_bytes()].concat(),
    };
    bytes.extend(note.bytes());
    bytes.resize(first, 0);
    bytes
}
