//! PyTorch checkpoints, written as `torch.save` writes them: a zip of stored entries around a pickle.
//!
//! Values are asked for piece by piece, so that files larger than memory can be made.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::checkpoints::Type;

/// How tensors are put into the pickle.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Pickle protocol: 2 is the default of `torch.save`; 4 and 5 write globals and texts differently.
    pub protocol: u8,
    /// The key under which the state dict lies, with an optimizer and a step count beside it.
    pub wrapper: Option<&'static str>,
    /// Values as `nn.Parameter`.
    pub parameters: bool,
}

impl Default for Layout {
    fn default() -> Self {
        Self { protocol: 2, wrapper: None, parameters: false }
    }
}

/// Fills its third argument with the values of tensor number (first argument) from element (second argument) on.
pub type Values<'a> = dyn Fn(usize, usize, &mut [f32]) + 'a;

/// Values that are made at a time.
const PIECE: usize = 1 << 18;

/// Writes one file of tensors (name, shape).
///
/// # Errors
/// If it cannot be written.
pub fn write(
    path: &Path,
    tensors: &[(String, Vec<usize>)],
    kind: Type,
    layout: &Layout,
    values: &Values<'_>,
) -> io::Result<()> {
    let mut zip = ZipWriter::new(BufWriter::new(File::create(path)?));
    zip.entry("archive/data.pkl", &state_dict(tensors, kind, layout))?;
    zip.entry("archive/byteorder", b"little")?;
    for (index, (_, shape)) in tensors.iter().enumerate() {
        let elements = shape.iter().product();
        let place = format!("archive/data/{index}");
        zip.stream(&place, |out| write_values(out, kind, elements, &|start, piece| values(index, start, piece)))?;
    }
    zip.entry("archive/version", b"3\n")?;
    zip.finish()?.flush()
}

/// Writes `elements` values in their stored type, a piece at a time.
///
/// # Errors
/// If `out` cannot be written.
pub fn write_values(
    out: &mut dyn Write,
    kind: Type,
    elements: usize,
    values: &dyn Fn(usize, &mut [f32]),
) -> io::Result<()> {
    let mut piece = vec![0.0; PIECE.min(elements)];
    for start in (0..elements).step_by(PIECE) {
        let piece = &mut piece[..PIECE.min(elements - start)];
        values(start, piece);
        out.write_all(&kind.bytes(piece))?;
    }
    Ok(())
}

/// The pickle of a state dict whose tensor number N has storage "N" for itself.
pub fn state_dict(tensors: &[(String, Vec<usize>)], kind: Type, layout: &Layout) -> Vec<u8> {
    let mut pickle = PickleWriter::new(layout.protocol);
    if let Some(wrapper) = layout.wrapper {
        pickle.op(b"}(");
        pickle.text(wrapper);
    }
    pickle.ordered_dict();
    pickle.op(b"(");
    for (index, (name, shape)) in tensors.iter().enumerate() {
        pickle.text(name);
        if layout.parameters {
            pickle.global("torch._utils", "_rebuild_parameter");
        }
        pickle.tensor(kind, &index.to_string(), 0, shape, &contiguous(shape), shape.iter().product());
        if layout.parameters {
            pickle.op(b"\x88");
            pickle.ordered_dict();
            pickle.op(b"\x87R");
        }
    }
    pickle.op(b"u");
    if layout.wrapper.is_some() {
        pickle.text("optimizer");
        pickle.op(b"}");
        pickle.text("iteration");
        pickle.integer(12_499);
        pickle.op(b"u");
    } else {
        // As a module's state_dict() has it: attributes of the dictionary.
        pickle.op(b"}");
        pickle.text("_metadata");
        pickle.ordered_dict();
        pickle.op(b"sb");
    }
    pickle.finish()
}

/// Strides in elements of a row-major tensor.
pub fn contiguous(shape: &[usize]) -> Vec<usize> {
    (0..shape.len()).map(|dimension| shape[dimension + 1..].iter().product()).collect()
}

/// Writes a pickle opcode by opcode, remembering texts and globals as Python's pickler does.
pub struct PickleWriter {
    bytes: Vec<u8>,
    protocol: u8,
    memo: HashMap<String, usize>,
    remembered: usize,
}

impl PickleWriter {
    /// Of protocol 2 or later.
    pub fn new(protocol: u8) -> Self {
        Self { bytes: vec![0x80, protocol], protocol, memo: HashMap::new(), remembered: 0 }
    }

