//! Pictures: one target per decoder, called as the engine calls it, and one for the notes about orientation.

use std::path::PathBuf;

use dinov3_pixels::{DecodeOptions, DeepGrey, ImageFormat, Limits, Orientation, decode, image_size};

use super::has_a_reason;
use crate::Target;

/// Small enough that a picture takes well below a millisecond.
const MOST_PIXELS: u64 = 128 * 128;

const EXIF_WORDS: [&[u8]; 4] =
    [b"Exif\0\0", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"];

/// JPEG: libjpeg and the C code around it.
pub(super) const JPEG: Target = Target {
    name: "jpeg",
    run: |bytes| decode_as(ImageFormat::Jpeg, b"\xff\xd8\xff", bytes),
    seeds: || fixtures(&["jpg"], 1600),
    longest_bytes: 2048,
    words: &[
        b"\xff\xc0\0\x11\x08",
        b"\xff\xc2\0\x11\x08",
        b"\xff\xc9",
        b"\xff\xca",
        b"\xff\xc4",
        b"\xff\xcc",
        b"\xff\xdb",
        b"\xff\xda\0\x0c\x03",
        b"\xff\xdd\0\x04\0\x01",
        b"\xff\xd0",
        b"\xff\xd9",
        b"\xff\xe1",
        b"\xff\xee\0\x0eAdobe\0d",
        b"\xff\xe0\0\x10JFIF\0",
        EXIF_WORDS[0],
        EXIF_WORDS[1],
        EXIF_WORDS[2],
        EXIF_WORDS[3],
        b"http://ns.adobe.com/xap/1.0/\0",
        b"tiff:Orientation=\"6",
    ],
};

/// PNG, with checksums as they come and with checksums put right, without which few changes would reach the decoder.
pub(super) const PNG: Target = Target {
    name: "png",
    run: |bytes| {
        const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
        let mut bytes = with_start(bytes, SIGNATURE);
        // The last bit decides: a search keeps both kinds.
        if bytes.last().is_some_and(|last| last % 2 == 0) {
            put_checksums_right(&mut bytes);
        }
        check(ImageFormat::Png, &bytes);
    },
    seeds: || fixtures(&["png"], 3700),
    longest_bytes: 4096,
    words: &[
        b"IHDR",
        b"PLTE",
        b"IDAT",
        b"IEND",
        b"tRNS",
        b"gAMA",
        b"iCCP",
        b"sBIT",
        b"eXIf",
        b"acTL",
        b"fcTL",
        b"fdAT",
        b"cICP",
        b"mDCV",
        b"cLLI",
        b"pHYs",
        b"cHRM",
        b"sRGB",
        b"bKGD",
        b"zTXt",
        b"iTXt",
        b"iTXtXML:com.adobe.xmp\0\0",
        b"tiff:Orientation=\"8",
    ],
};

/// WebP, lossy and lossless, still and moving.
pub(super) const WEBP: Target = Target {
    name: "webp",
    run: |bytes| {
        let mut bytes = with_start(bytes, b"RIFF");
        if let Some(kind) = bytes.get_mut(8..12) {
            kind.copy_from_slice(b"WEBP");
            check(ImageFormat::WebP, &bytes);
        }
    },
    seeds: || fixtures(&["webp"], 3600),
    longest_bytes: 4096,
    words: &[
        b"VP8 ",
        b"VP8L",
        b"VP8X",
        b"ALPH",
        b"ANIM",
        b"ANMF",
        b"EXIF",
        b"XMP ",
        b"ICCP",
        b"\x9d\x01\x2a",
        b"\x2f",
        EXIF_WORDS[1],
    ],
};

/// TIFF, classic and big, of either byte order.
pub(super) const TIFF: Target = Target {
    name: "tiff",
    run: |bytes| {
        const STARTS: [&[u8]; 4] = [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"];
        let start = STARTS.iter().find(|start| bytes.starts_with(start)).unwrap_or(&STARTS[0]);
        decode_as(ImageFormat::Tiff, start, bytes);
    },
    seeds: || [small_tiffs(), fixtures(&["tif"], 6100)].concat(),
    longest_bytes: 6144,
    words: &[
        b"II*\0\x08\0\0\0",
        b"MM\0*\0\0\0\x08",
        b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0",
        b"\0\x01\x04\0\x01\0\0\0",
        b"\x02\x01\x03\0\x03\0\0\0",
        b"\x03\x01\x03\0\x01\0\0\0\x05\0\0\0",
        b"\x03\x01\x03\0\x01\0\0\0\x08\0\0\0",
        b"\x03\x01\x03\0\x01\0\0\0\x03\0\0\0",
        b"\x03\x01\x03\0\x01\0\0\0\x04\0\0\0",
        b"\x06\x01\x03\0\x01\0\0\0\x03\0\0\0",
        b"\x0a\x01\x03\0\x01\0\0\0\x02\0\0\0",
        b"\x11\x01\x04\0\x01\0\0\0",
        b"\x15\x01\x03\0\x01\0\0\0\x04\0\0\0",
        b"\x16\x01\x04\0\x01\0\0\0",
        b"\x17\x01\x04\0\x01\0\0\0",
        b"\x1c\x01\x03\0\x01\0\0\0\x02\0\0\0",
        b"\x3d\x01\x03\0\x01\0\0\0\x02\0\0\0",
        b"\x3d\x01\x03\0\x01\0\0\0\x03\0\0\0",
        b"\x40\x01\x03\0",
        b"\x42\x01\x03\0\x01\0\0\0\x10\0\0\0",
        b"\x43\x01\x03\0\x01\0\0\0\x10\0\0\0",
        b"\x44\x01\x04\0",
        b"\x45\x01\x04\0",
        b"\x53\x01\x03\0\x01\0\0\0\x02\0\0\0",
        b"\x53\x01\x03\0\x01\0\0\0\x03\0\0\0",
    ],
};

/// Windows bitmaps.
pub(super) const BMP: Target = Target {
    name: "bmp",
    run: |bytes| decode_as(ImageFormat::Bmp, b"BM", bytes),
    seeds: || fixtures(&["bmp"], 3000),
    longest_bytes: 3072,
    words: &[
        b"\x0c\0\0\0",
        b"\x28\0\0\0",
        b"\x34\0\0\0",
        b"\x38\0\0\0",
        b"\x7c\0\0\0",
        b"\x01\0\x01\0",
        b"\x01\0\x04\0\x02\0\0\0",
        b"\x01\0\x08\0\x01\0\0\0",
        b"\x01\0\x10\0\x03\0\0\0",
        b"\x01\0\x20\0\x03\0\0\0",
        b"\0\xf8\0\0\xe0\x07\0\0\x1f\0\0\0",
        b"\0\0",
        b"\0\x01",
        b"\0\x02\xff\xff",
        b"\xff\xff\xff\xff",
    ],
};

/// The orientation that a camera noted: the bytes are an EXIF block or, if the first byte is odd, an XMP one, inside of
/// a picture of two pixels.
pub(super) const ORIENTATION: Target = Target {
    name: "orientation",
    run: |bytes| {
        let Some((&choice, block)) = bytes.split_first() else { return };
        let picture = two_pixels(choice % 2 == 1, block);
        let options = DecodeOptions::default().with_orientation(Orientation::Apply);
        let image = decode(&picture, &options).expect("a note about orientation never hides the picture");
        let size = (image.width_px(), image.height_px());
        assert!(size == (2, 1) || size == (1, 2), "{size:?}");
        assert!([[0; 3], [255; 3]].concat() == image.data() || [[255; 3], [0; 3]].concat() == image.data());
    },
    seeds: || {
        let little = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0\0\0\0\0";
        let wide =
            b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x12\x01\x04\0\x01\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0";
        let xmp = b"<x:xmpmeta><rdf:Description tiff:Orientation=\"5\"/></x:xmpmeta>";
        vec![
            [&[0][..], little].concat(),
            [&[0][..], b"Exif\0\0", big].concat(),
            [&[0][..], wide].concat(),
            [&[1][..], xmp].concat(),
        ]
    },
    longest_bytes: 1024,
    words: &[
        EXIF_WORDS[0],
        EXIF_WORDS[1],
        EXIF_WORDS[2],
        EXIF_WORDS[3],
        b"II+\0",
        b"MM\0+",
        b"\xff\xff\xff\xff",
        b"\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"tiff:Orientation=\"",
        b"tiff:Orientation>",
    ],
};

fn with_start(bytes: &[u8], start: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.iter_mut().zip(start).for_each(|(byte, &value)| *byte = value);
    bytes
}

/// Decodes bytes whose start is made that of the format, so that no execution is spent on another one.
fn decode_as(format: ImageFormat, start: &[u8], bytes: &[u8]) {
    if bytes.len() >= start.len() {
        check(format, &with_start(bytes, start));
    }
}

fn check(format: ImageFormat, bytes: &[u8]) {
    let declared = image_size(bytes);
    if let Err(error) = &declared {
        has_a_reason(error);
    }
    // Every way to treat deep grey, and two limits, so that refusing is tried too.
    let deep_grey = [DeepGrey::Clip, DeepGrey::HighByte, DeepGrey::Refuse][bytes.len() % 3];
    let limits = Limits::default().with_max_pixels(MOST_PIXELS).with_max_side_px(4096);
    let options =
        DecodeOptions::default().with_limits(limits).with_deep_grey(deep_grey).with_orientation(Orientation::Apply);
    let image = match decode(bytes, &options) {
        Ok(image) => image,
        Err(error) => {
            has_a_reason(&error);
            return;
        }
    };
    let (width_px, height_px) = (image.width_px(), image.height_px());
    assert!(limits.check_size(width_px, height_px).is_ok(), "{width_px} x {height_px} is beyond the limits");
    assert_eq!(image.data().len() as u64, u64::from(width_px) * u64::from(height_px) * 3);
    let Ok((found, declared_width_px, declared_height_px)) = declared else {
        panic!("a picture whose size cannot be read was decoded");
    };
    assert_eq!(found, format);
    let declared = (declared_width_px, declared_height_px);
    assert!(declared == (width_px, height_px) || declared == (height_px, width_px), "declared {declared:?}");
    assert_eq!(decode(bytes, &options).as_ref(), Ok(&image), "decoded twice, two pictures");
}

/// The fixtures of the decoders with these endings and at most this many bytes.
fn fixtures(endings: &[&str], most_bytes: usize) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../crates/dinov3-pixels/tests/fixtures");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the fixtures are in the repository")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| endings.iter().any(|&known| ending == known)))
        .collect();
    paths.sort();
    let read = paths.iter().map(|path| std::fs::read(path).expect("a fixture can be read"));
    read.filter(|bytes| bytes.len() <= most_bytes).collect()
}

