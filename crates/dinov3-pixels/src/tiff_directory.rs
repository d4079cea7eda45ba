//! Looking up tags in a TIFF directory, which is also the shape of an EXIF block.

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

impl TiffEntry<'_> {
    /// The first value, as a whole number; 0 if there is none.
    pub(crate) fn first_number(&self) -> u64 {
        let size = match self.kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            _ => 4,
        };
        number(self.bytes.get(..size).unwrap_or_default(), self.big_endian)
    }
}

fn number(bytes: &[u8], big_endian: bool) -> u64 {
    let fold = |sum: u64, &byte: &u8| sum << 8 | u64::from(byte);
    if big_endian { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) }
}

/// The first directory's entry with this tag, in a classic or a Big TIFF.
pub(crate) fn tiff_entry(block: &[u8], wanted: u16) -> Option<TiffEntry<'_>> {
    let directory = Directory::open(block)?;
    let at = directory.entries().find(|&(tag, _)| tag == wanted)?.1;
    let kind = directory.number(at + 2, 2)? as u16;
    let unit = match kind {
        1 | 2 | 6 | 7 => 1,
        3 | 8 => 2,
        4 | 9 | 11 => 4,
        _ => return None,
    };
    let size = usize::try_from(directory.number(at + 4, directory.wide)?).ok()?.checked_mul(unit)?;
    let inline_at = at + 4 + directory.wide;
    let value_at = match size <= directory.wide {
        true => inline_at,
        false => usize::try_from(directory.number(inline_at, directory.wide)?).ok()?,
    };
    let bytes = block.get(value_at..value_at.checked_add(size)?)?;
    Some(TiffEntry { kind, big_endian: directory.big_endian, at: value_at, bytes })
}

/// The largest number of values that an entry with one of these tags announces.
pub(crate) fn most_values(block: &[u8], tags: &[u16]) -> u64 {
    let Some(directory) = Directory::open(block) else { return 0 };
    let wanted = directory.entries().filter(|(tag, _)| tags.contains(tag));
    wanted.filter_map(|(_, at)| directory.number(at + 4, directory.wide)).max().unwrap_or(0)
}

/// The first directory of a block.
struct Directory<'a> {
    block: &'a [u8],
    big_endian: bool,
    /// The width of offsets and counts in bytes.
    wide: usize,
    /// Where the first entry starts.
    first_at: usize,
    count: usize,
}

impl<'a> Directory<'a> {
    fn open(block: &'a [u8]) -> Option<Self> {
        let big_endian = match block.get(..2)? {
            b"II" => false,
            b"MM" => true,
            _ => return None,
        };
        let mut directory = Self { block, big_endian, wide: 4, first_at: 0, count: 0 };
        let mut count_size = 2;
        let mut start_at = 4;
        if directory.number(2, 2)? == 43 {
            directory.wide = 8;
            (count_size, start_at) = (8, 8);
        }
        let at = usize::try_from(directory.number(start_at, directory.wide)?).ok()?;
        directory.count = usize::try_from(directory.number(at, count_size)?).ok()?.min(65_536);
        directory.first_at = at.checked_add(count_size)?;
        Some(directory)
    }

    fn number(&self, at: usize, size: usize) -> Option<u64> {
        Some(number(self.block.get(at..at.checked_add(size)?)?, self.big_endian))
    }

    /// Tag and place of each entry whose tag lies within the block.
    fn entries(&self) -> impl Iterator<Item = (u16, usize)> {
        let size = 4 + 2 * self.wide;
        (0..self.count).map_while(move |index| {
            let at = self.first_at.checked_add(index * size)?;
            Some((self.number(at, 2)? as u16, at))
        })
    }
}
