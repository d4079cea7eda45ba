//! Files of this machine: windows, masks, what is refused.

use std::time::Instant;

use dinov3_geo::{AffineTransform, PixelWindow};
use dinov3_raster::{
    Colour, CrsDefinition, Georeference, MaskKind, Opener, Options, Photometric, Raster, RasterError, SampleType,
    Samples,
};
use dinov3_testing::geotiff::{TiffFile, TiffImage, TiffValue, pattern, utm_tags};

fn open(file: &TiffFile) -> Box<dyn Raster> {
    Opener::new(Options::default()).open_bytes("scene.tif", file.to_bytes()).unwrap()
}

fn refusal(image: TiffImage) -> RasterError {
    let opened = Opener::new(Options::default()).open_bytes("scene.tif", TiffFile::of(image).to_bytes());
    opened.err().expect("it is refused")
}

/// Every sample of a window against the formula that drew it.
fn check(raster: &dyn Raster, window: PixelWindow, bands: &[usize]) {
    let read = raster.read(window, bands).unwrap();
    let profile = raster.profile();
    assert_eq!(read.samples.len() as u64, window.pixels() * bands.len() as u64);
    let mut index = 0;
    for &band in bands {
        for y in window.y_px..window.bottom_px() {
            for x in window.x_px..window.right_px() {
                let inside = profile.window().contains(&PixelWindow::new(x, y, 1, 1));
                let expected = if inside { pattern(band as u32, x as u32, y as u32) as f64 } else { 0.0 };
                assert_eq!(read.samples.get(index), expected, "band {band} at ({x}, {y})");
                let pixel = index % read.valid.len();
                assert_eq!(read.valid[pixel], inside, "({x}, {y})");
                index += 1;
            }
        }
    }
}

#[test]
fn windows_hold_what_was_drawn_in_every_layout() {
    for (is_tiled, is_planar, is_big, is_big_endian, bits, has_index_at_end) in [
        (true, false, false, false, 8, false),
        (true, true, true, false, 16, false),
        (false, false, false, true, 32, true),
        (false, true, true, true, 16, true),
    ] {
        let image = TiffImage { is_tiled, is_planar, bits, tags: utm_tags(), ..TiffImage::default() };
        let file = TiffFile { is_big, is_big_endian, has_index_at_end, images: vec![image] };
        let raster = open(&file);
        check(raster.as_ref(), raster.profile().window(), &[0, 1, 2]);
        check(raster.as_ref(), PixelWindow::new(31, 15, 34, 18), &[2, 0, 2]);
        check(raster.as_ref(), PixelWindow::new(-7, 60, 30, 30), &[1]);
        check(raster.as_ref(), PixelWindow::new(99, 69, 1, 1), &[0]);
        check(raster.as_ref(), PixelWindow::new(500, 500, 3, 3), &[0, 1]);
    }
}

#[test]
fn the_profile_says_what_the_file_is() {
    let mut tags = utm_tags();
    tags.push((306, TiffValue::Ascii("2024:06:01 10:20:30")));
    tags.push((42113, TiffValue::Ascii("0")));
    tags.push((
        42112,
        TiffValue::Ascii("<GDALMetadata><Item name=\"D\" sample=\"1\" role=\"description\">B03</Item></GDALMetadata>"),
    ));
    let raster = open(&TiffFile::of(TiffImage { bits: 16, tags, ..TiffImage::default() }));
    let profile = raster.profile();
    assert_eq!((profile.width_px, profile.height_px, profile.bands.len()), (100, 70, 3));
    assert_eq!((profile.sample_type, profile.bits_per_sample), (SampleType::U16, 16));
    assert_eq!((profile.compression, profile.is_planar), ("DEFLATE", false));
    assert_eq!((profile.blocks.is_tiled, profile.blocks.width_px, profile.blocks.height_px), (true, 32, 16));
    let transform = AffineTransform::unrotated(399_960.0, 4_200_000.0, 10.0, -10.0);
    assert_eq!(profile.georeference, Georeference::Located { transform, crs: CrsDefinition::Epsg(32633) });
    assert_eq!(profile.no_data.as_ref().unwrap().value, 0.0);
    assert_eq!(profile.mask, MaskKind::NoData);
    assert_eq!(profile.rgb(), Some([0, 1, 2]));
    assert_eq!(profile.bands[1].description.as_deref(), Some("B03"));
    assert_eq!(profile.datetime.as_deref(), Some("2024:06:01 10:20:30"));
    // 33 rows touch three rows of tiles, 34 may touch four.
    assert_eq!(profile.row_of_windows_bytes(33, 3), 3 * 16 * 100 * 3 * 2);
    assert_eq!(profile.row_of_windows_bytes(34, 3), 4 * 16 * 100 * 3 * 2);
}

