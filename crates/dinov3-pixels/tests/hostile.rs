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
