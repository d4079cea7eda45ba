//! Parquet files of strangers. The `parquet` crate reserves what a file's counts name, follows schemas as deep as they go,
//! and panics on some damaged pages; so counts, depth and sizes are checked before it sees the file, and a panic becomes an
//! error. What its codecs unpack is bounded by the page headers that are checked here.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use bytes::Bytes;

const MAGIC: &[u8] = b"PAR1";
/// Magic, the footer's length and magic again.
const SMALLEST_FILE_BYTES: usize = 12;
/// A longer footer belongs to no table that is meant here; structures of it take some ten times its length.
const LONGEST_FOOTER_BYTES: usize = 16 << 20;
/// Values of a page are unpacked together. Writers end pages at about 1 MB.
const LARGEST_PAGE_BYTES: u64 = 64 << 20;
/// Values of a file, nulls too, which take no bytes in it.
const MOST_VALUES: u64 = 100_000_000;
/// Groups in groups of a schema, and structures in structures of a footer.
const DEEPEST: usize = 64;

/// What `read` makes of a Parquet file that anybody may have written.
///
/// # Errors
/// What is wrong with the file, or what `read` says.
pub fn read_untrusted_parquet<T>(bytes: Bytes, read: impl FnOnce(Bytes) -> Result<T, String>) -> Result<T, String> {
    check(&bytes)?;
    quietly(|| read(bytes)).unwrap_or_else(|| Err("it is damaged, or of a kind that is not read here".to_owned()))
}

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Nothing if it panics; the panic is not shown.
fn quietly<T>(run: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let shown = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |about| {
            if !IS_QUIET.get() {
                shown(about);
            }
        }));
    });
    let was_quiet = IS_QUIET.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    IS_QUIET.set(was_quiet);
    result.ok()
}

/// Refuses files whose footer or page headers name more than is allowed.
fn check(bytes: &[u8]) -> Result<(), String> {
    let is_parquet = bytes.len() >= SMALLEST_FILE_BYTES && bytes.starts_with(MAGIC) && bytes.ends_with(MAGIC);
    if !is_parquet {
        return Err("it does not begin and end as Parquet does".to_owned());
    }
    let end = bytes.len() - 8;
    let length: [u8; 4] = bytes[end..end + 4].try_into().map_err(|_| broken())?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST_FOOTER_BYTES {
        return Err(format!("its footer has {length} bytes, and {LONGEST_FOOTER_BYTES} are allowed"));
    }
    let footer = end.checked_sub(length).and_then(|start| bytes.get(start..end)).ok_or_else(broken)?;
    let mut chunks = Vec::new();
    let mut reader = Reader { bytes: footer, offset: 0 };
    reader.structure(DEEPEST, &mut |reader, field, kind| match (field, kind) {
        (2, LIST) => reader.schema().map(|()| true),
        (4, LIST) => reader.row_groups(&mut chunks).map(|()| true),
        _ => Ok(false),
    })?;
    let mut values = 0_u64;
    for chunk in chunks {
        values = values.saturating_add(chunk.check(bytes)?);
        if values > MOST_VALUES {
            return Err(format!("it has more than {MOST_VALUES} values"));
        }
    }
    Ok(())
}

fn broken() -> String {
    "its footer is damaged".to_owned()
}

/// Where a column chunk lies.
#[derive(Default)]
struct Chunk {
    first_page: Option<i64>,
    dictionary_page: Option<i64>,
    compressed_bytes: i64,
}

