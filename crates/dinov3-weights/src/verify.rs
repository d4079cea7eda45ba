//! Whether the files of a checkpoint are whole: structure, checksums, and values that are numbers.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use dinov3_model::dialect::{self, Meaning};
use dinov3_model::weights::WeightsError;
use safetensors::tensor::Dtype;

use crate::files::{FileSet, StoredTensor, malformed, open_files};
use crate::{torch, zip};

/// Bytes between two calls of the progress function.
const STEP_BYTES: usize = 4 << 20;

/// What was found whole.
#[derive(Clone, Debug, serde::Serialize)]
pub struct VerifyReport {
    /// The files, shards in order.
    pub files: Vec<VerifiedFile>,
    /// Tensors by stored type ("F32"): how many, and their bytes.
    pub dtypes: BTreeMap<String, TypeTotal>,
    /// Number of tensors.
    pub tensors: usize,
    /// Whose names the tensors have ("Meta"), if they are a DINOv3 encoder's.
    pub dialect: Option<String>,
}

/// One file.
#[derive(Clone, Debug, serde::Serialize)]
pub struct VerifiedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Size.
    pub bytes: u64,
    /// "safetensors" or "PyTorch zip".
    pub container: &'static str,
    /// Entries whose CRC-32 was computed and found right; safetensors files have none.
    pub checksums: usize,
}

/// Tensors of one type.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct TypeTotal {
    /// Number of tensors.
    pub tensors: usize,
    /// Bytes of their values.
    pub bytes: u64,
}