    /// Any opcodes.
    pub fn op(&mut self, opcodes: &[u8]) {
        self.bytes.extend_from_slice(opcodes);
    }

    fn remember(&mut self, key: String) {
        match (self.protocol >= 4, u8::try_from(self.remembered)) {
            (true, _) => self.op(b"\x94"),
            (_, Ok(index)) => self.op(&[b'q', index]),
            _ => {
                self.op(b"r");
                self.op(&(self.remembered as u32).to_le_bytes());
            }
        }
        self.memo.insert(key, self.remembered);
        self.remembered += 1;
    }

    fn recall(&mut self, key: &str) -> bool {
        let Some(&index) = self.memo.get(key) else { return false };
        match u8::try_from(index) {
            Ok(index) => self.op(&[b'h', index]),
            Err(_) => {
                self.op(b"j");
                self.op(&(index as u32).to_le_bytes());
            }
        }
        true
    }

    /// A text.
    pub fn text(&mut self, text: &str) {
        let key = format!("text {text}");
        if self.recall(&key) {
            return;
        }
        match u8::try_from(text.len()) {
            Ok(length) if self.protocol >= 4 => self.op(&[0x8c, length]),
            _ => {
                self.op(b"X");
                self.op(&(text.len() as u32).to_le_bytes());
            }
        }
        self.op(text.as_bytes());
        self.remember(key);
    }

    /// A function or class.
    pub fn global(&mut self, module: &str, name: &str) {
        let key = format!("global {module} {name}");
        if self.recall(&key) {
            return;
        }
        if self.protocol >= 4 {
            self.text(module);
            self.text(name);
            self.op(b"\x93");
        } else {
            self.op(format!("c{module}\n{name}\n").as_bytes());
        }
        self.remember(key);
    }

    /// A whole number.
    pub fn integer(&mut self, number: i64) {
        match (u8::try_from(number), u16::try_from(number), i32::try_from(number)) {
            (Ok(byte), ..) => self.op(&[b'K', byte]),
            (_, Ok(short), _) => {
                self.op(b"M");
                self.op(&short.to_le_bytes());
            }
            (.., Ok(int)) => {
                self.op(b"J");
                self.op(&int.to_le_bytes());
            }
            _ => {
                self.op(b"\x8a\x08");
                self.op(&number.to_le_bytes());
            }
        }
    }

    /// An empty `collections.OrderedDict`.
    pub fn ordered_dict(&mut self) {
        self.global("collections", "OrderedDict");
        self.op(b")R");
    }

    fn integers(&mut self, numbers: &[usize]) {
        self.op(b"(");
        numbers.iter().for_each(|&number| self.integer(number as i64));
        self.op(b"t");
    }

    /// A tensor of storage `key`, which has `elements` elements, from element `first` on.
    pub fn tensor(&mut self, kind: Type, key: &str, first: i64, shape: &[usize], strides: &[usize], elements: usize) {
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.op(b"((");
        self.text("storage");
        self.global(
            "torch",
            match kind {
                Type::F32 => "FloatStorage",
                Type::F16 => "HalfStorage",
                Type::Bf16 => "BFloat16Storage",
            },
        );
        self.text(key);
        self.text("cpu");
        self.integer(elements as i64);
        self.op(b"tQ");
        self.integer(first);
        self.integers(shape);
        self.integers(strides);
        self.op(b"\x89");
        self.ordered_dict();
        self.op(b"tR");
    }

    /// The pickle.
    pub fn finish(mut self) -> Vec<u8> {
        self.op(b".");
        self.bytes
    }
}

/// What the central directory says of an entry. A test may change it before [`ZipWriter::finish`].
#[derive(Clone, Debug)]
pub struct Record {
    /// Name.
    pub name: String,
    /// Place of the local header.
    pub offset: u64,
    /// Bytes in the archive.
    pub stored_bytes: u64,
    /// Bytes when unpacked.
    pub bytes: u64,
    /// CRC-32 of the unpacked bytes.
    pub crc32: u32,
    /// Compression method: 0 is none.
    pub method: u16,
    /// Bit 0 says encrypted, bit 3 that sizes follow the data.
    pub flags: u16,
}

/// Writes a zip as PyTorch does: sizes after the data, data at multiples of 64 bytes, a zip64 directory.
pub struct ZipWriter<W> {
    out: W,
    position: u64,
    /// The directory so far.
    pub records: Vec<Record>,
}

/// Where PyTorch aligns data.
const ALIGNMENT: u64 = 64;