impl Chunk {
    /// Looks at the headers of its pages; gives the number of their values.
    fn check(&self, bytes: &[u8]) -> Result<u64, String> {
        let wrong = || "the pages of a column are damaged".to_owned();
        if self.compressed_bytes == 0 {
            return Ok(0);
        }
        // 0 is what some writers say where there is none.
        let start = self.dictionary_page.filter(|offset| *offset > 0).or(self.first_page).ok_or_else(wrong)?;
        let start = usize::try_from(start).map_err(|_| wrong())?;
        let length = usize::try_from(self.compressed_bytes).map_err(|_| wrong())?;
        let end = start.checked_add(length).ok_or_else(wrong)?;
        let mut reader = Reader { bytes: bytes.get(start..end).ok_or_else(wrong)?, offset: 0 };
        let mut values = 0_u64;
        while reader.offset < reader.bytes.len() {
            let (mut unpacked, mut stored, mut page_values) = (0_i64, None, 0_i64);
            let walked = reader.structure(DEEPEST, &mut |reader, field, kind| match (field, kind) {
                (2, NUMBERS) => reader.number().map(|number| unpacked = number).map(|()| true),
                (3, NUMBERS) => reader.number().map(|number| stored = Some(number)).map(|()| true),
                // Headers of data pages and dictionaries: the first number is that of the values.
                (5 | 7 | 8, STRUCTURE) => {
                    let of_values = &mut |reader: &mut Reader<'_>, field, kind| match (field, kind) {
                        (1, NUMBERS) => reader.number().map(|number| page_values = number).map(|()| true),
                        _ => Ok(false),
                    };
                    reader.structure(DEEPEST, of_values).map(|()| true)
                }
                _ => Ok(false),
            });
            walked.map_err(|_| wrong())?;
            let unpacked = u64::try_from(unpacked).map_err(|_| wrong())?;
            if unpacked > LARGEST_PAGE_BYTES {
                return Err(format!("it has a page of {unpacked} bytes, and {LARGEST_PAGE_BYTES} are allowed"));
            }
            values = values.saturating_add(u64::try_from(page_values).map_err(|_| wrong())?);
            let stored = stored.and_then(|stored| usize::try_from(stored).ok()).ok_or_else(wrong)?;
            reader.skip(stored).map_err(|_| wrong())?;
        }
        Ok(values)
    }
}

/// Numbers of 16 to 64 bits, all of which are written alike.
const NUMBERS: u8 = 5;
const BYTES: u8 = 8;
const LIST: u8 = 9;
const STRUCTURE: u8 = 12;

/// Thrift's compact protocol, as far as structures can be walked over.
struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

