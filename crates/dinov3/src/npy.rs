//! Normalised pixels from a NumPy file: f32 [N, 3, H, W], for `--preprocess none`.

use std::path::{Path, PathBuf};

use dinov3_engine::{Item, ItemError, ItemErrorKind, Source};
pub use dinov3_pixels::npy::{NpyHeader, parse_header};
use dinov3_system::memory_map::MappedFile;

/// Why an `.npy` file is no batch of images.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct NpyError {
    /// The file.
    pub path: String,
    /// What is wrong.
    pub reason: String,
}

/// The images of an `.npy` file, each a source item of its own.
pub struct NpySource {
    path: PathBuf,
    map: MappedFile,
    data_offset: usize,
    count: usize,
    height_px: usize,
    width_px: usize,
}

impl NpySource {
    /// Opens and checks a file.
    ///
    /// # Errors
    /// If it is not f32, C order, [N, 3, H, W].
    pub fn open(path: &Path) -> Result<Self, NpyError> {
        let failed = |reason: String| NpyError { path: path.display().to_string(), reason };
        let map = MappedFile::open(path).map_err(|error| failed(error.to_string()))?;
        let header = parse_header(&map).map_err(failed)?;
        let [count, height_px, width_px] = header.images(map.len()).map_err(failed)?;
        Ok(Self { path: path.to_path_buf(), map, data_offset: header.data_offset, count, height_px, width_px })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of images.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Height and width of every image.
    pub fn size_px(&self) -> (usize, usize) {
        (self.height_px, self.width_px)
    }

    /// Pixels [count, 3, H, W] of the images from `start` on.
    ///
    /// # Errors
    /// If a value is not finite, with its place.
    pub fn pixels(&self, start: usize, count: usize) -> Result<Vec<f32>, NpyError> {
        let pixels = self.values(start, count);
        match pixels.iter().position(|value| !value.is_finite()) {
            None => Ok(pixels),
            Some(place) => {
                let size = 3 * self.height_px * self.width_px;
                let (image, value) = (start + place / size, pixels[place]);
                let reason = format!("image {image}: value {} is {value}, not a finite number", place % size);
                Err(NpyError { path: self.path.display().to_string(), reason })
            }
        }
    }

    fn values(&self, start: usize, count: usize) -> Vec<f32> {
        let size = 3 * self.height_px * self.width_px;
        let bytes = &self.map[self.data_offset + start * size * 4..][..count * size * 4];
        bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }
}

impl Source for NpySource {
    /// `FILE#INDEX`.
    type Key = PathBuf;

    fn keys(&self) -> Box<dyn Iterator<Item = PathBuf> + Send + '_> {
        Box::new((0..self.count).map(|index| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!("#{index}"));
            name.into()
        }))
    }

    fn len_hint(&self) -> Option<usize> {
        Some(self.count)
    }

    fn load(&self, key: &PathBuf) -> Result<Option<Item>, ItemError> {
        let name = key.to_string_lossy();
        let index = name.rsplit('#').next().and_then(|index| index.parse::<usize>().ok());
        let index = index.filter(|&index| index < self.count);
        let index = index.ok_or_else(|| ItemError::new(ItemErrorKind::Other, "not a row of this file"))?;
        let pixels = self.pixels(index, 1).map_err(|error| ItemError::new(ItemErrorKind::Decode, error.reason))?;
        Ok(Some(Item { height_px: self.height_px, width_px: self.width_px, pixels }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, values: usize) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        (0..values).for_each(|i| bytes.extend((i as f32).to_le_bytes()));
        bytes
    }

    fn open(bytes: &[u8]) -> Result<NpySource, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        std::fs::write(&path, bytes).unwrap();
        NpySource::open(&path).map_err(|error| error.reason)
    }

    const GOOD: &str = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 2, 1), }   \n";

    #[test]
    fn rows_are_images() {
        let source = open(&file(GOOD, 12)).unwrap();
        let keys: Vec<PathBuf> = source.keys().collect();
        assert_eq!(source.load(&keys[1]).unwrap().unwrap().pixels, [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
        assert!(keys[1].to_str().unwrap().ends_with("x.npy#1"));
    }

    #[test]
    fn what_is_not_a_batch_of_images_is_refused_with_the_reason() {
        for (bytes, expected) in [
            (file(GOOD, 11), "needs 48 bytes, found 44"),
            (file(&GOOD.replace("(2, 3", "(0, 3"), 0), "no pixels"),
            (file(&GOOD.replace("(2, 3, 2", "(99999999, 3, 0"), 0), "no pixels"),
            (file(&GOOD.replace("<f4", "<f8"), 24), "'<f8'"),
            (file(&GOOD.replace("False", "True"), 12), "Fortran order"),
            (file(&GOOD.replace("(2, 3, 2, 1)", "(12,)"), 12), "[N, 3, H, W]"),
            (file(&GOOD.replace("2, 1)", "99999999999999999999)"), 12), "whole numbers"),
            (file(&GOOD.replace("(2, 3", "(9223372036854775807, 3"), 12), "more than can be"),
            (file("{}", 0), "no 'descr'"),
            (b"\x93NUMPY".to_vec(), "cut short"),
            (b"\x93NUMPY\x01\x00\xff\xff".to_vec(), "above the limit"),
            (b"PK".to_vec(), "not an .npy"),
        ] {
            let error = open(&bytes).err().unwrap();
            assert!(error.contains(expected), "{error} should say {expected}");
        }
    }
}
