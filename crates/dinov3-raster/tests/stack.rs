//! Several files as the bands of one raster.

use dinov3_geo::{AffineTransform, PixelWindow};
use dinov3_raster::{MaskKind, Opener, Options, Raster, RasterError, Resampling, Samples, Stack};
use dinov3_testing::geotiff::{TiffFile, TiffImage, TiffValue, utm_tags};
use dinov3_testing::http_server::{HttpServer, part_of};

const LIMIT: u64 = 1 << 30;

/// One band of `width x height` pixels over the same 6 x 4 km.
fn band(width_px: u32, height_px: u32, sample: fn(u32, u32, u32) -> u64) -> TiffImage {
    let mut image =
        TiffImage { width_px, height_px, bands: 1, bits: 16, sample, tags: utm_tags(), ..TiffImage::default() };
    let pixel = TiffValue::Double(vec![6000.0 / f64::from(width_px), 4000.0 / f64::from(height_px), 0.0]);
    image.tags[0] = (33550, pixel);
    image
}

fn open(name: &str, image: &TiffImage) -> Box<dyn Raster> {
    Opener::new(Options::default()).open_bytes(name, TiffFile::of(image.clone()).to_bytes()).unwrap()
}

fn fine(band_number: u32) -> TiffImage {
    match band_number {
        0 => band(60, 40, |_, x, y| u64::from(1000 + x * 10 + y)),
        1 => band(60, 40, |_, x, y| u64::from(2000 + x + y * 10)),
        _ => band(60, 40, |_, x, y| u64::from(3000 + x * y)),
    }
}

fn numbers(samples: &Samples) -> Vec<f64> {
    (0..samples.len()).map(|at| samples.get(at)).collect()
}

#[test]
fn files_are_the_bands_of_one_raster() {
    let images = [0, 1, 2].map(fine);
    let rasters =
        ["d/r.tif", "d/g.tif", "d/b.tif"].iter().zip(&images).map(|(name, image)| open(name, image)).collect();
    let stack = Stack::new(rasters, LIMIT).unwrap();
    let profile = stack.profile();
    assert_eq!((profile.width_px, profile.height_px, profile.bands.len()), (60, 40, 3));
    assert_eq!(profile.location, "d/{r,g,b}.tif");
    assert_eq!(profile.rgb(), Some([0, 1, 2]));
    assert!(profile.files.iter().all(|file| file.resampling.is_none()));
    let window = PixelWindow::new(5, 6, 20, 10);
    // In any order, and repeated.
    let read = stack.read(window, &[2, 0, 2]).unwrap();
    let [red, _, blue] = [0, 1, 2].map(|at| numbers(&open("a", &images[at]).read(window, &[0]).unwrap().samples));
    assert_eq!(numbers(&read.samples), [blue.clone(), red, blue].concat());
    assert!(matches!(stack.read(window, &[3]), Err(RasterError::NoSuchBand { bands: 3, .. })));
    assert!(matches!(stack.read(PixelWindow::new(0, 0, 0, 1), &[0]), Err(RasterError::Window { .. })));
    let small = Stack::new(vec![open("a", &images[0]), open("b", &images[1])], 100).unwrap();
    assert!(matches!(small.read(window, &[0]), Err(RasterError::Window { .. })));
}

#[test]
fn a_pixel_is_valid_where_it_is_in_all_files_that_are_read() {
    let mut gap = fine(1);
    gap.sample = |_, x, y| if x < 7 { 0 } else { u64::from(x + y + 1) };
    gap.tags.push((42113, TiffValue::Ascii("0")));
    let stack = Stack::new(vec![open("a", &fine(0)), open("b", &gap)], LIMIT).unwrap();
    let window = PixelWindow::new(0, 0, 10, 1);
    assert_eq!(stack.profile().mask, MaskKind::EachFile);
    assert_eq!(stack.read(window, &[0, 1]).unwrap().valid, (0..10).map(|x| x >= 7).collect::<Vec<_>>());
    assert!(stack.read(window, &[0]).unwrap().valid.iter().all(|&valid| valid));
    // A file without gaps may have data there.
    assert!(!stack.is_empty(window));
    let mut absent = gap.clone();
    absent.is_absent = |_| true;
    let empty = Stack::new(vec![open("a", &absent), open("b", &absent)], LIMIT).unwrap();
    assert!(empty.is_empty(window) && empty.is_empty(PixelWindow::new(100, 0, 5, 5)));
    // Beyond the raster there is no data.
    let beyond = stack.read(PixelWindow::new(58, 38, 4, 4), &[0]).unwrap();
    assert_eq!(beyond.valid.iter().filter(|&&valid| valid).count(), 4);
}

