//! Picture files by hand, right or wrong at will.
#![allow(dead_code)] // each test uses a part

/// The check sum of PNG chunks.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// A chunk with its length and check sum.
pub fn png_chunk(kind: &[u8; 4], payload: &[u8]) -> Vec<u8> {
    let body = [kind, payload].concat();
    [&(payload.len() as u32).to_be_bytes(), &body[..], &crc32(&body).to_be_bytes()].concat()
}

/// A PNG of these chunks between its header and its end.
pub fn png(width: u32, height: u32, depth: u8, colour_type: u8, chunks: &[Vec<u8>]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[depth, colour_type, 0, 0, 0]].concat();
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    bytes.extend(png_chunk(b"IHDR", &header));
    bytes.extend(chunks.concat());
    bytes.extend(png_chunk(b"IEND", b""));
    bytes
}

/// A zlib stream of at least `count` zeros: a literal, then matches of 258 at distance 1, in fixed Huffman codes.
pub fn deflated_zeros(count: usize) -> Vec<u8> {
    let (mut bytes, mut held, mut held_bits) = (vec![0x78, 0x9c], 0_u32, 0);
    // Codes go most significant bit first, everything else least significant bit first.
    let mut put = |value: u32, bits: u32| {
        held |= value << held_bits;
        held_bits += bits;
        while held_bits >= 8 {
            bytes.push(held as u8);
            held >>= 8;
            held_bits -= 8;
        }
    };
    let reversed = |code: u32, bits: u32| code.reverse_bits() >> (32 - bits);
    put(0b011, 3); // the last block, fixed codes
    put(reversed(0b0011_0000, 8), 8); // literal 0
    for _ in 0..count.div_ceil(258) {
        put(reversed(0b1100_0101, 8), 8); // length 258
        put(0, 5); // distance 1
    }
    put(0, 7); // end of block
    put(0, 7); // to a whole byte
    let length = 1 + count.div_ceil(258) * 258;
    // Adler-32 of zeros: the first sum stays 1, the second counts.
    bytes.extend((((length % 65_521) as u32) << 16 | 1).to_be_bytes());
    bytes
}

/// A JPEG of one component with this frame type, one-bit tables and these scans.
pub fn jpeg(frame: u8, width: u16, height: u16, scans: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = b"\xff\xd8\xff\xdb\0\x43\0".to_vec();
    bytes.extend([1; 64]);
    bytes.extend([0xff, frame, 0, 11, 8]);
    bytes.extend(height.to_be_bytes());
    bytes.extend(width.to_be_bytes());
    bytes.extend([1, 1, 0x11, 0]);
    for class in [0x00, 0x10] {
        // One code, `0`, for the value 0: no difference, or the end of a block.
        bytes.extend(b"\xff\xc4\0\x14");
        bytes.extend([class, 1]);
        bytes.extend([0; 15]);
        bytes.push(0);
    }
    scans.iter().for_each(|scan| bytes.extend(scan));
    bytes.extend(b"\xff\xd9");
    bytes
}

/// A scan of the coarsest DC values and some zeros.
pub fn jpeg_scan() -> Vec<u8> {
    let mut bytes = b"\xff\xda\0\x08\x01\x01\0\0\0\0".to_vec();
    bytes.extend([0; 8]);
    bytes
}

/// A grey little-endian TIFF; `changes` (tag, type, count, value) replace its entries or join them.
pub fn tiff(width: u32, height: u32, changes: &[(u16, u16, u32, u32)]) -> Vec<u8> {
    let mut entries = std::collections::BTreeMap::from([
        (256, (4, 1, width)),
        (257, (4, 1, height)),
        (258, (3, 1, 8)),
        (259, (3, 1, 1)),
        (262, (3, 1, 1)),
        (273, (4, 1, 8)),
        (277, (3, 1, 1)),
        (278, (4, 1, height)),
        (279, (4, 1, 100)),
    ]);
    entries.extend(changes.iter().map(|&(tag, kind, count, value)| (tag, (kind, count, value))));
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    bytes.extend((entries.len() as u16).to_le_bytes());
    for (tag, (kind, count, value)) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(u16::to_le_bytes(kind));
        bytes.extend(u32::to_le_bytes(count));
        bytes.extend(u32::to_le_bytes(value));
    }
    bytes.extend([0; 200]);
    bytes
}

/// A bitmap with a header of 40 bytes.
pub fn bmp(width: u32, height: u32, bits: u16, compression: u32, rest: &[u8]) -> Vec<u8> {
    let mut bytes = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    bytes.extend(width.to_le_bytes());
    bytes.extend(height.to_le_bytes());
    bytes.extend(1_u16.to_le_bytes());
    bytes.extend(bits.to_le_bytes());
    bytes.extend(compression.to_le_bytes());
    bytes.extend([0; 20]);
    bytes.extend(rest);
    bytes
}

/// A lossless WebP of 14-bit sides.
pub fn webp_lossless(width: u32, height: u32, data: &[u8]) -> Vec<u8> {
    let size = (width - 1) & 0x3fff | ((height - 1) & 0x3fff) << 14;
    let chunk = [&[0x2f], &size.to_le_bytes()[..], data].concat();
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((chunk.len() as u32 + 12).to_le_bytes());
    bytes.extend(b"WEBPVP8L");
    bytes.extend((chunk.len() as u32).to_le_bytes());
    bytes.extend(&chunk);
    bytes.extend(vec![0; chunk.len() % 2]);
    bytes
}
