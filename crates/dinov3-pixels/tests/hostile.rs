//! Broken and oversized files: refused with an error, never with a panic, and without the memory they ask for.

mod common;

use std::path::PathBuf;

use common::{bmp, deflated_zeros, jpeg, jpeg_scan, png, png_chunk, tiff, webp_lossless};
use dinov3_pixels::{DecodeOptions, DeepGrey, Limits, Orientation, PixelError, decode, image_size};

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }
}

fn fixtures() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension != "tsv"))
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn mutated_files_do_not_panic() {
    // Small enough that a changed header cannot ask for much.
    let options = DecodeOptions::default()
        .with_limits(Limits::default().with_max_pixels(200_000))
        .with_deep_grey(DeepGrey::Clip)
        .with_orientation(Orientation::Apply);
    let mut random = Random(0x1234_5678_9abc_def1);
    let (mut runs, mut refused) = (0, 0);
    for (name, bytes) in fixtures() {
        for round in 0..400 {
            let mut changed = bytes.clone();
            match round % 4 {
                // The first bytes hold the numbers that sizes are computed from.
                0 => {
                    let at = random.below(changed.len().min(200));
                    changed[at] = random.below(256) as u8;
                }
                1 => {
                    for _ in 0..1 + random.below(8) {
                        let at = random.below(changed.len());
                        changed[at] = random.below(256) as u8;
                    }
                }
                2 => changed.truncate(random.below(changed.len())),
                _ => {
                    let at = random.below(changed.len().saturating_sub(4));
                    let extreme = [[0; 4], [0xff; 4], [0x7f, 0xff, 0xff, 0xff], [0, 0, 0, 0x80]][random.below(4)];
                    let end = (at + 4).min(changed.len());
                    changed[at..end].copy_from_slice(&extreme[..end - at]);
                }
            }
            let outcome = std::panic::catch_unwind(|| {
                let _ = image_size(&changed);
                decode(&changed, &options).map_err(|error| error.to_string())
            });
            match outcome {
                Ok(Ok(image)) => assert!(u64::from(image.width_px()) * u64::from(image.height_px()) <= 200_000),
                Ok(Err(reason)) => {
                    assert!(!reason.is_empty() && !reason.contains('\n'), "{name} round {round}: {reason:?}");
                    refused += 1;
                }
                Err(_) => panic!("{name} round {round} panicked"),
            }
            runs += 1;
        }
    }
    println!("{runs} changed files, {refused} refused, no panic");
}

#[test]
fn limits_can_be_set() {
    let (_, bytes) = fixtures().into_iter().find(|(name, _)| name == "rgb.png").unwrap();
    let with = |limits| decode(&bytes, &DecodeOptions::default().with_limits(limits));
    assert!(with(Limits::default().with_max_pixels(45 * 31)).is_ok());
    assert!(matches!(
        with(Limits::default().with_max_pixels(45 * 31 - 1)),
        Err(PixelError::LimitExceeded { quantity: "the number of pixels", value: 1395, limit: 1394 })
    ));
    assert!(matches!(with(Limits::default().with_max_side_px(44)), Err(PixelError::LimitExceeded { .. })));
    assert!(matches!(with(Limits::default().with_max_file_bytes(100)), Err(PixelError::LimitExceeded { .. })));
}

#[test]
fn other_files_are_named_by_their_first_bytes() {
    for bytes in [&b"GIF89a"[..], b"", b"\xff\xd8", b"RIFFxxxxWAVE", b"<svg>"] {
        assert!(matches!(decode(bytes, &DecodeOptions::default()), Err(PixelError::UnknownFormat { .. })));
    }
}