#[test]
fn coarser_files_are_resampled_whatever_the_window() {
    // A plane: bilinear interpolation gives its values, but at the edge, where the outermost centres count on.
    for (width, height) in [(30, 20), (20, 40), (24, 25)] {
        let coarse = band(width, height, |_, x, y| u64::from(100 + x * 40 + y * 20));
        let stack = Stack::new(vec![open("fine.tif", &fine(0)), open("coarse.tif", &coarse)], LIMIT).unwrap();
        let file = &stack.profile().files[1];
        assert_eq!((file.width_px, file.resampling), (width, Some(Resampling::Bilinear)));
        let whole = stack.read(stack.profile().window(), &[1]).unwrap();
        let values = numbers(&whole.samples);
        for (y, x) in (0..40).flat_map(|y| (0..60).map(move |x| (y, x))) {
            let along = |at: i32, fine: f64, coarse: f64| {
                ((f64::from(at) + 0.5) * coarse / fine - 0.5).clamp(0.0, coarse - 1.0)
            };
            let expected = 100.0 + 40.0 * along(x, 60.0, f64::from(width)) + 20.0 * along(y, 40.0, f64::from(height));
            assert!((values[(y * 60 + x) as usize] - expected).abs() <= 0.5 + 1e-9, "{width} {x} {y}");
        }
        for window in [PixelWindow::new(0, 0, 1, 1), PixelWindow::new(7, 11, 13, 9), PixelWindow::new(55, 35, 9, 9)] {
            let part = stack.read(window, &[0, 1]).unwrap();
            for (y, x) in
                (0..i64::from(window.height_px)).flat_map(|y| (0..i64::from(window.width_px)).map(move |x| (y, x)))
            {
                let at = (y * i64::from(window.width_px) + x) as usize;
                let (column, row) = (window.x_px + x, window.y_px + y);
                let inside = column < 60 && row < 40;
                assert_eq!(part.valid[at], inside);
                if inside {
                    let of_whole = values[(row * 60 + column) as usize];
                    assert_eq!(part.samples.get(part.valid.len() + at), of_whole, "{window:?} {x} {y}");
                }
            }
        }
    }
}

#[test]
fn what_is_no_data_has_no_weight() {
    // 99 means no data, in the second column.
    let mut coarse = band(3, 2, |_, x, _| [10, 99, 30][x as usize]);
    coarse.tags.push((42113, TiffValue::Ascii("99")));
    let image = band(6, 4, |_, _, _| 1);
    let stack = Stack::new(vec![open("a", &image), open("b", &coarse)], LIMIT).unwrap();
    let read = stack.read(PixelWindow::new(0, 1, 6, 1), &[1]).unwrap();
    assert_eq!(read.valid, [true, true, false, false, true, true]);
    assert_eq!(numbers(&read.samples), [10.0, 10.0, 99.0, 99.0, 30.0, 30.0]);
}

#[test]
fn another_grid_is_refused_with_what_differs() {
    let refused = |image: TiffImage| {
        Stack::new(vec![open("a.tif", &fine(0)), open("b.tif", &image)], LIMIT).err().unwrap().to_string()
    };
    let mut shifted = fine(1);
    shifted.tags[1] = (33922, TiffValue::Double(vec![0.0, 0.0, 0.0, 400_010.0, 4_200_000.0, 0.0]));
    let error = refused(shifted);
    assert!(
        error.starts_with("b.tif does not lie on the grid of a.tif: its upper left corner (400010, 4200000)"),
        "{error}"
    );
    assert!(error.contains("0.50 columns and 0.00 rows"), "{error}");
    let command = "gdalwarp -t_srs EPSG:32633 -te 399960 4196000 405960 4200000 -ts 60 40 -r bilinear -of COG IN OUT";
    assert!(error.contains(command), "{error}");
    let mut elsewhere = fine(1);
    elsewhere.tags[2] = (34735, TiffValue::Short(vec![1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32632]));
    assert!(refused(elsewhere).contains("its reference system is EPSG:32632, not EPSG:32633"));
    assert!(refused(band(120, 20, |_, _, _| 1)).contains("finer one way"));
    let unlocated = TiffImage { tags: Vec::new(), ..fine(1) };
    assert!(refused(unlocated).contains("reference system is unknown"));
    let bytes = TiffImage { bits: 8, sample: |_, _, _| 1, ..fine(1) };
    assert_eq!(refused(bytes), "b.tif has uint8 samples, and a.tif uint16: files of one scene have the same type");
}

