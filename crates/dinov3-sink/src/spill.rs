//! Where the pages of a row group wait until it is complete.
//!
//! A row group is written column by column and filled row by row, so all of its pages have to wait. Small columns wait
//! in memory; those of vectors, about 128 MB, in temporary files beside the output.

use std::fmt;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use bytes::Bytes;
use parquet::arrow::arrow_writer::{PageKey, PageStore, PageStoreArgs, PageStoreFactory};
use parquet::errors::{ParquetError, Result};

use crate::atomic::Temporary;

/// What one column keeps in memory.
const MEMORY_BYTES: usize = 4 << 20;

/// Makes a store for each column of each row group.
#[derive(Debug)]
pub(crate) struct Spill {
    /// The output.
    pub(crate) target: PathBuf,
}

impl PageStoreFactory for Spill {
    fn create(&self, _: &PageStoreArgs<'_>) -> Result<Box<dyn PageStore>> {
        let target = self.target.clone();
        Ok(Box::new(Pages { target, pages: Vec::new(), memory_bytes: 0, file: None, end: 0 }))
    }
}

enum Page {
    Memory(Bytes),
    Disk { start: u64, length_bytes: usize },
}

/// Pages of one column of one row group. The temporary file goes with it.
struct Pages {
    target: PathBuf,
    /// By key; `None` when taken.
    pages: Vec<Option<Page>>,
    memory_bytes: usize,
    file: Option<Temporary>,
    end: u64,
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("pages", &self.pages.len()).field("disk_bytes", &self.end).finish_non_exhaustive()
    }
}

impl PageStore for Pages {
    fn put(&mut self, value: Bytes) -> Result<PageKey> {
        let key = PageKey::new(self.pages.len() as u64);
        if self.file.is_none() && self.memory_bytes + value.len() <= MEMORY_BYTES {
            self.memory_bytes += value.len();
            // A page may be a part of a larger buffer, which would be kept.
            self.pages.push(Some(Page::Memory(Bytes::copy_from_slice(&value))));
            return Ok(key);
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(Temporary::beside(&self.target)?),
        };
        file.seek(SeekFrom::Start(self.end))?;
        file.write_all(&value)?;
        self.pages.push(Some(Page::Disk { start: self.end, length_bytes: value.len() }));
        self.end += value.len() as u64;
        Ok(key)
    }

    fn take(&mut self, key: PageKey) -> Result<Bytes> {
        let page = self.pages.get_mut(key.get() as usize).and_then(Option::take);
        match (page, &mut self.file) {
            (Some(Page::Memory(bytes)), _) => {
                self.memory_bytes -= bytes.len();
                Ok(bytes)
            }
            (Some(Page::Disk { start, length_bytes }), Some(file)) => {
                let mut bytes = vec![0; length_bytes];
                file.read_at(start, &mut bytes)?;
                Ok(bytes.into())
            }
            _ => Err(ParquetError::General(format!("no page {}", key.get()))),
        }
    }

    fn memory_size(&self) -> usize {
        self.memory_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_beyond_the_memory_wait_in_a_file_that_goes_with_them() {
        let folder = crate::tests::Folder::new("spill");
        let target = folder.at("out.parquet");
        let mut store = Pages { target, pages: Vec::new(), memory_bytes: 0, file: None, end: 0 };
        let page = |number: u8| Bytes::from(vec![number; 1 << 20]);
        let keys: Vec<PageKey> = (0..7).map(|number| store.put(page(number)).unwrap()).collect();
        assert_eq!((store.memory_size(), folder.outputs().len()), (MEMORY_BYTES, 1));
        // A dictionary may be asked for first, and more may come after.
        assert_eq!(store.take(keys[5]).unwrap(), page(5));
        let last = store.put(page(9)).unwrap();
        for (number, key) in [0, 1, 2, 3, 4, 6].map(|number| (number, keys[usize::from(number)])) {
            assert_eq!(store.take(key).unwrap(), page(number));
        }
        assert_eq!(store.take(last).unwrap(), page(9));
        assert!(store.take(last).is_err());
        drop(store);
        assert_eq!(folder.outputs(), []);
    }
}