impl<W: Write> ZipWriter<W> {
    /// An archive that begins where `out` is.
    pub fn new(out: W) -> Self {
        Self { out, position: 0, records: Vec::new() }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.position += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// An entry of known bytes.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn entry(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.stream(name, |out| out.write_all(bytes))
    }

    /// An entry that `write` writes.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn stream(&mut self, name: &str, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let offset = self.position;
        let header_bytes = 30 + name.len() as u64 + 4;
        let padding = (ALIGNMENT - (offset + header_bytes) % ALIGNMENT) % ALIGNMENT;
        let mut header = Vec::new();
        header.extend(b"PK\x03\x04");
        for number in [45u16, 0x808, 0, 0, 0] {
            header.extend(number.to_le_bytes());
        }
        // CRC and sizes follow the data.
        header.extend([0; 12]);
        header.extend((name.len() as u16).to_le_bytes());
        header.extend((padding as u16 + 4).to_le_bytes());
        header.extend(name.as_bytes());
        header.extend(b"FB");
        header.extend((padding as u16).to_le_bytes());
        header.resize(header.len() + padding as usize, b'Z');
        self.put(&header)?;
        let mut counted = Counted { out: &mut self.out, bytes: 0, hasher: crc32fast::Hasher::new() };
        write(&mut counted)?;
        let (bytes, crc32) = (counted.bytes, counted.hasher.finalize());
        self.position += bytes;
        let mut descriptor = b"PK\x07\x08".to_vec();
        descriptor.extend(crc32.to_le_bytes());
        for _ in 0..2 {
            match u32::try_from(bytes) {
                Ok(bytes) => descriptor.extend(bytes.to_le_bytes()),
                Err(_) => descriptor.extend(bytes.to_le_bytes()),
            }
        }
        self.put(&descriptor)?;
        let name = name.to_string();
        self.records.push(Record { name, offset, stored_bytes: bytes, bytes, crc32, method: 0, flags: 0x808 });
        Ok(())
    }

    /// Writes the directory.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        let directory_offset = self.position;
        for record in std::mem::take(&mut self.records) {
            // In zip64 the numbers that do not fit into 32 bits stand in an extra field, in this order.
            let numbers = [record.bytes, record.stored_bytes, record.offset];
            let large: Vec<u8> = numbers
                .iter()
                .filter(|&&number| number >= u64::from(u32::MAX))
                .flat_map(|number| number.to_le_bytes())
                .collect();
            let short = numbers.map(|number| u32::try_from(number).unwrap_or(u32::MAX));
            let extra_bytes = if large.is_empty() { 0 } else { large.len() as u16 + 4 };
            let mut entry = b"PK\x01\x02".to_vec();
            for number in [45u16, 45, record.flags, record.method, 0, 0] {
                entry.extend(number.to_le_bytes());
            }
            entry.extend(record.crc32.to_le_bytes());
            entry.extend(short[1].to_le_bytes());
            entry.extend(short[0].to_le_bytes());
            entry.extend((record.name.len() as u16).to_le_bytes());
            entry.extend(extra_bytes.to_le_bytes());
            entry.extend([0; 10]);
            entry.extend(short[2].to_le_bytes());
            entry.extend(record.name.as_bytes());
            if !large.is_empty() {
                entry.extend(1u16.to_le_bytes());
                entry.extend((large.len() as u16).to_le_bytes());
                entry.extend(large);
            }
            self.put(&entry)?;
            self.records.push(record);
        }
        let (count, end_offset) = (self.records.len() as u64, self.position);
        let directory_bytes = end_offset - directory_offset;
        let mut end = b"PK\x06\x06".to_vec();
        end.extend(44u64.to_le_bytes());
        end.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for number in [count, count, directory_bytes, directory_offset] {
            end.extend(number.to_le_bytes());
        }
        end.extend(b"PK\x06\x07");
        end.extend(0u32.to_le_bytes());
        end.extend(end_offset.to_le_bytes());
        end.extend(1u32.to_le_bytes());
        end.extend(b"PK\x05\x06");
        end.extend(0u32.to_le_bytes());
        for _ in 0..2 {
            end.extend(u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
        }
        end.extend(u32::try_from(directory_bytes).unwrap_or(u32::MAX).to_le_bytes());
        end.extend(u32::try_from(directory_offset).unwrap_or(u32::MAX).to_le_bytes());
        end.extend(0u16.to_le_bytes());
        self.put(&end)?;
        Ok(self.out)
    }
}

struct Counted<'a> {
    out: &'a mut dyn Write,
    bytes: u64,
    hasher: crc32fast::Hasher,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.bytes += count as u64;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
