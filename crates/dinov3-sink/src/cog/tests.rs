use dinov3_geo::{AffineTransform, Crs, PixelWindow};
use dinov3_raster::{CrsDefinition, Georeference, Opener, Options, Raster, Samples};

use super::*;
use crate::raster::ArrayRaster;

fn options(sample: CogSample) -> CogOptions {
    CogOptions { sample, is_rgb: false, band_names: Vec::new(), metadata: Vec::new() }
}

fn raster(width_px: u32, height_px: u32, dims: usize, transform: AffineTransform, crs: &str) -> ArrayRaster {
    let grid = FeatureGrid { width_px, height_px, transform, crs: crs.parse().unwrap() };
    let cells = width_px as usize * height_px as usize;
    let values = (0..cells * dims).map(|at| ((at * 2_654_435_761) % 1000) as f32 / 8.0 - 60.0);
    ArrayRaster::new(grid, dims, values.collect())
}

const NORTH_UP: AffineTransform = AffineTransform::unrotated(399_960.0, 4_200_000.0, 160.0, -160.0);

fn written(raster: &mut ArrayRaster, options: &CogOptions) -> (tempfile::TempDir, Box<dyn Raster>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.tif");
    let file = CogFile::create(&path).unwrap();
    assert!(!path.exists(), "appears only when it is finished");
    file.write(raster, options).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "temporary files go");
    let read = Opener::new(Options::default()).open(path.to_str().unwrap()).unwrap();
    (folder, read)
}

/// `[height, width, D]` of a file.
fn values(raster: &dyn Raster) -> Vec<f32> {
    let profile = raster.profile();
    let bands: Vec<usize> = (0..profile.bands.len()).collect();
    let read = raster.read(profile.window(), &bands).unwrap();
    let pixels = read.valid.len();
    (0..pixels)
        .flat_map(|pixel| bands.iter().map(move |band| band * pixels + pixel))
        .map(|at| read.samples.get(at) as f32)
        .collect()
}

fn same(left: &[f32], right: &[f32]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()))
}

#[test]
fn values_come_back_with_overviews() {
    let mut raster = raster(300, 170, 5, NORTH_UP, "EPSG:32633");
    let mut whole = FeatureBlock::default();
    raster.read(raster.grid().window(), &mut whole).unwrap();
    let (_folder, read) = written(&mut raster, &options(CogSample::F32));
    let profile = read.profile();
    assert_eq!((profile.width_px, profile.height_px, profile.bands.len()), (300, 170, 5));
    assert!(profile.blocks.is_tiled && !profile.is_planar);
    assert_eq!(profile.overviews, [(150, 85), (75, 43)]);
    let crs = CrsDefinition::Epsg(32633);
    assert_eq!(profile.georeference, Georeference::Located { transform: NORTH_UP, crs });
    assert!(same(&values(&*read), &whole.values));
    let overview = values(&*read.overview(0).unwrap());
    let mean = [0, 5, 1500, 1505].map(|at| whole.values[at]).iter().sum::<f32>() / 4.0;
    assert!((overview[0] - mean).abs() < 1e-4, "{} {mean}", overview[0]);
}

#[test]
fn many_bands_have_small_tiles_that_come_back() {
    let mut raster = raster(70, 40, 1024, NORTH_UP, "EPSG:32633");
    let mut whole = FeatureBlock::default();
    raster.read(raster.grid().window(), &mut whole).unwrap();
    let (_folder, read) = written(&mut raster, &options(CogSample::F32));
    assert_eq!(read.profile().blocks.width_px, 32);
    assert!(same(&values(&*read), &whole.values));
}

#[test]
fn half_floats_come_back_and_too_large_ones_are_refused() {
    let mut raster = raster(40, 20, 3, NORTH_UP, "EPSG:32633");
    let mut whole = FeatureBlock::default();
    raster.read(raster.grid().window(), &mut whole).unwrap();
    let (folder, read) = written(&mut raster, &options(CogSample::F16));
    assert_eq!(read.profile().bits_per_sample, 16);
    let far = values(&*read).iter().zip(&whole.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far <= 0.02, "{far}");
    let grid = raster.grid().clone();
    let mut large = ArrayRaster::new(grid, 1, vec![1e5; 800]);
    let error = CogFile::create(folder.path().join("b.tif")).unwrap();
    let error = error.write(&mut large, &options(CogSample::F16)).unwrap_err();
    assert!(error.to_string().contains("100000 is beyond the range"), "{error}");
}

