//! Several files of the same ground as the bands of one raster.

use std::sync::Arc;

use dinov3_geo::PixelWindow;

use crate::RasterError;
use crate::location::named_together;
use crate::on_grid::{OnGrid, Resampling};
use crate::profile::{BlockLayout, Colour, MaskKind, RasterProfile, StackedFile};
use crate::raster::{Raster, RasterWindow, check_request};
use crate::samples::Samples;

/// Several rasters of the same ground as one: its bands are theirs, one raster after the other. The grid is the finest
/// one's; coarser ones are resampled to it bilinearly. A pixel is valid where every raster of which a band is read says so.
pub struct Stack {
    profile: RasterProfile,
    parts: Vec<Part>,
    version: Option<(u64, String)>,
    largest_window_bytes: u64,
}

struct Part {
    raster: Arc<dyn Raster>,
    /// Where its bands begin among those of the stack.
    first_band: usize,
}

impl Stack {
    /// Three rasters of one colour band each are red, green and blue. `largest_window_bytes` as in [`crate::Options`].
    ///
    /// # Errors
    /// [`RasterError::OtherGrid`] and [`RasterError::OtherSamples`], which name two of them and what differs.
    pub fn new(rasters: Vec<Box<dyn Raster>>, largest_window_bytes: u64) -> Result<Self, RasterError> {
        let rasters: Vec<Arc<dyn Raster>> = rasters.into_iter().map(Arc::from).collect();
        // The first of the finest.
        let pixels = |raster: &dyn Raster| u64::from(raster.profile().width_px) * u64::from(raster.profile().height_px);
        let finest = rasters.iter().map(|raster| pixels(&**raster)).max();
        let Some(finest) = rasters.iter().find(|raster| Some(pixels(&***raster)) == finest).map(Arc::clone) else {
            return Err(RasterError::Location { location: String::new(), reason: "it has no files".to_string() });
        };
        let finest = finest.profile();
        let (mut parts, mut files, mut bands) = (Vec::new(), Vec::new(), Vec::new());
        for raster in &rasters {
            let own = raster.profile();
            if own.sample_type != finest.sample_type {
                return Err(RasterError::OtherSamples {
                    location: own.location.clone(),
                    sample_type: own.sample_type.name(),
                    other: finest.location.clone(),
                    expected: finest.sample_type.name(),
                });
            }
            let on_grid = OnGrid::new(Arc::clone(raster), finest, Resampling::Bilinear, largest_window_bytes)?;
            let is_coarser = (own.width_px, own.height_px) != (finest.width_px, finest.height_px);
            files.push(StackedFile {
                location: own.location.clone(),
                width_px: own.width_px,
                height_px: own.height_px,
                resampling: is_coarser.then_some(Resampling::Bilinear),
            });
            let raster = if is_coarser { Arc::new(on_grid) } else { Arc::clone(raster) };
            parts.push(Part { raster, first_band: bands.len() });
            bands.extend(own.bands.iter().cloned());
        }
        let is_colour = |colour: &Colour| !matches!(colour, Colour::Alpha { .. });
        let colours =
            |raster: &Arc<dyn Raster>| raster.profile().bands.iter().filter(|band| is_colour(&band.colour)).count();
        // As they were named, whatever else the files call them.
        if rasters.len() == 3 && rasters.iter().all(|raster| colours(raster) == 1) {
            let coloured = bands.iter_mut().filter(|band| is_colour(&band.colour));
            for (band, colour) in coloured.zip([Colour::Red, Colour::Green, Colour::Blue]) {
                band.colour = colour;
            }
        }
        let profiles: Vec<&RasterProfile> = parts.iter().map(|part| part.raster.profile()).collect();
        let profile = together(finest, &profiles, bands, files);
        let version = parts.iter().map(|part| part.raster.version()).collect::<Option<Vec<_>>>();
        let version = version.map(|versions| {
            let names: Vec<&str> = versions.iter().map(|(_, name)| *name).collect();
            (versions.iter().fold(0, |sum: u64, (bytes, _)| sum.saturating_add(*bytes)), names.join(" "))
        });
        Ok(Self { profile, parts, version, largest_window_bytes })
    }

    /// The parts that have some of these bands: their bands, and which bands of the window these are.
    fn picks<'a>(&'a self, bands: &'a [usize]) -> impl Iterator<Item = (&'a dyn Raster, Vec<usize>, Vec<usize>)> + 'a {
        self.parts.iter().filter_map(move |part| {
            let own = part.first_band..part.first_band + part.raster.profile().bands.len();
            let (places, picked): (Vec<usize>, Vec<usize>) = (bands.iter().enumerate())
                .filter(|(_, band)| own.contains(band))
                .map(|(place, band)| (place, band - part.first_band))
                .unzip();
            (!picked.is_empty()).then_some((&*part.raster, picked, places))
        })
    }
}