/// Name, file, and what the refusal says; nothing if the picture is harmless and decoded.
fn broken_pictures() -> Vec<(String, Vec<u8>, &'static str)> {
    let idat = |bytes: usize| png_chunk(b"IDAT", &deflated_zeros(bytes));
    let with_byte = |mut bytes: Vec<u8>, at: usize, value: u8| {
        bytes[at] = value;
        bytes
    };
    // The self-referring directory: the next directory of the first one is the first one.
    let mut cyclic = tiff(8, 8, &[]);
    let end_of_entries = 10 + 9 * 12;
    cyclic[end_of_entries..end_of_entries + 4].copy_from_slice(&8_u32.to_le_bytes());
    let mut without_entries = tiff(8, 8, &[]);
    without_entries[8..10].copy_from_slice(&[0, 0]);
    let mut directory_beyond = tiff(8, 8, &[]);
    directory_beyond[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let four = |frame: u8, components: u8| {
        let mut bytes = jpeg(frame, 8, 8, &[jpeg_scan()]);
        // The number of components that the frame header announces.
        let at = bytes.windows(2).position(|pair| pair == [0xff, frame]).unwrap() + 9;
        bytes[at] = components;
        bytes
    };
    let plain = png(8, 8, 8, 0, &[idat(72)]);
    let list: Vec<(&str, Vec<u8>, &str)> = vec![
        ("gif", b"GIF89a\x01\0\x01\0\0\0\0;".to_vec(), "not a JPEG"),
        ("svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec(), "not a JPEG"),
        ("riff that is sound", b"RIFF\x04\0\0\0WAVE".to_vec(), "not a JPEG"),
        ("png without width", png(0, 8, 8, 0, &[idat(72)]), "no content"),
        ("png without height", png(8, 0, 8, 0, &[idat(72)]), "no content"),
        ("png of 3 bits", png(8, 8, 3, 0, &[idat(72)]), "PNG"),
        ("png of colour type 5", png(8, 8, 8, 5, &[idat(72)]), "PNG"),
        ("png of interlace 7", with_byte(plain.clone(), 28, 7), "PNG"),
        ("png with a wrong check sum of its header", with_byte(plain.clone(), 29, plain[29] ^ 1), "PNG"),
        ("png with a wrong check sum of its pixels", with_byte(plain.clone(), plain.len() - 13, 0xaa), "PNG"),
        ("png with a chunk of 4 GB", with_byte(plain.clone(), 33, 0xff), "PNG"),
        ("png without pixels", png(8, 8, 8, 0, &[]), "PNG"),
        ("png with too few pixels", png(80, 80, 8, 0, &[idat(72)]), "PNG"),
        ("png without its palette", png(8, 8, 8, 3, &[idat(72)]), "?"),
        ("png with a palette of 5 bytes", png(8, 8, 8, 3, &[png_chunk(b"PLTE", &[9; 5]), idat(72)]), "?"),
        ("png with an empty palette", png(8, 8, 8, 3, &[png_chunk(b"PLTE", &[]), idat(72)]), "?"),
        ("png with a filter of no kind", png(8, 8, 8, 0, &[png_chunk(b"IDAT", &stored(&[9; 72]))]), "PNG"),
        ("png whose first chunk is another", with_byte(plain, 12, b'X'), "PNG"),
        ("jpeg without width", jpeg(0xc0, 0, 8, &[jpeg_scan()]), "JPEG"),
        ("jpeg without height", jpeg(0xc0, 8, 0, &[jpeg_scan()]), "JPEG"),
        ("jpeg without scans", jpeg(0xc0, 8, 8, &[]), "JPEG"),
        ("jpeg of two components", four(0xc0, 2), "JPEG"),
        ("jpeg of 255 components", four(0xc0, 255), "JPEG"),
        ("lossless jpeg", jpeg(0xc3, 8, 8, &[jpeg_scan()]), "JPEG"),
        ("hierarchical jpeg", jpeg(0xc5, 8, 8, &[jpeg_scan()]), "JPEG"),
        ("arithmetic jpeg", jpeg(0xc9, 8, 8, &[jpeg_scan()]), "?"),
        ("jpeg of 501 scans", jpeg(0xc2, 8, 8, &vec![jpeg_scan(); 502]), "more than 500 progressive scans"),
        ("tiff in a circle", cyclic, "?"),
        ("tiff without entries", without_entries, "TIFF"),
        ("tiff with its directory beyond the file", directory_beyond, "TIFF"),
        ("tiff without width", tiff(0, 8, &[]), "invalid dimensions"),
        ("tiff without height", tiff(8, 0, &[]), "?"),
        ("tiff of compression 999", tiff(8, 8, &[(259, 3, 1, 999)]), "TIFF"),
        ("tiff of 0 bits", tiff(8, 8, &[(258, 3, 1, 0)]), "TIFF"),
        ("tiff of 255 bits", tiff(8, 8, &[(258, 3, 1, 255)]), "TIFF"),
        ("tiff of no samples", tiff(8, 8, &[(277, 3, 1, 0)]), "TIFF"),
        ("tiff of strips beyond the file", tiff(8, 8, &[(273, 4, 1, u32::MAX)]), "TIFF"),
        ("tiff with a palette that is not there", tiff(8, 8, &[(262, 3, 1, 3)]), "TIFF"),
        ("tiff with a palette of one colour", tiff(8, 8, &[(262, 3, 1, 3), (320, 3, 1, 7)]), "?"),
        ("tiff of predictor 9", tiff(8, 8, &[(259, 3, 1, 5), (317, 3, 1, 9)]), "TIFF"),
        ("bmp without width", bmp(0, 8, 24, 0, &[0; 192]), "no content"),
        ("bmp without height", bmp(8, 0, 24, 0, &[0; 192]), "no content"),
        ("bmp of negative width", bmp(-8_i32 as u32, 8, 24, 0, &[0; 192]), "more than the limit"),
        ("bmp of 3 bits", bmp(8, 8, 3, 0, &[0; 192]), "BMP"),
        ("bmp of compression 77", bmp(8, 8, 24, 77, &[0; 192]), "BMP"),
        ("bmp with a header of 7 bytes", with_byte(bmp(8, 8, 24, 0, &[0; 192]), 14, 7), "BMP"),
        ("bmp with its pixels beyond the file", with_byte(bmp(8, 8, 24, 0, &[0; 192]), 13, 0x7f), "truncated"),
        ("run-length bmp that runs out of the picture", bmp(8, 8, 8, 1, &[0xff; 2000]), "?"),
        ("webp without data", webp_lossless(8, 8, &[]), "WebP"),
        ("webp without chunks", b"RIFF\x04\0\0\0WEBP".to_vec(), "WebP"),
        ("webp with a chunk of 4 GB", with_byte(webp_lossless(8, 8, &[0; 47]), 19, 0xff), "WebP"),
        ("webp of an unknown chunk", with_byte(webp_lossless(8, 8, &[0; 47]), 15, b'?'), "WebP"),
    ];
    let mut all: Vec<_> = list.into_iter().map(|(name, bytes, reason)| (name.to_string(), bytes, reason)).collect();
    for (name, bytes) in fixtures() {
        if [
            "rgb_420.jpg",
            "rgb_420_progressive.jpg",
            "rgb.png",
            "lossy.webp",
            "lossless.webp",
            "rgb_tiff_lzw.tif",
            "rgb.bmp",
        ]
        .contains(&name.as_str())
        {
            for part in 0..8 {
                all.push((format!("{part}/8 of {name}"), bytes[..bytes.len() * part / 8].to_vec(), "?"));
            }
        }
    }
    all
}

/// A zlib stream that stores these bytes, at most 65535.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len() as u16;
    let (mut low, mut high) = (1_u32, 0_u32);
    for &byte in bytes {
        low = (low + u32::from(byte)) % 65_521;
        high = (high + low) % 65_521;
    }
    let sum = (high << 16 | low).to_be_bytes();
    [&[0x78, 1, 1], &length.to_le_bytes()[..], &(!length).to_le_bytes(), bytes, &sum].concat()
}

#[test]
fn broken_pictures_are_refused_with_a_reason() {
    let (mut faults, mut count, mut decoded) = (Vec::new(), 0, 0);
    for (name, bytes, reason) in broken_pictures() {
        count += 1;
        match decode(&bytes, &DecodeOptions::default()) {
            // `?`: either is right, as long as it is no crash.
            Ok(_) if reason == "?" => decoded += 1,
            Ok(_) => faults.push(format!("{name}: decoded")),
            Err(error) if reason == "?" || error.to_string().contains(reason) => {}
            Err(error) => faults.push(format!("{name}: {error}")),
        }
    }
    println!("{count} broken pictures, {decoded} of them harmless");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count >= 100);
}