/// Looks at a field; whether it was read. What was not is walked over.
type Look<'l> = &'l mut dyn FnMut(&mut Reader<'_>, i32, u8) -> Result<bool, String>;

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, String> {
        let byte = *self.bytes.get(self.offset).ok_or_else(broken)?;
        self.offset += 1;
        Ok(byte)
    }

    fn skip(&mut self, count: usize) -> Result<(), String> {
        let end = self.offset.checked_add(count).filter(|end| *end <= self.bytes.len());
        self.offset = end.ok_or_else(broken)?;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(broken())
    }

    /// Zigzag.
    fn number(&mut self) -> Result<i64, String> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn count(&mut self) -> Result<usize, String> {
        // Whatever is counted takes a byte, at least.
        let count = self.varint()?;
        usize::try_from(count).ok().filter(|count| *count <= self.bytes.len() - self.offset).ok_or_else(broken)
    }

    /// How many elements a list has, and of which kind.
    fn list(&mut self) -> Result<(usize, u8), String> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.count()?,
            short => usize::from(short),
        };
        Ok((count, head & 0x0f))
    }

    fn value(&mut self, kind: u8, depth: usize) -> Result<(), String> {
        let depth = depth.checked_sub(1).ok_or("its footer is nested too deep")?;
        match kind {
            // True and false in lists; fields say them by their kind.
            1..=3 => self.skip(1),
            4..=6 => self.varint().map(|_| ()),
            7 => self.skip(8),
            BYTES => {
                let count = self.count()?;
                self.skip(count)
            }
            LIST | 10 => {
                let (count, kind) = self.list()?;
                (0..count).try_for_each(|_| self.value(kind, depth))
            }
            11 => {
                let count = self.count()?;
                if count == 0 {
                    return Ok(());
                }
                let kinds = self.byte()?;
                (0..count).try_for_each(|_| {
                    self.value(kinds >> 4, depth)?;
                    self.value(kinds & 0x0f, depth)
                })
            }
            STRUCTURE => self.structure(depth, &mut |_, _, _| Ok(false)),
            _ => Err(broken()),
        }
    }

    /// Walks over a structure. Numbers of all widths are shown as [`NUMBERS`].
    fn structure(&mut self, depth: usize, look: Look<'_>) -> Result<(), String> {
        let mut field = 0_i32;
        loop {
            let head = self.byte()?;
            let kind = head & 0x0f;
            if kind == 0 {
                return Ok(());
            }
            field = match head >> 4 {
                0 => i32::try_from(self.number()?).map_err(|_| broken())?,
                step => field.saturating_add(i32::from(step)),
            };
            let shown = if matches!(kind, 4..=6) { NUMBERS } else { kind };
            if !look(self, field, shown)? && !matches!(kind, 1 | 2) {
                self.value(kind, depth)?;
            }
        }
    }

    /// Structures in a list, one after the other.
    fn structures(&mut self, look: &mut dyn FnMut(&mut Self) -> Result<(), String>) -> Result<(), String> {
        match self.list()? {
            (0, _) => Ok(()),
            (count, STRUCTURE) => (0..count).try_for_each(|_| look(self)),
            _ => Err(broken()),
        }
    }

    /// The flat list of a schema's nodes: each says how many of those that follow are its children.
    fn schema(&mut self) -> Result<(), String> {
        // Children that are still to come, of the groups that are open.
        let mut open: Vec<i64> = Vec::new();
        let mut is_first = true;
        self.structures(&mut |reader| {
            while open.last() == Some(&0) {
                open.pop();
            }
            match open.last_mut() {
                Some(left) => *left -= 1,
                None if is_first => is_first = false,
                None => return Err("its schema is damaged".to_owned()),
            }
            let mut children = 0;
            reader.structure(DEEPEST, &mut |reader, field, kind| match (field, kind) {
                (5, NUMBERS) => reader.number().map(|number| children = number).map(|()| true),
                _ => Ok(false),
            })?;
            let left = (reader.bytes.len() - reader.offset) as i64;
            if !(0..=left).contains(&children) {
                return Err("its schema is damaged".to_owned());
            }
            if children > 0 {
                open.push(children);
            }
            match open.len() > DEEPEST {
                true => Err(format!("its schema is nested deeper than {DEEPEST} groups")),
                false => Ok(()),
            }
        })
    }

    fn row_groups(&mut self, chunks: &mut Vec<Chunk>) -> Result<(), String> {
        self.structures(&mut |reader| {
            reader.structure(DEEPEST, &mut |reader, field, kind| match (field, kind) {
                (1, LIST) => reader.structures(&mut |reader| reader.column(chunks)).map(|()| true),
                _ => Ok(false),
            })
        })
    }

    fn column(&mut self, chunks: &mut Vec<Chunk>) -> Result<(), String> {
        self.structure(DEEPEST, &mut |reader, field, kind| {
            if (field, kind) != (3, STRUCTURE) {
                return Ok(false);
            }
            let mut chunk = Chunk::default();
            reader.structure(DEEPEST, &mut |reader, field, kind| {
                match (field, kind) {
                    (7, NUMBERS) => chunk.compressed_bytes = reader.number()?,
                    (9, NUMBERS) => chunk.first_page = Some(reader.number()?),
                    (11, NUMBERS) => chunk.dictionary_page = Some(reader.number()?),
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
            chunks.push(chunk);
            Ok(true)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::basic::{Compression, Repetition, Type as PhysicalType};
    use parquet::data_type::Int64Type;
    use parquet::file::properties::WriterProperties;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::types::Type;

    use super::*;

    /// A column of numbers in this many groups.
    fn file(groups: usize, values: &[i64], compression: Compression) -> Vec<u8> {
        let leaf = Type::primitive_type_builder("x", PhysicalType::INT64).with_repetition(Repetition::REQUIRED);
        let mut node = Arc::new(leaf.build().unwrap());
        for _ in 0..groups {
            let group = Type::group_type_builder("g").with_repetition(Repetition::REQUIRED).with_fields(vec![node]);
            node = Arc::new(group.build().unwrap());
        }
        let schema = Arc::new(Type::group_type_builder("m").with_fields(vec![node]).build().unwrap());
        let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
        let mut bytes = Vec::new();
        let mut writer = SerializedFileWriter::new(&mut bytes, schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(values, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        bytes
    }

    fn rows(bytes: Vec<u8>) -> Result<usize, String> {
        read_untrusted_parquet(Bytes::from(bytes), |bytes| {
            let reader = SerializedFileReader::new(bytes).map_err(|error| error.to_string())?;
            let rows = reader.get_row_iter(None).map_err(|error| error.to_string())?;
            rows.map(|row| row.map_err(|error| error.to_string())).try_fold(0, |count, row| row.map(|_| count + 1))
        })
    }

    #[test]
    fn sound_files_are_read() {
        for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::ZSTD(Default::default())] {
            let values: Vec<i64> = (0..30_000).map(|value| value * value % 977).collect();
            assert_eq!(rows(file(3, &values, compression)), Ok(30_000));
        }
        assert_eq!(rows(file(0, &[], Compression::UNCOMPRESSED)), Ok(0));
    }

    #[test]
    fn schemas_that_are_too_deep_are_refused() {
        assert_eq!(rows(file(DEEPEST - 1, &[1], Compression::UNCOMPRESSED)), Ok(1));
        let refused = rows(file(DEEPEST + 1, &[1], Compression::UNCOMPRESSED)).unwrap_err();
        assert!(refused.contains("nested deeper than 64 groups"), "{refused}");
    }

    /// The file with another footer.
    fn with_footer(bytes: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let end = bytes.len() - 8;
        let start = end - u32::from_le_bytes(bytes[end..end + 4].try_into().unwrap()) as usize;
        let mut footer = bytes[start..end].to_vec();
        change(&mut footer);
        let length = (footer.len() as u32).to_le_bytes();
        [&bytes[..start], &footer, &length, MAGIC].concat()
    }

    #[test]
    fn counts_beyond_the_bytes_are_refused_before_room_is_made() {
        let bytes = file(0, &[1, 2, 3], Compression::UNCOMPRESSED);
        // Row groups: field 4, a list of one structure.
        let huge = with_footer(&bytes, |footer| {
            let at = footer.windows(2).position(|pair| pair == [0x19, 0x1c]).unwrap();
            footer.splice(at + 1..at + 2, [0xfc, 0xff, 0xff, 0xff, 0xff, 0x07]);
        });
        assert_eq!(rows(huge), Err(broken()));
        let long = [&bytes[..bytes.len() - 8], &u32::MAX.to_le_bytes(), MAGIC].concat();
        assert!(rows(long).unwrap_err().contains("are allowed"));
        assert!(rows(b"PAR1PAR1".to_vec()).unwrap_err().contains("does not begin and end"));
    }

    #[test]
    fn pages_that_claim_to_be_huge_are_refused() {
        let bytes = file(0, &[1; 40], Compression::ZSTD(Default::default()));
        let mut place = None;
        let look = &mut |reader: &mut Reader<'_>, field, _| {
            if field == 2 {
                place = Some(4 + reader.offset);
            }
            Ok(false)
        };
        Reader { bytes: &bytes[4..], offset: 0 }.structure(DEEPEST, look).unwrap();
        let place = place.unwrap();
        let old = bytes[place..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let mut huge = bytes.clone();
        huge.splice(place..place + old, [0xfe, 0xff, 0xff, 0xff, 0x0f]);
        let refused = rows(huge).unwrap_err();
        assert!(refused.contains("it has a page of 2147483647 bytes"), "{refused}");
    }

    #[test]
    fn a_panic_of_the_reader_is_an_error() {
        let bytes = Bytes::from(file(0, &[1], Compression::UNCOMPRESSED));
        let told = read_untrusted_parquet(bytes, |_| -> Result<(), String> { panic!("no such type") });
        assert!(told.unwrap_err().contains("is damaged"));
    }

    #[test]
    fn no_flipped_bit_makes_it_panic() {
        let bytes = file(2, &(0..100).collect::<Vec<_>>(), Compression::SNAPPY);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let _ = rows(flipped);
        }
    }
}