#[test]
fn points_are_pixel_centres_where_the_file_says_so() {
    let mut tags = utm_tags();
    tags[2] = (34735, TiffValue::Short(vec![1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 2, 3072, 0, 1, 32633]));
    let raster = open(&TiffFile::of(TiffImage { tags, ..TiffImage::default() }));
    let transform = raster.profile().georeference.transform().copied();
    assert_eq!(transform, Some(AffineTransform::unrotated(399_955.0, 4_200_005.0, 10.0, -10.0)));
}

#[test]
fn what_has_no_plain_georeference_is_told_by_name() {
    let of = |tags| open(&TiffFile::of(TiffImage { tags, ..TiffImage::default() })).profile().georeference.clone();
    assert_eq!(of(Vec::new()), Georeference::None);
    assert!(matches!(of(utm_tags()[..2].to_vec()), Georeference::WithoutCrs { .. }));
    let points = of(vec![(33922, TiffValue::Double(vec![0.5; 24]))]);
    assert_eq!(points, Georeference::ControlPoints { count: 4 });
    let rational = of(vec![(50844, TiffValue::Double(vec![1.0; 92]))]);
    assert_eq!(rational, Georeference::RationalPolynomials);
    for (georeference, word) in [(points, "gdalwarp"), (rational, "RPC")] {
        assert!(georeference.problem().unwrap().contains(word));
    }
}

#[test]
fn the_mask_decides_before_the_no_data_value_and_that_before_alpha() {
    let flat = |tags: Vec<(u16, TiffValue)>, bands| TiffImage { bands, tags, ..TiffImage::default() };
    let alpha = || (338, TiffValue::Short(vec![2]));
    let no_data = || (42113, TiffValue::Ascii("1"));
    let mask = TiffImage {
        bands: 1,
        sample: |_, x, _| u64::from(x >= 50),
        tags: vec![(254, TiffValue::Long(vec![4])), (262, TiffValue::Short(vec![4]))],
        ..TiffImage::default()
    };
    let valid = |file: &TiffFile, window| open(file).read(window, &[0]).unwrap().valid;
    let window = PixelWindow::new(48, 0, 4, 1);
    let both = TiffFile { images: vec![flat(vec![no_data()], 1), mask], ..TiffFile::default() };
    assert_eq!(valid(&both, window), [false, false, true, true]);
    assert_eq!(open(&both).profile().mask, MaskKind::Internal);
    assert_eq!(open(&both).profile().further_images, 0);

    let value = TiffFile::of(flat(vec![no_data()], 1));
    assert_eq!(valid(&value, PixelWindow::new(0, 0, 2, 1)), [false, true], "the first pixel is 1");

    let opacity = TiffFile::of(flat(vec![alpha()], 4));
    let raster = open(&opacity);
    assert_eq!(raster.profile().mask, MaskKind::Alpha { band: 3 });
    assert_eq!(raster.profile().bands[3].colour, Colour::Alpha { premultiplied: false });
    let naip = open(&TiffFile::of(flat(vec![(338, TiffValue::Short(vec![0]))], 4)));
    assert_eq!(naip.profile().mask, MaskKind::AllValid, "NAIP's fourth band is infrared");
}

#[test]
fn a_pixel_is_valid_if_any_band_that_is_read_has_data() {
    let image = TiffImage {
        sample: |band, x, _| u64::from(band < x),
        tags: vec![(42113, TiffValue::Ascii("0"))],
        ..TiffImage::default()
    };
    let raster = open(&TiffFile::of(image));
    let valid = |bands: &[usize]| raster.read(PixelWindow::new(0, 0, 4, 1), bands).unwrap().valid;
    assert_eq!(valid(&[0, 1, 2]), [false, true, true, true]);
    assert_eq!(valid(&[2]), [false, false, false, true]);
}

