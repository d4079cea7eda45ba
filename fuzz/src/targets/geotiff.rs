//! GeoTIFFs.

use std::sync::LazyLock;

use dinov3_geo::PixelWindow;
use dinov3_raster::{Opener, Options, Raster};
use dinov3_testing::geotiff::{TiffFile, TiffImage, TiffValue, utm_tags};

use super::has_a_reason;
use crate::Target;

const LARGEST_BLOCK_BYTES: u64 = 4 << 20;

static OPENER: LazyLock<Opener> = LazyLock::new(|| {
    let mut options = Options::default();
    options.block_cache_bytes = 1 << 20;
    options.largest_block_bytes = LARGEST_BLOCK_BYTES;
    options.largest_window_bytes = 8 << 20;
    Opener::new(options)
});

/// Windows of a GeoTIFF and of its first overview: within limits, of the declared size, the same when read again, and
/// empty only where nothing is valid.
pub(super) const GEOTIFF: Target = Target {
    name: "geotiff",
    run: |bytes| match OPENER.open_bytes("fuzz.tif", bytes.to_vec()) {
        Err(error) => has_a_reason(&error),
        Ok(raster) => {
            look(raster.as_ref());
            match raster.overview(0) {
                Ok(overview) => look(overview.as_ref()),
                Err(error) => has_a_reason(&error),
            }
        }
    },
    seeds,
    longest_bytes: 4096,
    words: &[
        b"II*\0",
        b"MM\0*",
        b"II+\0\x08\0\0\0",
        b"\x02\x01\x03\0",
        b"\x03\x01\x03\0\x01\0\0\0\x05\0",
        b"\x03\x01\x03\0\x01\0\0\0\x07\0",
        b"\x03\x01\x03\0\x01\0\0\0\x47\x88",
        b"\x03\x01\x03\0\x01\0\0\0\x50\xc3",
        b"\x03\x01\x03\0\x01\0\0\0\x51\xc3",
        b"\x03\x01\x03\0\x01\0\0\0\x05\x80",
        b"\x3d\x01\x03\0\x01\0\0\0\x02\0",
        b"\x3d\x01\x03\0\x01\0\0\0\x03\0",
        b"\x1c\x01\x03\0\x01\0\0\0\x02\0",
        b"GDAL_STRUCTURAL_METADATA_SIZE=000140 bytes\nBLOCK_LEADER=SIZE_AS_UINT4\n",
        b"Lerc2 ",
        b"\xff\xd8\xff",
        b"\x28\xb5\x2f\xfd",
        b"RIFF",
        b"<Item name=\"A\" sample=\"0\" role=\"scale\">",
    ],
};

fn look(raster: &dyn Raster) {
    let profile = raster.profile();
    assert!(!profile.bands.is_empty() && profile.width_px > 0 && profile.height_px > 0);
    if let Some(problem) = profile.georeference.problem() {
        has_a_reason(&problem);
    }
    let [width, height] = [i64::from(profile.width_px), i64::from(profile.height_px)];
    let bands: Vec<usize> = (0..profile.bands.len().min(4)).rev().collect();
    for window in [
        PixelWindow::new(0, 0, 16, 16),
        PixelWindow::new(width - 5, height - 5, 9, 9),
        PixelWindow::new(width / 2, height / 3, 20, 3),
    ] {
        match raster.read(window, &bands) {
            Ok(read) => {
                assert_eq!(read.samples.len() as u64, window.pixels() * bands.len() as u64);
                assert_eq!(read.valid.len() as u64, window.pixels());
                assert_eq!(read.samples.sample_type(), profile.sample_type);
                assert!(!raster.is_empty(window) || read.valid.iter().all(|valid| !valid), "empty, and has data");
                let again = raster.read(window, &bands).expect("it was read before");
                assert_eq!(again.samples.to_ne_bytes(), read.samples.to_ne_bytes());
            }
            Err(error) => has_a_reason(&error),
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let image = TiffImage { width_px: 20, height_px: 18, block_px: (16, 16), tags: utm_tags(), ..TiffImage::default() };
    let with = |tags: Vec<(u16, TiffValue)>| TiffImage { tags, ..image.clone() };
    let short = |value: u16| TiffValue::Short(vec![value]);
    let mask = TiffImage { bands: 1, tags: vec![(254, TiffValue::Long(vec![4])), (262, short(4))], ..image.clone() };
    let overview =
        TiffImage { width_px: 10, height_px: 9, tags: vec![(254, TiffValue::Long(vec![1]))], ..image.clone() };
    let notes =
        "<GDALMetadata><Item name=\"A\">b</Item><Item name=\"S\" sample=\"0\" role=\"scale\">0.5</Item></GDALMetadata>";
    vec![
        TiffFile::of(image.clone()).to_bytes(),
        TiffFile {
            is_big: true,
            is_big_endian: true,
            ..TiffFile::of(TiffImage { bits: 16, is_planar: true, ..image.clone() })
        }
        .to_bytes(),
        TiffFile {
            has_index_at_end: true,
            ..TiffFile::of(TiffImage { is_tiled: false, is_deflated: false, ..image.clone() })
        }
        .to_bytes(),
        TiffFile { images: vec![image.clone(), mask, overview], ..TiffFile::default() }.to_bytes(),
        TiffFile::of(TiffImage { is_absent: |index| index != 1, ..with(vec![(42113, TiffValue::Ascii("0"))]) })
            .to_bytes(),
        TiffFile::of(TiffImage {
            bits: 32,
            sample_format: 3,
            bands: 1,
            ..with(vec![(42113, TiffValue::Ascii("nan"))])
        })
        .to_bytes(),
        TiffFile::of(TiffImage { bands: 4, ..with(vec![(338, short(2)), (42112, TiffValue::Ascii(notes))]) })
            .to_bytes(),
        TiffFile::of(TiffImage { bands: 1, ..with(vec![(317, short(2)), (33922, TiffValue::Double(vec![1.0; 24]))]) })
            .to_bytes(),
        TiffFile::of(with(vec![
            (34264, TiffValue::Double((0..16).map(f64::from).collect())),
            (34735, TiffValue::Short(vec![1, 1, 0, 3, 1024, 0, 1, 1, 3075, 0, 1, 11, 3078, 34736, 1, 0])),
            (34736, TiffValue::Double(vec![29.5])),
        ]))
        .to_bytes(),
    ]
}