#[test]
fn overviews_are_those_that_all_files_have_or_can_be_made_of() {
    let with_overview = |image: TiffImage, width_px: u32, height_px: u32| {
        let overview = TiffImage { width_px, height_px, tags: vec![(254, TiffValue::Long(vec![1]))], ..image.clone() };
        let file = TiffFile { images: vec![image, overview], ..TiffFile::default() };
        Opener::new(Options::default()).open_bytes("o.tif", file.to_bytes()).unwrap()
    };
    let coarse = || band(30, 20, |_, x, y| u64::from(500 + x + y));
    let fine_one = || with_overview(fine(0), 30, 20);
    // The coarse file itself is as large as the overview.
    let stack = Stack::new(vec![fine_one(), open("coarse.tif", &coarse())], LIMIT).unwrap();
    assert_eq!(stack.profile().overviews, [(30, 20)]);
    let overview = stack.overview(0).unwrap();
    assert_eq!((overview.profile().width_px, overview.profile().bands.len()), (30, 2));
    let transform = AffineTransform::unrotated(399_960.0, 4_200_000.0, 200.0, -200.0);
    assert_eq!(overview.profile().georeference.transform(), Some(&transform));
    let read = overview.read(PixelWindow::new(3, 4, 1, 1), &[1]).unwrap();
    assert_eq!(read.samples, Samples::U16(vec![507]));
    assert!(matches!(stack.overview(1), Err(RasterError::NoSuchOverview { overviews: 1, .. })));
    // One that is finer and has none.
    let stack = Stack::new(vec![fine_one(), open("b.tif", &fine(1))], LIMIT).unwrap();
    assert_eq!(stack.profile().overviews, []);
}

#[test]
fn files_on_a_server_are_fetched_tile_by_tile_and_have_a_version_together() {
    let files: Vec<Vec<u8>> = [0, 1].map(|number| TiffFile::of(fine(number)).to_bytes()).into();
    let sizes: u64 = files.iter().map(|file| file.len() as u64).sum();
    let server =
        HttpServer::start(move |request| part_of(&files[usize::from(request.path.contains("b.tif"))], request));
    let mut options = Options::default();
    options.addresses = dinov3_raster::Addresses::Any;
    let opener = Opener::new(options);
    let open = |name: &str| opener.open(&format!("{}/{name}?key=secret", server.url())).unwrap();
    let stack = opener.stack(vec![open("a.tif"), open("b.tif")]).unwrap();
    let (bytes, version) = stack.version().unwrap();
    assert_eq!((bytes, version), (sizes, "\"1\" \"1\""));
    assert!(stack.profile().location.ends_with("/{a,b}.tif"), "{}", stack.profile().location);
    stack.read(stack.profile().window(), &[0, 1]).unwrap();
    // 2 x 3 tiles each.
    assert!(server.requests().len() as f64 <= 1.1 * 12.0 + 4.0, "{}", server.requests().len());
    assert_eq!(opener.stack(vec![open("a.tif")]).unwrap().profile().files, []);
}

#[test]
fn a_whole_file_is_read_up_to_a_limit() {
    let server = HttpServer::start(|request| match request.header("range") {
        None => dinov3_testing::http_server::HttpReply::new(200, "0123456789"),
        Some(_) => dinov3_testing::http_server::HttpReply::new(500, ""),
    });
    let mut options = Options::default();
    options.addresses = dinov3_raster::Addresses::Any;
    let opener = Opener::new(options);
    let location = dinov3_raster::Location::parse(&format!("{}/item.json", server.url())).unwrap();
    assert_eq!(opener.read_whole(&location, 10).unwrap(), b"0123456789");
    let error = opener.read_whole(&location, 9).unwrap_err().to_string();
    assert!(error.contains("it is longer than 9 bytes"), "{error}");
    assert_eq!(server.requests().len(), 2);
}