#[test]
fn absent_blocks_hold_the_no_data_value() {
    let sparse = |tags: Vec<(u16, TiffValue)>, is_planar| {
        open(&TiffFile::of(TiffImage { is_absent: |index| index % 4 != 1, is_planar, tags, ..TiffImage::default() }))
    };
    let raster = sparse(vec![(42113, TiffValue::Ascii("9"))], false);
    assert!(raster.is_empty(PixelWindow::new(0, 0, 32, 70)) && !raster.is_empty(PixelWindow::new(31, 0, 2, 1)));
    assert!(raster.is_empty(PixelWindow::new(-50, 0, 20, 20)), "there is nothing outside");
    let read = raster.read(PixelWindow::new(30, 0, 4, 1), &[0]).unwrap();
    let Samples::U8(values) = read.samples else { panic!("bytes") };
    assert_eq!(values, [9, 9, pattern(0, 32, 0) as u8, pattern(0, 33, 0) as u8]);
    assert_eq!(read.valid, [false, false, true, true]);
    assert!(sparse(vec![(42113, TiffValue::Ascii("9"))], true).is_empty(PixelWindow::new(0, 0, 32, 16)));
    // Without a no-data value, zeros are data.
    let raster = sparse(Vec::new(), false);
    assert!(!raster.is_empty(PixelWindow::new(0, 0, 32, 70)));
    assert_eq!(raster.read(PixelWindow::new(0, 0, 2, 1), &[0]).unwrap().valid, [true, true]);
    // A no-data value that bytes cannot have masks nothing.
    assert_eq!(sparse(vec![(42113, TiffValue::Ascii("-9999"))], false).profile().mask, MaskKind::AllValid);
}

#[test]
fn a_table_of_colours_is_told_and_its_places_are_read() {
    let table = || (320, TiffValue::Short(vec![0; 3 << 8]));
    // GDAL leaves grey files grey that get a table.
    for photometric in [3, 1, 0] {
        let tags = vec![(262, TiffValue::Short(vec![photometric])), table()];
        let raster = open(&TiffFile::of(TiffImage { bands: 1, tags, ..TiffImage::default() }));
        assert_eq!(raster.profile().photometric, Photometric::Palette, "{photometric}");
        assert_eq!(raster.profile().bands[0].colour, Colour::Named("palette".to_string()));
        check(raster.as_ref(), raster.profile().window(), &[0]);
    }
}

#[test]
fn overviews_are_rasters() {
    let half = |tag: u32, bands: u32| TiffImage {
        width_px: 50,
        height_px: 35,
        bands,
        tags: vec![(254, TiffValue::Long(vec![tag]))],
        ..TiffImage::default()
    };
    let full = TiffImage { tags: utm_tags(), ..TiffImage::default() };
    let raster = open(&TiffFile { images: vec![full, half(1, 3), half(1, 1)], ..TiffFile::default() });
    assert_eq!(raster.profile().overviews, [(50, 35)], "the one of a single band is none of this raster's");
    let overview = raster.overview(0).unwrap();
    check(overview.as_ref(), overview.profile().window(), &[0, 1, 2]);
    assert_eq!(overview.profile().georeference.transform().unwrap().pixel_size(), (20.0, 20.0));
    assert!(matches!(raster.overview(1), Err(RasterError::NoSuchOverview { level: 1, overviews: 1, .. })));
    assert!(overview.overview(0).is_err());
}

#[test]
fn what_is_not_read_is_refused_by_name_with_what_helps() {
    let with = |tag: u16, value: TiffValue| TiffImage { tags: vec![(tag, value)], ..TiffImage::default() };
    let short = |value: u16| TiffValue::Short(vec![value]);
    for (image, feature, options) in [
        (with(259, short(34925)), "LZMA", ""),
        (with(259, short(50002)), "JPEG XL", ""),
        (with(259, short(4711)), "compression 4711", ""),
        (TiffImage { bands: 4, ..with(262, short(5)) }, "CMYK", ""),
        (with(262, short(6)), "YCbCr without JPEG", ""),
        (with(339, TiffValue::Short(vec![6; 3])), "complex", "-ot Float32 "),
        (TiffImage { bits: 64, ..TiffImage::default() }, "64 bits", "-ot Float64 "),
        (with(258, TiffValue::Short(vec![8, 16, 8])), "different types", "-ot Float32 "),
    ] {
        let error = refusal(image);
        let RasterError::Unsupported { feature: found, remedy, .. } = &error else { panic!("{error}") };
        assert!(found.contains(feature), "{found}");
        if feature != "CMYK" {
            assert_eq!(remedy, &format!("gdal_translate -of COG {options}scene.tif scene_cog.tif"));
        }
        assert!(!error.to_string().contains('\n'));
    }
}