/// Makes every chunk's checksum the right one.
fn put_checksums_right(bytes: &mut [u8]) {
    let mut at = 8;
    while let Some(head) = bytes.get(at..at + 4) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let end = at + 8 + length;
        let Some(checksum) = bytes.get(at + 4..end).map(crc32fast::hash) else { break };
        let Some(place) = bytes.get_mut(end..end + 4) else { break };
        place.copy_from_slice(&checksum.to_be_bytes());
        at = end + 4;
    }
}

fn png_chunk(kind: &[u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut chunk = (payload.len() as u32).to_be_bytes().to_vec();
    chunk.extend(kind);
    chunk.extend(payload);
    let checksum = crc32fast::hash(&chunk[4..]);
    chunk.extend(checksum.to_be_bytes());
    chunk
}

/// A PNG of a black and a white pixel with an EXIF or an XMP block.
fn two_pixels(is_xmp: bool, block: &[u8]) -> Vec<u8> {
    let note = if is_xmp {
        png_chunk(b"iTXt", &[b"XML:com.adobe.xmp\0\0\0\0\0", block].concat())
    } else {
        png_chunk(b"eXIf", block)
    };
    // One stored block: no filter, 0, 255.
    let stored = b"\x78\x01\x01\x03\0\xfc\xff\0\0\xff\x01\x02\x01\x00";
    [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        png_chunk(b"IHDR", b"\0\0\0\x02\0\0\0\x01\x08\0\0\0\0"),
        note,
        png_chunk(b"IDAT", stored),
        png_chunk(b"IEND", b""),
    ]
    .concat()
}

/// Uncompressed TIFFs of 4 x 2 pixels: what the fixtures leave out, and short.
fn small_tiffs() -> Vec<Vec<u8>> {
    // Bits per sample, samples, photometric, planar, sample format, tiled.
    let kinds: [(u32, u32, u32, u32, u32, bool); 14] = [
        (8, 1, 0, 1, 1, false),
        (8, 1, 1, 1, 1, true),
        (8, 3, 2, 1, 1, false),
        (8, 3, 2, 2, 1, false),
        (8, 3, 2, 2, 1, true),
        (16, 3, 2, 1, 1, false),
        (8, 4, 5, 1, 1, false),
        (8, 4, 2, 1, 1, false),
        (8, 3, 6, 1, 1, false),
        (16, 1, 1, 1, 1, false),
        (16, 1, 1, 1, 2, false),
        (32, 1, 1, 1, 3, false),
        (32, 1, 1, 1, 1, false),
        (4, 1, 1, 1, 1, false),
    ];
    kinds.into_iter().flat_map(|kind| [small_tiff(kind, false), small_tiff(kind, true)]).collect()
}

fn small_tiff(kind: (u32, u32, u32, u32, u32, bool), big_endian: bool) -> Vec<u8> {
    let (bits, samples, photometric, planar, sample_format, tiled) = kind;
    let word = |value: u32| if big_endian { (value as u16).to_be_bytes() } else { (value as u16).to_le_bytes() };
    let quad = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let (width_px, height_px) = if tiled { (16, 16) } else { (4, 2) };
    let planes = if planar == 2 { samples } else { 1 };
    let plane_bytes = width_px * height_px * bits * samples / planes / 8;
    let (place_tag, size_tag) = if tiled { (324, 325) } else { (273, 279) };
    let mut tags = vec![
        (256, vec![width_px]),
        (257, vec![height_px]),
        (258, vec![bits; samples as usize]),
        (259, vec![1]),
        (262, vec![photometric]),
        (277, vec![samples]),
        (284, vec![planar]),
        (339, vec![sample_format; samples as usize]),
        (size_tag, vec![plane_bytes; planes as usize]),
    ];
    match tiled {
        true => tags.extend([(322, vec![width_px]), (323, vec![height_px])]),
        false => tags.push((278, vec![height_px])),
    }
    // All values are long (type 4); lists follow the directory, pixels follow the lists.
    let directory_bytes = 8 + 2 + 12 * (tags.len() as u32 + 1) + 4;
    let list_bytes = |values: &[u32]| if values.len() > 1 { 4 * values.len() as u32 } else { 0 };
    let pixels_at = directory_bytes
        + tags.iter().map(|(_, values)| list_bytes(values)).sum::<u32>()
        + 4 * if planes > 1 { planes } else { 0 };
    tags.push((place_tag, (0..planes).map(|plane| pixels_at + plane * plane_bytes).collect()));
    tags.sort();
    let mut bytes = if big_endian { b"MM\0*\0\0\0\x08".to_vec() } else { b"II*\0\x08\0\0\0".to_vec() };
    bytes.extend(word(tags.len() as u32));
    let mut lists = Vec::new();
    for (tag, values) in &tags {
        bytes.extend(word(*tag));
        bytes.extend(word(4));
        bytes.extend(quad(values.len() as u32));
        if let [value] = values[..] {
            bytes.extend(quad(value));
        } else {
            bytes.extend(quad(directory_bytes + lists.len() as u32));
            lists.extend(values.iter().flat_map(|&value| quad(value)));
        }
    }
    bytes.extend(quad(0));
    bytes.extend(lists);
    bytes.extend((0..planes * plane_bytes).map(|value| (value * 7) as u8));
    bytes
}
