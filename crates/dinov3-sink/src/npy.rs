//! NumPy's format, version 1.0, little-endian f32, C order.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use crate::atomic::{AtomicFile, sidecar, write_f32};
use crate::embedding::{Report, Rows};
use crate::error::OutputError;
use crate::layout::{ColumnContent, EmbeddingLayout};

/// Enough for two dimensions of 20 digits each, and a multiple of the 64 bytes that NumPy aligns to.
const HEADER_BYTES: usize = 128;

/// Magic, version, length and dictionary, padded to a multiple of 64 bytes and to at least `minimum` bytes.
pub(crate) fn header(shape: &[usize], minimum: usize) -> Option<Vec<u8>> {
    let extents: Vec<String> = shape.iter().map(usize::to_string).collect();
    // Python needs a comma after a single element.
    let comma = if shape.len() == 1 { "," } else { "" };
    let dictionary = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}{comma}), }}", extents.join(", "));
    let prefix = b"\x93NUMPY\x01\x00";
    let total = (prefix.len() + 2 + dictionary.len() + 1).next_multiple_of(64).max(minimum);
    let length = u16::try_from(total - prefix.len() - 2).ok()?;
    let mut header = prefix.to_vec();
    header.extend_from_slice(&length.to_le_bytes());
    header.extend_from_slice(dictionary.as_bytes());
    header.resize(total - 1, b' ');
    header.push(b'\n');
    Some(header)
}

pub(crate) struct Npy {
    rows: AtomicFile,
    /// `{"paths":[...` grows with the rows, so that the names need no memory.
    sidecar: AtomicFile,
    count: usize,
    width: usize,
}

impl Npy {
    pub(crate) fn create(path: &Path, layout: &EmbeddingLayout) -> Result<Self, OutputError> {
        let width = match layout.columns() {
            [only] if matches!(only.content, ColumnContent::Embedding(_)) => only.width,
            columns => {
                let columns = columns.iter().map(|column| column.name.clone()).collect();
                let path = path.to_owned();
                return Err(OutputError::OneColumnOnly { path, columns });
            }
        };
        let mut rows = AtomicFile::create(path)?;
        let mut sidecar = AtomicFile::create(sidecar(path))?;
        // The number of rows is known at the end.
        rows.write_all(&[0; HEADER_BYTES]).map_err(OutputError::write(path))?;
        sidecar.write_all(b"{\"paths\":[").map_err(OutputError::write(sidecar.path()))?;
        Ok(Self { rows, sidecar, count: 0, width })
    }
}

impl Rows for Npy {
    fn row(&mut self, name: &str, vectors: &[&[f32]]) -> Result<(), OutputError> {
        for vector in vectors {
            write_f32(&mut self.rows, vector).map_err(OutputError::write(self.rows.path()))?;
        }
        let separator = if self.count == 0 { "\n" } else { ",\n" };
        let sidecar = &mut self.sidecar;
        sidecar
            .write_all(separator.as_bytes())
            .and_then(|()| Ok(serde_json::to_writer(&mut *sidecar, name)?))
            .map_err(OutputError::write(sidecar.path()))?;
        self.count += 1;
        Ok(())
    }

    fn finish(self: Box<Self>, report: Report) -> Result<(), OutputError> {
        let (mut rows, mut sidecar) = (self.rows, self.sidecar);
        let mut end = || {
            sidecar.write_all(b"],\n\"failures\":")?;
            serde_json::to_writer_pretty(&mut sidecar, &report.failures)?;
            sidecar.write_all(b",\n\"provenance\":")?;
            serde_json::to_writer_pretty(&mut sidecar, report.provenance())?;
            sidecar.write_all(b"}\n")
        };
        end().map_err(OutputError::write(sidecar.path()))?;
        let header = header(&[self.count, self.width], HEADER_BYTES).unwrap_or_default();
        rows.seek(SeekFrom::Start(0)).and_then(|_| rows.write_all(&header)).map_err(OutputError::write(rows.path()))?;
        // Both are complete on disk before the first appears, and the names are there when the rows are.
        rows.sync()?;
        sidecar.commit()?;
        rows.commit()
    }
}
