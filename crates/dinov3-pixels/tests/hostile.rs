//! Pictures beyond the limits and files that are no pictures. Broken ones are the matter of the fuzz targets (`fuzz/`).

use dinov3_pixels::{DecodeOptions, Limits, PixelError, decode};

#[test]
fn limits_can_be_set() {
    let bytes = include_bytes!("fixtures/rgb.png");
    let with = |limits| decode(bytes, &DecodeOptions::default().with_limits(limits));
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