#[test]
fn limits_hold_before_memory_is_taken() {
    let huge = refusal(TiffImage {
        tags: vec![(322, TiffValue::Long(vec![1 << 20])), (323, TiffValue::Long(vec![1 << 20]))],
        ..TiffImage::default()
    });
    assert!(matches!(huge, RasterError::TooLarge { needed_bytes, .. } if needed_bytes == 3 << 40), "{huge}");
    let raster = open(&TiffFile::of(TiffImage::default()));
    let window = PixelWindow::new(0, 0, u32::MAX, u32::MAX);
    assert!(matches!(raster.read(window, &[0]), Err(RasterError::Window { .. })));
    assert!(matches!(raster.read(PixelWindow::new(0, 0, 0, 5), &[0]), Err(RasterError::Window { .. })));
    let error = raster.read(PixelWindow::new(0, 0, 1, 1), &[3]).unwrap_err();
    assert_eq!(error.to_string(), "scene.tif has 3 bands: there is no band 4");
}

#[test]
fn damaged_files_are_errors() {
    let opener = Opener::new(Options::default());
    let bytes = TiffFile::of(TiffImage::default()).to_bytes();
    for (bytes, expected) in
        [(Vec::new(), "no TIFF"), (b"PK\x03\x04 and more".to_vec(), "no TIFF"), (bytes[..40].to_vec(), "damaged")]
    {
        let error = opener.open_bytes("scene.tif", bytes).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let cut = opener.open_bytes("scene.tif", bytes[..bytes.len() - 10].to_vec()).unwrap();
    assert!(matches!(cut.read(PixelWindow::new(99, 69, 1, 1), &[0]), Err(RasterError::Damaged { .. })));
    assert!(cut.read(PixelWindow::new(0, 0, 1, 1), &[0]).is_ok());
    // Found by the fuzz target.
    let beyond = TiffImage { tags: vec![(324, TiffValue::Long(vec![u32::MAX - 9; 20]))], ..TiffImage::default() };
    let beyond = opener.open_bytes("scene.tif", TiffFile::of(beyond).to_bytes()).unwrap();
    assert!(matches!(beyond.read(PixelWindow::new(0, 0, 90, 60), &[0]), Err(RasterError::Damaged { .. })));
    let error = refusal(TiffImage { tags: vec![(325, TiffValue::Long(vec![1, 2]))], ..TiffImage::default() });
    assert!(error.to_string().contains("there are 20 blocks"), "{error}");
}

#[test]
fn a_file_that_changes_is_an_error() {
    let path = std::env::temp_dir().join(format!("dinov3-raster-changes-{}.tif", std::process::id()));
    let mut bytes = TiffFile::of(TiffImage::default()).to_bytes();
    std::fs::write(&path, &bytes).unwrap();
    let raster = Opener::new(Options::default()).open(path.to_str().unwrap()).unwrap();
    check(raster.as_ref(), PixelWindow::new(0, 0, 5, 5), &[0]);
    bytes.push(0);
    std::fs::write(&path, &bytes).unwrap();
    let error = raster.read(PixelWindow::new(90, 60, 5, 5), &[0]).unwrap_err();
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(error, RasterError::Changed { .. }), "{error}");
    let missing = Opener::new(Options::default()).open(path.to_str().unwrap()).err().unwrap();
    assert!(matches!(missing, RasterError::NotFound { .. }));
    let folder = Opener::new(Options::default()).open(std::env::temp_dir().to_str().unwrap()).err().unwrap();
    assert!(folder.to_string().contains("not a file"), "{folder}");
}

#[test]
fn an_empty_raster_of_ten_billion_pixels_opens_at_once() {
    let image = TiffImage {
        width_px: 100_000,
        height_px: 100_000,
        bands: 1,
        block_px: (256, 256),
        is_absent: |_| true,
        tags: vec![(42113, TiffValue::Ascii("0"))],
        ..TiffImage::default()
    };
    let bytes = TiffFile { is_big: true, ..TiffFile::of(image) }.to_bytes();
    let start = Instant::now();
    let raster = Opener::new(Options::default()).open_bytes("scene.tif", bytes).unwrap();
    let opened = start.elapsed();
    let mut empty = 0;
    for y in (0..100_000).step_by(256) {
        for x in (0..100_000).step_by(256) {
            empty += u32::from(raster.is_empty(PixelWindow::new(x, y, 256, 256)));
        }
    }
    println!("opened in {opened:?}, {empty} windows judged in {:?}", start.elapsed() - opened);
    assert_eq!(empty, 391 * 391);
    assert!(opened.as_millis() < 1000, "{opened:?}");
}

#[test]
fn threads_read_the_same_values() {
    let raster = open(&TiffFile::of(TiffImage { width_px: 300, height_px: 200, ..TiffImage::default() }));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let raster = raster.as_ref();
            scope.spawn(move || {
                (0..20).for_each(|step| check(raster, PixelWindow::new(step * 9 + thread, step * 5, 64, 64), &[0, 2]))
            });
        }
    });
}