#[test]
fn cells_without_data_stay_without() {
    let grid = FeatureGrid { width_px: 200, height_px: 3, transform: NORTH_UP, crs: Crs::from_epsg(32633).unwrap() };
    let mut values: Vec<f32> = (0..600).map(|at| (at % 255 + 1) as f32).collect();
    values[..100].fill(f32::NAN);
    let mut raster = ArrayRaster::new(grid, 1, values);
    for sample in [CogSample::F32, CogSample::U8] {
        let (_folder, read) = written(&mut raster, &options(sample));
        let window = read.read(PixelWindow::of_grid(200, 1), &[0]).unwrap();
        assert_eq!(window.valid.iter().filter(|valid| !**valid).count(), 100, "{sample:?}");
        if let Samples::U8(levels) = window.samples {
            assert_eq!((levels[99], levels[100]), (0, 101));
        }
        let overview = read.overview(0).unwrap();
        let window = overview.read(PixelWindow::of_grid(100, 2), &[0]).unwrap();
        assert!(!window.valid.contains(&false), "half of the cells under them hold data");
    }
}

#[test]
fn georeferences_are_kept() {
    let rotated = AffineTransform::new(8.0, 3.0, 5e5, 3.0, -8.0, 4e6);
    let albers = "+proj=aea +lat_0=23 +lon_0=-96 +lat_1=29.5 +lat_2=45.5 +x_0=0 +y_0=0 +datum=NAD83 +units=m +no_defs";
    let polar = "+proj=stere +lat_0=-90 +lat_ts=-71 +lon_0=0 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs";
    let feet = "+proj=lcc +lat_0=40 +lon_0=-100 +lat_1=41 +lat_2=45 +x_0=600000 +y_0=0 +ellps=GRS80 +towgs84=0,0,0 +to_meter=0.3048 +no_defs";
    for (transform, crs) in
        [(rotated, "EPSG:32633"), (NORTH_UP, albers), (NORTH_UP, polar), (NORTH_UP, feet), (NORTH_UP, "EPSG:3413")]
    {
        let (_folder, read) = written(&mut raster(20, 20, 2, transform, crs), &options(CogSample::F32));
        let Georeference::Located { transform: found, crs: definition } = &read.profile().georeference else {
            panic!("{crs}: {:?}", read.profile().georeference)
        };
        assert_eq!(*found, transform);
        let (expected, found): (Crs, Crs) = (crs.parse().unwrap(), definition.to_string().parse().unwrap());
        let place = |crs: &Crs| crs.to_lon_lat(4e5, 1e6).unwrap();
        let ((a, b), (c, d)) = (place(&expected), place(&found));
        assert!((a - c).abs() < 1e-9 && (b - d).abs() < 1e-9, "{crs}: {definition}");
    }
    let geographic = AffineTransform::unrotated(10.0, 50.0, 0.001, -0.001);
    let (_folder, read) = written(&mut raster(20, 20, 2, geographic, "EPSG:4326"), &options(CogSample::F32));
    let crs = CrsDefinition::Epsg(4326);
    assert_eq!(read.profile().georeference, Georeference::Located { transform: geographic, crs });
}

#[test]
fn metadata_is_told_with_any_characters() {
    let metadata = vec![("dinov3".to_owned(), "{\"a\": \"<ü & ö>\"}".to_owned())];
    let mut options = options(CogSample::F32);
    (options.metadata, options.band_names) = (metadata, vec!["component 1".to_owned(), "component 2".to_owned()]);
    let (_folder, read) = written(&mut raster(20, 20, 2, NORTH_UP, "EPSG:32633"), &options);
    assert_eq!(read.profile().metadata["dinov3"], "{\"a\": \"<ü & ö>\"}");
    assert_eq!(read.profile().bands[1].description.as_deref(), Some("component 2"));
}

#[test]
fn the_same_raster_gives_the_same_bytes() {
    let bytes = |_: u32| {
        let (folder, _) = written(&mut raster(150, 140, 3, NORTH_UP, "EPSG:32633"), &options(CogSample::F32));
        std::fs::read(folder.path().join("out.tif")).unwrap()
    };
    assert_eq!(bytes(0), bytes(1));
}
