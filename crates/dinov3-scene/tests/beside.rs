//! Files beside a scene that other programs heed and this one does not.

use std::fs;

use dinov3_pixels::Statistics;
use dinov3_raster::{Opener, Options};
use dinov3_scene::{Remark, Scene, SceneError, SceneInput, SceneOptions};
use dinov3_testing::geotiff::{TiffFile, TiffImage, TiffValue, utm_tags};

fn open(tags: Vec<(u16, TiffValue)>, beside: &[(&str, &str)]) -> Result<Vec<Remark>, SceneError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.tif");
    fs::write(&file, TiffFile::of(TiffImage { tags, ..TiffImage::default() }).to_bytes()).unwrap();
    for (name, text) in beside {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let scene = Scene::open(
        &Opener::new(Options::default()),
        &SceneInput::from(file),
        &SceneOptions::new(Statistics::SATELLITE),
    )?;
    Ok(scene.remarks().to_vec())
}

#[test]
fn masks_and_notes_that_are_not_heeded_are_a_warning() {
    assert_eq!(
        open(utm_tags(), &[("b.tif.msk", ""), ("a.tif.aux.xml", "<PAMDataset><Metadata/></PAMDataset>")]),
        Ok(vec![])
    );
    for (name, text) in [("a.tif.msk", ""), ("a.tif.aux.xml", "<PAMDataset><SRS>EPSG:32634</SRS></PAMDataset>")] {
        let remarks = open(utm_tags(), &[(name, text)]).unwrap();
        let [remark] = &remarks[..] else { panic!("{remarks:?}") };
        assert!(remark.is_warning() && remark.to_string().contains(name), "{remark}");
    }
}

#[test]
fn a_place_that_is_told_beside_the_file_is_named_where_the_file_has_none() {
    let error = open(Vec::new(), &[("a.tfw", "10\n0\n0\n-10\n5\n5\n")]).unwrap_err().to_string();
    assert!(error.contains("a.tfw beside it is not read") && error.contains("gdal_translate"), "{error}");
    let error = open(utm_tags()[..2].to_vec(), &[("a.tif.aux.xml", "<SRS>EPSG:32634</SRS>")]).unwrap_err().to_string();
    assert!(error.contains("--crs") && error.contains("a.tif.aux.xml beside it"), "{error}");
    let error = open(Vec::new(), &[]).unwrap_err().to_string();
    assert!(error.contains("dinov3 embed"), "{error}");
}
