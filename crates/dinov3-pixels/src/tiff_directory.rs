//! Looking up one tag in a TIFF directory, which is also the shape of an EXIF block.

/// One entry of a directory.
pub(crate) struct TiffEntry<'a> {
    /// The type of the values.
    pub(crate) kind: u16,
    /// The byte order of the values.
    pub(crate) big_endian: bool,
    /// Where the values start in the block.
    pub(crate) at: usize,
    /// The values.
    pub(crate) bytes: &'a [u8],
}

/// The first directory's entry with this tag, in a classic or a Big TIFF.
pub(crate) fn tiff_entry(block: &[u8], wanted: u16) -> Option<TiffEntry<'_>> {
    let big_endian = match block.get(..2)? {
        b"II" => false,
        b"MM" => true,
        _ => return None,
    };
    let number = |at: usize, size: usize| -> Option<u64> {
        let bytes = block.get(at..at.checked_add(size)?)?;
        let fold = |sum: u64, &byte: &u8| sum << 8 | u64::from(byte);
        Some(if big_endian { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) })
    };
    let big_tiff = number(2, 2)? == 43;
    // The width of offsets and counts, and the width of the directory's own entry count.
    let (wide, count_size) = if big_tiff { (8, 8) } else { (4, 2) };
    let directory = usize::try_from(number(if big_tiff { 8 } else { 4 }, wide)?).ok()?;
    let entries = usize::try_from(number(directory, count_size)?).ok()?;
    let entry_size = 4 + 2 * wide;
    for index in 0..entries.min(65_536) {
        let at = directory.checked_add(count_size)?.checked_add(index * entry_size)?;
        if number(at, 2)? != u64::from(wanted) {
            continue;
        }
        let kind = number(at + 2, 2)? as u16;
        let unit = match kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 => 4,
            _ => return None,
        };
        let size = usize::try_from(number(at + 4, wide)?).ok()?.checked_mul(unit)?;
        let value_at = if size <= wide { at + 4 + wide } else { usize::try_from(number(at + 4 + wide, wide)?).ok()? };
        let bytes = block.get(value_at..value_at.checked_add(size)?)?;
        return Some(TiffEntry { kind, big_endian, at: value_at, bytes });
    }
    None
}