/// What is known of rasters on one grid.
fn together(
    finest: &RasterProfile,
    parts: &[&RasterProfile],
    bands: Vec<crate::profile::BandProfile>,
    files: Vec<StackedFile>,
) -> RasterProfile {
    let largest = |side: fn(&BlockLayout) -> u32| parts.iter().map(|part| side(&part.blocks)).max().unwrap_or(1);
    let mut profile = RasterProfile {
        location: named_together(&files.iter().map(|file| file.location.clone()).collect::<Vec<_>>()),
        bands,
        blocks: BlockLayout {
            is_tiled: parts.iter().all(|part| part.blocks.is_tiled),
            width_px: largest(|blocks| blocks.width_px),
            height_px: largest(|blocks| blocks.height_px),
        },
        is_planar: parts.iter().all(|part| part.is_planar || part.bands.len() == 1),
        mask: if parts.len() == 1 { finest.mask } else { MaskKind::EachFile },
        ignored_files: parts.iter().flat_map(|part| part.ignored_files.clone()).collect(),
        files,
        ..finest.clone()
    };
    for part in parts {
        profile.overviews.retain(|size| part.overviews.contains(size));
        profile.metadata.retain(|name, value| part.metadata.get(name) == Some(value));
        profile.no_data = profile.no_data.filter(|no_data| part.no_data.as_ref() == Some(no_data));
        profile.datetime = profile.datetime.filter(|datetime| part.datetime.as_ref() == Some(datetime));
        if part.compression != profile.compression {
            profile.compression = "several compressions";
        }
    }
    profile
}

impl Raster for Stack {
    fn profile(&self) -> &RasterProfile {
        &self.profile
    }

    fn version(&self) -> Option<(u64, &str)> {
        self.version.as_ref().map(|(bytes, version)| (*bytes, version.as_str()))
    }

    fn read(&self, window: PixelWindow, bands: &[usize]) -> Result<RasterWindow, RasterError> {
        check_request(&self.profile, window, bands, self.largest_window_bytes)?;
        // All files are asked before the first one is waited for.
        self.prefetch(&[window], bands);
        let pixels = window.pixels() as usize;
        let mut samples = Samples::filled(self.profile.sample_type, 0.0, pixels * bands.len());
        let mut valid = vec![true; pixels];
        for (raster, picked, places) in self.picks(bands) {
            let read = raster.read(window, &picked)?;
            valid.iter_mut().zip(&read.valid).for_each(|(all, own)| *all &= own);
            macro_rules! copy {
                ($($kind:ident)+) => {
                    match (&mut samples, &read.samples) {
                        $((Samples::$kind(to), Samples::$kind(from)) => {
                            for (place, from) in places.iter().zip(from.chunks_exact(pixels)) {
                                to[place * pixels..(place + 1) * pixels].copy_from_slice(from);
                            }
                        })+
                        // Files of other samples are no stack.
                        _ => {}
                    }
                };
            }
            copy!(U8 I8 U16 I16 U32 I32 F32 F64);
        }
        Ok(RasterWindow { window, bands: bands.len(), samples, valid })
    }

    fn is_empty(&self, window: PixelWindow) -> bool {
        // Of every file, since it is not said which ones will be read.
        self.parts.iter().all(|part| part.raster.is_empty(window))
    }

    fn prefetch(&self, windows: &[PixelWindow], bands: &[usize]) {
        // Window by window, so that no file's part of the next ones comes first.
        for window in windows {
            for (raster, picked, _) in self.picks(bands) {
                raster.prefetch(std::slice::from_ref(window), &picked);
            }
        }
    }

    fn row_of_windows_bytes(&self, height_px: u32, _: usize) -> u64 {
        let of_part = |part: &Part| part.raster.row_of_windows_bytes(height_px, part.raster.profile().bands.len());
        self.parts.iter().map(of_part).fold(0, u64::saturating_add)
    }

    fn overview(&self, level: usize) -> Result<Box<dyn Raster>, RasterError> {
        let Some(size) = self.profile.overviews.get(level) else {
            let (location, overviews) = (self.profile.location.clone(), self.profile.overviews.len());
            return Err(RasterError::NoSuchOverview { location, level, overviews });
        };
        let of_part = |part: &Part| {
            let found = part.raster.profile().overviews.iter().position(|found| found == size);
            part.raster.overview(found.unwrap_or(usize::MAX))
        };
        let overviews = self.parts.iter().map(of_part).collect::<Result<Vec<_>, _>>()?;
        Ok(Box::new(Self::new(overviews, self.largest_window_bytes)?))
    }
}
