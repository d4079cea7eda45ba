//! TIFF files for tests, written out byte by byte: nothing here is shared with the code that reads them.

use std::io::Write;

/// A file of one or several images.
#[derive(Clone, Debug, Default)]
pub struct TiffFile {
    /// 64-bit offsets.
    pub is_big: bool,
    /// Motorola's byte order.
    pub is_big_endian: bool,
    /// Directories behind the pixels instead of before them.
    pub has_index_at_end: bool,
    /// The images, each a directory.
    pub images: Vec<TiffImage>,
}

/// An image and what its directory says.
#[derive(Clone, Debug)]
pub struct TiffImage {
    /// Columns.
    pub width_px: u32,
    /// Rows.
    pub height_px: u32,
    /// Samples of a pixel.
    pub bands: u32,
    /// Bits of a sample: 8, 16, 32 or 64.
    pub bits: u32,
    /// 1 unsigned, 2 signed, 3 float.
    pub sample_format: u16,
    /// Columns and rows of a block.
    pub block_px: (u32, u32),
    /// Tiles; else strips, whose width is the image's.
    pub is_tiled: bool,
    /// Each band in blocks of its own.
    pub is_planar: bool,
    /// Compressed by zlib; else not at all.
    pub is_deflated: bool,
    /// The sample of a band, column and row, as the bits that are stored.
    pub sample: fn(u32, u32, u32) -> u64,
    /// Whether a block (by its index) is left out of the file.
    pub is_absent: fn(usize) -> bool,
    /// Further tags; those of the same number are replaced.
    pub tags: Vec<(u16, TiffValue)>,
}

/// What a tag holds.
#[derive(Clone, Debug)]
pub enum TiffValue {
    /// SHORT.
    Short(Vec<u16>),
    /// LONG.
    Long(Vec<u32>),
    /// LONG8.
    Long8(Vec<u64>),
    /// DOUBLE.
    Double(Vec<f64>),
    /// ASCII; the zero at the end is added.
    Ascii(&'static str),
}

impl Default for TiffImage {
    /// 100 x 70 pixels of three bands of 8 bits in deflated tiles of 32 x 16.
    fn default() -> Self {
        Self {
            width_px: 100,
            height_px: 70,
            bands: 3,
            bits: 8,
            sample_format: 1,
            block_px: (32, 16),
            is_tiled: true,
            is_planar: false,
            is_deflated: true,
            sample: pattern,
            is_absent: |_| false,
            tags: Vec::new(),
        }
    }
}

/// A sample that tells where it was.
pub fn pattern(band: u32, x: u32, y: u32) -> u64 {
    u64::from((x * 7 + y * 13 + band * 50 + 1) % 251)
}

/// The tags of a grid in UTM zone 33 north, pixels of 10 m, upper left corner at (399960, 4200000).
pub fn utm_tags() -> Vec<(u16, TiffValue)> {
    vec![
        (33550, TiffValue::Double(vec![10.0, 10.0, 0.0])),
        (33922, TiffValue::Double(vec![0.0, 0.0, 0.0, 399_960.0, 4_200_000.0, 0.0])),
        (34735, TiffValue::Short(vec![1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633])),
    ]
}

impl TiffFile {
    /// A file of one image.
    pub fn of(image: TiffImage) -> Self {
        Self { images: vec![image], ..Self::default() }
    }

    /// The file's bytes.
    ///
    /// # Panics
    /// If a classic file would exceed 4 GiB.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut header = Vec::new();
        header.extend(if self.is_big_endian { b"MM" } else { b"II" });
        self.put(&mut header, 2, if self.is_big { 43 } else { 42 });
        if self.is_big {
            self.put(&mut header, 2, 8);
            self.put(&mut header, 2, 0);
        }
        let start = header.len() + if self.is_big { 8 } else { 4 };
        let blocks: Vec<Vec<Vec<u8>>> = self.images.iter().map(|image| image.blocks(self.is_big_endian)).collect();
        let blocks_bytes: usize = blocks.iter().flatten().map(Vec::len).sum();
        // Directories have the same size wherever the blocks are: measured once, written once.
        let index_bytes = self.index(start, &self.placed(&blocks, 0)).len();
        let (index_at, blocks_at) = match self.has_index_at_end {
            true => (start + blocks_bytes, start),
            false => (start, start + index_bytes),
        };
        let index = self.index(index_at, &self.placed(&blocks, blocks_at));
        self.put(&mut header, if self.is_big { 8 } else { 4 }, index_at as u64);
        let blocks: Vec<u8> = blocks.into_iter().flatten().flatten().collect();
        match self.has_index_at_end {
            true => [header, blocks, index].concat(),
            false => [header, index, blocks].concat(),
        }
    }

    /// Offsets and lengths of the blocks of each image; zeros for those left out.
    fn placed(&self, blocks: &[Vec<Vec<u8>>], mut at: usize) -> Vec<Vec<(u64, u64)>> {
        let mut place = |block: &Vec<u8>| match block.len() {
            0 => (0, 0),
            length => {
                at += length;
                ((at - length) as u64, length as u64)
            }
        };
        blocks.iter().map(|blocks| blocks.iter().map(&mut place).collect()).collect()
    }

    fn index(&self, mut at: usize, places: &[Vec<(u64, u64)>]) -> Vec<u8> {
        let mut index = Vec::new();
        for (number, (image, places)) in self.images.iter().zip(places).enumerate() {
            let is_last = number + 1 == self.images.len();
            let directory = self.directory(at, &image.entries(places, self.is_big), is_last);
            at += directory.len();
            index.extend(directory);
        }
        index
    }