/// Reads every byte of a checkpoint once, in order and without holding it: headers and pickles, the CRC-32 of every
/// entry of a PyTorch zip, and whether every value that is used is a finite number.
///
/// `path` is whatever [`open_files`] takes. `progress` is called with the bytes done and to do, every few megabytes;
/// [`ControlFlow::Break`] ends the check.
///
/// # Errors
/// The first fault, with file and tensor; [`WeightsError::Interrupted`] if `progress` says so. A value that is not
/// finite is no fault in a tensor that inference ignores.
pub fn verify_files(
    path: &Path,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<VerifyReport, WeightsError> {
    let set = open_files(path)?;
    let dialect = dialect::detect(set.tensors.keys().map(String::as_str));
    let mut report = VerifyReport {
        files: Vec::new(),
        dtypes: BTreeMap::new(),
        tensors: set.tensors.len(),
        dialect: dialect.map(|dialect| dialect.to_string()),
    };
    for stored in set.tensors.values() {
        let total = report.dtypes.entry(format!("{:?}", stored.dtype)).or_default();
        total.tensors += 1;
        total.bytes += byte_range(stored).len() as u64;
    }
    let total_bytes: usize = set.maps.iter().map(|map| map.len()).sum();
    let mut done_bytes = 0;
    for file in 0..set.paths.len() {
        let used = |name: &str| match dialect {
            Some(dialect) => !matches!(dialect::meaning(dialect, name), Meaning::Ignored(_)),
            None => true,
        };
        let mut tensors: Vec<(&str, &StoredTensor)> = set
            .tensors
            .iter()
            .filter(|(name, stored)| stored.file == file && non_finite(stored.dtype).is_some() && used(name))
            .map(|(name, stored)| (name.as_str(), stored))
            .collect();
        tensors.sort_by_key(|(_, stored)| stored.offset_bytes);
        let (container, spans) = spans(&set, file)?;
        let checksums = spans.iter().filter(|span| span.crc32.is_some()).count();
        for span in spans {
            let mut hasher = crc32fast::Hasher::new();
            let end = span.range.end;
            for start in span.range.clone().step_by(STEP_BYTES) {
                let part = start..end.min(start + STEP_BYTES);
                if progress((done_bytes + start) as u64, total_bytes as u64).is_break() {
                    return Err(WeightsError::Interrupted { file: set.file_name(file) });
                }
                if span.crc32.is_some() {
                    hasher.update(&set.bytes(file)[part.clone()]);
                }
                for (name, stored) in &tensors {
                    check_part(&set, name, stored, &part)?;
                }
                set.release(file, part);
            }
            if span.crc32.is_some_and(|expected| expected != hasher.finalize()) {
                let reason = format!("the CRC-32 of its entry '{}' is wrong: the file is damaged", span.name);
                return Err(malformed(&set.paths[file], reason));
            }
        }
        let bytes = set.bytes(file).len();
        report.files.push(VerifiedFile { path: set.paths[file].clone(), bytes: bytes as u64, container, checksums });
        done_bytes += bytes;
    }
    // Nobody is asked after the last byte.
    let _ = progress(total_bytes as u64, total_bytes as u64);
    Ok(report)
}

/// A run of bytes that is read as a whole, with its checksum if it has one.
struct Span {
    name: String,
    range: Range<usize>,
    crc32: Option<u32>,
}

/// The kind of a file, and its spans in the order in which they lie there.
fn spans(set: &FileSet, file: usize) -> Result<(&'static str, Vec<Span>), WeightsError> {
    let (path, bytes) = (&set.paths[file], set.bytes(file));
    if !torch::is_torch_file(path, bytes) {
        return Ok(("safetensors", vec![Span { name: String::new(), range: 0..bytes.len(), crc32: None }]));
    }
    let entries = zip::read_directory(bytes).map_err(|reason| malformed(path, reason))?;
    let span = |(name, entry): (String, zip::Entry)| Span { name, range: entry.range, crc32: Some(entry.crc32) };
    let mut spans: Vec<Span> = entries.into_iter().map(span).collect();
    spans.sort_by_key(|span| span.range.start);
    Ok(("PyTorch zip", spans))
}

fn byte_range(stored: &StoredTensor) -> Range<usize> {
    let bits = stored.shape.iter().product::<usize>() * stored.dtype.bitsize();
    stored.offset_bytes..stored.offset_bytes + bits.div_ceil(8)
}

/// The bytes of an element, and the bits that are all set if it is infinite or no number.
fn non_finite(dtype: Dtype) -> Option<(usize, u32)> {
    match dtype {
        Dtype::F32 => Some((4, 0x7F80_0000)),
        Dtype::F16 => Some((2, 0x7C00)),
        Dtype::BF16 => Some((2, 0x7F80)),
        _ => None,
    }
}

/// Looks at the elements of a tensor that begin within `part` of its file.
fn check_part(set: &FileSet, name: &str, stored: &StoredTensor, part: &Range<usize>) -> Result<(), WeightsError> {
    let Some((width, exponent)) = non_finite(stored.dtype) else { return Ok(()) };
    let place = byte_range(stored);
    if place.start >= part.end || place.end <= part.start {
        return Ok(());
    }
    let element_at = |byte: usize| byte.saturating_sub(place.start).div_ceil(width).min(place.len() / width);
    let (first, end) = (element_at(part.start), element_at(part.end));
    let bytes = &set.bytes(stored.file)[place.start + first * width..place.start + end * width];
    let bits = |chunk: &[u8]| chunk.iter().rev().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte));
    let position = match width {
        4 => bytes.as_chunks::<4>().0.iter().position(|chunk| u32::from_le_bytes(*chunk) & exponent == exponent),
        _ => {
            let wanted = exponent as u16;
            bytes.as_chunks::<2>().0.iter().position(|chunk| u16::from_le_bytes(*chunk) & wanted == wanted)
        }
    };
    let Some(index) = position else { return Ok(()) };
    let found = bits(&bytes[index * width..][..width]);
    let value = match stored.dtype {
        Dtype::F32 => f32::from_bits(found),
        Dtype::BF16 => f32::from_bits(found << 16),
        _ => half::f16::from_bits(found as u16).to_f32(),
    };
    let source_name = set.file_name(stored.file);
    Err(WeightsError::NotFinite { source_name, tensor: name.to_string(), element: first + index, value })
}