/// Three planes of tiles of 16 x 16 pixels.
fn planar_tiles(width_px: u32, height_px: u32) -> Vec<u8> {
    const LISTS_AT: u32 = 8 + 2 + 12 * 12 + 4;
    let tags: [(u16, u32, u32); 12] = [
        (256, 1, width_px),
        (257, 1, height_px),
        (258, 3, LISTS_AT),
        (259, 1, 1),
        (262, 1, 2),
        (277, 1, 3),
        (284, 1, 2),
        (322, 1, 16),
        (323, 1, 16),
        (324, 3, LISTS_AT + 12),
        (325, 3, LISTS_AT + 24),
        (339, 1, 1),
    ];
    let mut bytes = b"II*\0\x08\0\0\0\x0c\0".to_vec();
    for (tag, count, value) in tags {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(4_u16.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    let lists = [[8; 3], [0, 256, 512].map(|plane| LISTS_AT + 36 + plane), [256; 3]];
    bytes.extend([0; 4]);
    bytes.extend(lists.as_flattened().iter().flat_map(|value| value.to_le_bytes()));
    bytes.extend([[1; 256], [2; 256], [3; 256]].as_flattened());
    bytes
}

/// The TIFF crate panics on the second.
#[test]
fn planes_of_tiles_that_reach_beyond_the_picture_are_refused() {
    let decode = |bytes: &[u8]| decode(bytes, &DecodeOptions::default());
    assert_eq!(decode(&planar_tiles(16, 16)).unwrap().data(), [1, 2, 3].repeat(256));
    assert!(matches!(decode(&planar_tiles(16, 15)), Err(PixelError::Unsupported { .. })));
}

/// The product of strips and planes does not fit into 32 bits, which the TIFF crate multiplies with.
#[test]
fn more_strips_than_can_be_counted_are_refused() {
    let bytes = tiff(1, 0xf204_0000, &[(277, 3, 1, 3), (284, 3, 1, 2), (278, 4, 1, 1)]);
    assert!(matches!(image_size(&bytes), Err(PixelError::LimitExceeded { .. })));
}