    fn directory(&self, at: usize, entries: &[(u16, TiffValue)], is_last: bool) -> Vec<u8> {
        let (count_bytes, word, entry_bytes) = if self.is_big { (8, 8, 20) } else { (2, 4, 12) };
        let mut values_at = at + count_bytes + entries.len() * entry_bytes + word;
        let (mut directory, mut values) = (Vec::new(), Vec::new());
        self.put(&mut directory, count_bytes, entries.len() as u64);
        for (tag, value) in entries {
            let (kind, count, mut bytes) = self.value(value);
            self.put(&mut directory, 2, (*tag).into());
            self.put(&mut directory, 2, kind);
            self.put(&mut directory, word, count);
            if bytes.len() <= word {
                bytes.resize(word, 0);
                directory.extend(bytes);
            } else {
                self.put(&mut directory, word, values_at as u64);
                bytes.resize(bytes.len().next_multiple_of(2), 0);
                values_at += bytes.len();
                values.extend(bytes);
            }
        }
        self.put(&mut directory, word, if is_last { 0 } else { values_at as u64 });
        directory.extend(values);
        directory
    }

    fn value(&self, value: &TiffValue) -> (u64, u64, Vec<u8>) {
        let mut bytes = Vec::new();
        let (kind, count) = match value {
            TiffValue::Short(values) => {
                values.iter().for_each(|&value| self.put(&mut bytes, 2, value.into()));
                (3, values.len())
            }
            TiffValue::Long(values) => {
                values.iter().for_each(|&value| self.put(&mut bytes, 4, value.into()));
                (4, values.len())
            }
            TiffValue::Long8(values) => {
                values.iter().for_each(|&value| self.put(&mut bytes, 8, value));
                (16, values.len())
            }
            TiffValue::Double(values) => {
                values.iter().for_each(|&value| self.put(&mut bytes, 8, value.to_bits()));
                (12, values.len())
            }
            TiffValue::Ascii(text) => {
                bytes.extend(text.as_bytes());
                bytes.push(0);
                (2, bytes.len())
            }
        };
        (kind, count as u64, bytes)
    }

    fn put(&self, bytes: &mut Vec<u8>, width: usize, value: u64) {
        put(bytes, self.is_big_endian, width, value);
    }
}

fn put(bytes: &mut Vec<u8>, is_big_endian: bool, width: usize, value: u64) {
    assert!(width == 8 || value < 1 << (8 * width), "{value} does not fit into {width} bytes");
    match is_big_endian {
        true => bytes.extend(&value.to_be_bytes()[8 - width..]),
        false => bytes.extend(&value.to_le_bytes()[..width]),
    }
}

impl TiffImage {
    fn entries(&self, places: &[(u64, u64)], is_big: bool) -> Vec<(u16, TiffValue)> {
        let each = |value: u32| TiffValue::Short(vec![value as u16; self.bands as usize]);
        let table = |values: Vec<u64>| match is_big {
            true => TiffValue::Long8(values),
            false => TiffValue::Long(values.into_iter().map(|value| value as u32).collect()),
        };
        let offsets = table(places.iter().map(|place| place.0).collect());
        let counts = table(places.iter().map(|place| place.1).collect());
        let mut entries = vec![
            (256, TiffValue::Long(vec![self.width_px])),
            (257, TiffValue::Long(vec![self.height_px])),
            (258, each(self.bits)),
            (259, TiffValue::Short(vec![if self.is_deflated { 8 } else { 1 }])),
            (262, TiffValue::Short(vec![if self.bands >= 3 { 2 } else { 1 }])),
            (277, TiffValue::Short(vec![self.bands as u16])),
            (284, TiffValue::Short(vec![if self.is_planar { 2 } else { 1 }])),
            (339, each(self.sample_format.into())),
        ];
        match self.is_tiled {
            true => entries.extend([
                (322, TiffValue::Long(vec![self.block_px.0])),
                (323, TiffValue::Long(vec![self.block_px.1])),
                (324, offsets),
                (325, counts),
            ]),
            false => entries.extend([(273, offsets), (278, TiffValue::Long(vec![self.block_px.1])), (279, counts)]),
        }
        for (tag, value) in &self.tags {
            entries.retain(|(known, _)| known != tag);
            entries.push((*tag, value.clone()));
        }
        entries.sort_by_key(|(tag, _)| *tag);
        entries
    }

    fn blocks(&self, is_big_endian: bool) -> Vec<Vec<u8>> {
        let block_width = if self.is_tiled { self.block_px.0 } else { self.width_px };
        let (across, down) = (self.width_px.div_ceil(block_width), self.height_px.div_ceil(self.block_px.1));
        let planes = if self.is_planar { self.bands } else { 1 };
        let mut blocks = Vec::new();
        for (plane, row, column) in (0..planes)
            .flat_map(|plane| (0..down).flat_map(move |row| (0..across).map(move |column| (plane, row, column))))
        {
            if (self.is_absent)(blocks.len()) {
                blocks.push(Vec::new());
                continue;
            }
            let first_row = row * self.block_px.1;
            // The last strip is short; tiles are whole.
            let rows = if self.is_tiled { self.block_px.1 } else { self.block_px.1.min(self.height_px - first_row) };
            let bands = if self.is_planar { plane..plane + 1 } else { 0..self.bands };
            let mut bytes = Vec::new();
            for y in first_row..first_row + rows {
                for x in column * block_width..(column + 1) * block_width {
                    for band in bands.clone() {
                        let is_inside = x < self.width_px && y < self.height_px;
                        let sample = if is_inside { (self.sample)(band, x, y) } else { 0 };
                        put(&mut bytes, is_big_endian, self.bits as usize / 8, sample);
                    }
                }
            }
            blocks.push(if self.is_deflated { deflated(&bytes) } else { bytes });
        }
        blocks
    }
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes everything")
}
