//! Which files came onto the grid of a finer one, for notes and provenance.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use dinov3_raster::{RasterProfile, Resampling};

/// A file that was coarser than another one of its scene.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResampledFile {
    /// Which file of its scene, counted from 1.
    pub number: usize,
    /// Its own columns and rows.
    pub from_px: (u32, u32),
    /// Columns and rows of the scene.
    pub to_px: (u32, u32),
    /// How its values came there.
    pub method: Resampling,
}

/// The files of all scenes that were opened until now. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct ResampledFiles(Arc<Mutex<BTreeMap<usize, Vec<ResampledFile>>>>);

impl ResampledFiles {
    /// Notes those of scene `index`, each time that it is opened.
    pub(crate) fn note(&self, index: usize, profile: &RasterProfile) {
        let resampled = (1..).zip(&profile.files).filter_map(|(number, file)| {
            Some(ResampledFile {
                number,
                from_px: (file.width_px, file.height_px),
                to_px: (profile.width_px, profile.height_px),
                method: file.resampling?,
            })
        });
        let resampled: Vec<_> = resampled.collect();
        if !resampled.is_empty() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(index, resampled);
        }
    }

    /// Each kind once, in the order of the scenes, with the number of scenes that have it.
    pub fn counted(&self) -> Vec<(ResampledFile, usize)> {
        let mut kinds: Vec<(ResampledFile, usize)> = Vec::new();
        for file in self.0.lock().unwrap_or_else(PoisonError::into_inner).values().flatten() {
            match kinds.iter_mut().find(|(known, _)| known == file) {
                Some((_, scenes)) => *scenes += 1,
                None => kinds.push((file.clone(), 1)),
            }
        }
        kinds
    }
}
