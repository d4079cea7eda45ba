//! A coarser raster on the finer grid of another one that covers the same ground.

use std::sync::Arc;

use dinov3_geo::PixelWindow;

use crate::RasterError;
use crate::profile::{Georeference, RasterProfile};
use crate::raster::{Raster, RasterWindow, check_request};
use crate::samples::Samples;

/// How far corners may lie apart that are meant to be the same, in pixels of the finer grid.
const CORNER_TOLERANCE_PX: f64 = 0.01;

/// How values of a coarser grid become values of a finer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resampling {
    /// The value of the coarse pixel in which the fine pixel's centre lies: for classes and masks.
    Nearest,
    /// Weighed by the distance to the four nearest centres, as GDAL's `bilinear`: for what varies smoothly, such as
    /// reflectance. Pixels without data have no weight; what lies in one has none either.
    Bilinear,
}

impl Resampling {
    /// GDAL's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Bilinear => "bilinear",
        }
    }
}

/// A coarser raster on the finer grid of another one that covers the same ground. A pixel's value depends on its place
/// alone, never on the window that is read.
pub struct OnGrid {
    raster: Arc<dyn Raster>,
    profile: RasterProfile,
    resampling: Resampling,
    largest_window_bytes: u64,
}

impl OnGrid {
    /// `raster` on the grid of `target`, which has as many pixels each way, or more.
    ///
    /// # Errors
    /// [`RasterError::OtherGrid`] where both do not cover the same ground in the same reference system.
    pub fn new(
        raster: Arc<dyn Raster>,
        target: &RasterProfile,
        resampling: Resampling,
        largest_window_bytes: u64,
    ) -> Result<Self, RasterError> {
        check_ground(raster.profile(), target)?;
        let (size, georeference) = ((target.width_px, target.height_px), target.georeference.clone());
        let mut fine = Self::stretched(raster, size, georeference, resampling, largest_window_bytes);
        fine.profile.overviews = target.overviews.iter().copied().filter(|size| fine.offers(*size)).collect();
        Ok(fine)
    }

    fn stretched(
        raster: Arc<dyn Raster>,
        (width_px, height_px): (u32, u32),
        georeference: Georeference,
        resampling: Resampling,
        largest_window_bytes: u64,
    ) -> Self {
        let coarse = raster.profile();
        let mut profile = RasterProfile { width_px, height_px, georeference, overviews: Vec::new(), ..coarse.clone() };
        let times = |fine: u32, coarse: u32| fine.div_ceil(coarse.max(1));
        let blocks = &mut profile.blocks;
        blocks.width_px = blocks.width_px.saturating_mul(times(width_px, coarse.width_px));
        blocks.height_px = blocks.height_px.saturating_mul(times(height_px, coarse.height_px));
        Self { raster, profile, resampling, largest_window_bytes }
    }

    /// Whether there is something to make an overview of this size from without throwing pixels away.
    fn offers(&self, size: (u32, u32)) -> bool {
        let coarse = self.raster.profile();
        coarse.overviews.contains(&size) || (coarse.width_px <= size.0 && coarse.height_px <= size.1)
    }

    fn axes(&self, inside: &PixelWindow) -> (Axis, Axis) {
        let coarse = self.raster.profile();
        (
            Axis::new(inside.x_px, inside.width_px, self.profile.width_px, coarse.width_px),
            Axis::new(inside.y_px, inside.height_px, self.profile.height_px, coarse.height_px),
        )
    }

    /// The pixels of the coarse raster that a part of this one is made of.
    fn source(&self, window: PixelWindow) -> Option<PixelWindow> {
        let inside = self.profile.window().intersection(&window)?;
        let (columns, rows) = self.axes(&inside);
        Some(PixelWindow::new(columns.first, rows.first, columns.length, rows.length))
    }
}

/// Whether two rasters cover the same ground, and the first is not finer in any direction.
fn check_ground(raster: &RasterProfile, target: &RasterProfile) -> Result<(), RasterError> {
    let differs = |difference: String| {
        Err(RasterError::OtherGrid {
            location: raster.location.clone(),
            other: target.location.clone(),
            difference,
            remedy: remedy(target),
        })
    };
    let crs = |profile: &RasterProfile| match profile.georeference.crs() {
        Some(crs) => crs.to_string(),
        None => "unknown".to_string(),
    };
    if raster.georeference.crs() != target.georeference.crs() {
        return differs(format!("its reference system is {}, not {}", crs(raster), crs(target)));
    }
    let (coarse, fine) = ((raster.width_px, raster.height_px), (target.width_px, target.height_px));
    let sizes = format!("it has {} x {} px, not {} x {}", coarse.0, coarse.1, fine.0, fine.1);
    let (Some(own), Some(wanted)) = (raster.georeference.transform(), target.georeference.transform()) else {
        return match (raster.georeference.transform(), target.georeference.transform()) {
            (None, None) if coarse == fine => Ok(()),
            (None, None) => differs(sizes),
            _ => differs("only one of them says where it lies".to_string()),
        };
    };
    let Ok(to_pixels) = wanted.inverse() else { return differs("that one's pixels have no size".to_string()) };
    for (right, lower) in [(false, false), (true, false), (false, true), (true, true)] {
        let corner = |(width_px, height_px): (u32, u32)| {
            (if right { f64::from(width_px) } else { 0.0 }, if lower { f64::from(height_px) } else { 0.0 })
        };
        let (column, row) = corner(coarse);
        let (x, y) = own.apply(column, row);
        let found = to_pixels.apply(x, y);
        let (columns, rows) = (found.0 - corner(fine).0, found.1 - corner(fine).1);
        // Also where a number is none.
        if !(columns.abs() <= CORNER_TOLERANCE_PX && rows.abs() <= CORNER_TOLERANCE_PX) {
            let side = |is_far: bool, far: &'static str, near: &'static str| if is_far { far } else { near };
            let name = format!("{} {}", side(lower, "lower", "upper"), side(right, "right", "left"));
            return differs(format!(
                "its {name} corner ({x}, {y}) lies {columns:.2} columns and {rows:.2} rows from that one's, {sizes}"
            ));
        }
    }
    if coarse.0 > fine.0 || coarse.1 > fine.1 {
        return differs(format!("{sizes}: finer one way and coarser the other"));
    }
    Ok(())
}

/// The command that brings a file onto this grid.
fn remedy(target: &RasterProfile) -> String {
    let (width_px, height_px) = (target.width_px, target.height_px);
    match (target.georeference.crs(), target.georeference.transform()) {
        (Some(crs), Some(transform)) if transform.is_north_up() => {
            let (left, top) = transform.apply(0.0, 0.0);
            let (right, bottom) = transform.apply(f64::from(width_px), f64::from(height_px));
            let crs = crs.to_string();
            let crs = if crs.contains(' ') { format!("'{crs}'") } else { crs };
            format!(
                "gdalwarp -t_srs {crs} -te {left} {bottom} {right} {top} -ts {width_px} {height_px} -r bilinear -of COG IN OUT"
            )
        }
        _ => "gdalwarp onto one grid".to_string(),
    }
}

/// Where the centres of a run of fine pixels lie among coarse ones, along one direction.
struct Axis {
    /// The first coarse pixel that is needed, and how many.
    first: i64,
    length: u32,
    places: Vec<Place>,
}

/// Between which coarse pixels a centre lies, counted from [`Axis::first`].
#[derive(Clone, Copy)]
struct Place {
    low: usize,
    high: usize,
    /// The share of the higher one, exact to rounding.
    weight: f64,
    /// The one in which the centre lies.
    nearest: usize,
}

impl Axis {
    fn new(start: i64, count: u32, fine: u32, coarse: u32) -> Self {
        // In units of 1 / (2 fine) coarse pixels, centres lie at whole numbers.
        let (unit, coarse) = (2 * i128::from(fine), i128::from(coarse));
        let clamped = |index: i128| index.clamp(0, (coarse - 1).max(0));
        let raw = |at: i64| {
            let edge = (2 * i128::from(at) + 1) * coarse;
            let centre = edge - i128::from(fine);
            let low = centre.div_euclid(unit);
            (clamped(low), clamped(low + 1), centre.rem_euclid(unit), clamped(edge.div_euclid(unit)))
        };
        let last = start + i64::from(count) - 1;
        let (first, end) = (raw(start).0, raw(last).1 + 1);
        let places = (start..=last).map(|at| {
            let (low, high, above, nearest) = raw(at);
            Place {
                low: (low - first) as usize,
                high: (high - first) as usize,
                weight: above as f64 / unit as f64,
                nearest: (nearest - first) as usize,
            }
        });
        Self { places: places.collect(), first: first as i64, length: (end - first) as u32 }
    }
}

/// One band of a coarse window.
struct Plane<'a, T> {
    values: &'a [T],
    valid: &'a [bool],
    width: usize,
    no_data: Option<f64>,
}

impl<T: Copy + Into<f64>> Plane<'_, T> {
    fn value(&self, column: &Place, row: &Place, resampling: Resampling, make: impl Fn(f64) -> T) -> T {
        let at = |column: usize, row: usize| row * self.width + column;
        let nearest = self.values[at(column.nearest, row.nearest)];
        if resampling == Resampling::Nearest || !self.counts(at(column.nearest, row.nearest)) {
            return nearest;
        }
        let corners = [
            (column.low, row.low, (1.0 - column.weight) * (1.0 - row.weight)),
            (column.high, row.low, column.weight * (1.0 - row.weight)),
            (column.low, row.high, (1.0 - column.weight) * row.weight),
            (column.high, row.high, column.weight * row.weight),
        ];
        let (mut sum, mut weights) = (0.0, 0.0);
        for (column, row, weight) in corners {
            if self.counts(at(column, row)) {
                sum += weight * self.values[at(column, row)].into();
                weights += weight;
            }
        }
        make(sum / weights)
    }

    fn counts(&self, at: usize) -> bool {
        let value: f64 = self.values[at].into();
        self.valid[at] && !value.is_nan() && Some(value) != self.no_data
    }
}

impl Raster for OnGrid {
    fn profile(&self) -> &RasterProfile {
        &self.profile
    }

    fn version(&self) -> Option<(u64, &str)> {
        self.raster.version()
    }

    fn read(&self, window: PixelWindow, bands: &[usize]) -> Result<RasterWindow, RasterError> {
        let profile = &self.profile;
        check_request(profile, window, bands, self.largest_window_bytes)?;
        let pixels = window.pixels() as usize;
        let no_data = profile.no_data.as_ref().map(|no_data| no_data.value);
        let mut samples = Samples::filled(profile.sample_type, no_data.unwrap_or(0.0), pixels * bands.len());
        let mut valid = vec![false; pixels];
        let (Some(inside), Some(source)) = (profile.window().intersection(&window), self.source(window)) else {
            return Ok(RasterWindow { window, bands: bands.len(), samples, valid });
        };
        let read = self.raster.read(source, bands)?;
        let (columns, rows) = self.axes(&inside);
        let (width, coarse_pixels) = (source.width_px as usize, read.valid.len());
        let (left, top) = ((inside.x_px - window.x_px) as usize, (inside.y_px - window.y_px) as usize);
        let targets = || {
            rows.places.iter().enumerate().flat_map(|(y, row)| {
                let start = (top + y) * window.width_px as usize + left;
                columns.places.iter().enumerate().map(move |(x, column)| (start + x, column, row))
            })
        };
        for (at, column, row) in targets() {
            valid[at] = read.valid[row.nearest * width + column.nearest];
        }
        macro_rules! fill {
            ($($kind:ident $make:expr),+) => {
                match (&read.samples, &mut samples) {
                    $((Samples::$kind(from), Samples::$kind(to)) => {
                        for (from, to) in from.chunks_exact(coarse_pixels).zip(to.chunks_exact_mut(pixels)) {
                            let plane = Plane { values: from, valid: &read.valid, width, no_data };
                            for (at, column, row) in targets() {
                                to[at] = plane.value(column, row, self.resampling, $make);
                            }
                        }
                    })+
                    // A raster gives what its profile says.
                    _ => {}
                }
            };
        }
        // GDAL rounds halves upwards; `as` stays within the type.
        fill!(
            U8 | value | (value + 0.5).floor() as u8,
            I8 | value | (value + 0.5).floor() as i8,
            U16 | value | (value + 0.5).floor() as u16,
            I16 | value | (value + 0.5).floor() as i16,
            U32 | value | (value + 0.5).floor() as u32,
            I32 | value | (value + 0.5).floor() as i32,
            F32 | value | value as f32,
            F64 | value | value
        );
        Ok(RasterWindow { window, bands: bands.len(), samples, valid })
    }

    fn is_empty(&self, window: PixelWindow) -> bool {
        self.source(window).is_none_or(|source| self.raster.is_empty(source))
    }

    fn prefetch(&self, windows: &[PixelWindow], bands: &[usize]) {
        let sources: Vec<_> = windows.iter().filter_map(|window| self.source(*window)).collect();
        self.raster.prefetch(&sources, bands);
    }

    fn overview(&self, level: usize) -> Result<Box<dyn Raster>, RasterError> {
        let Some(&size) = self.profile.overviews.get(level) else {
            let (location, overviews) = (self.profile.location.clone(), self.profile.overviews.len());
            return Err(RasterError::NoSuchOverview { location, level, overviews });
        };
        if let Some(own) = self.raster.profile().overviews.iter().position(|found| *found == size) {
            return self.raster.overview(own);
        }
        let columns = f64::from(self.profile.width_px) / f64::from(size.0);
        let rows = f64::from(self.profile.height_px) / f64::from(size.1);
        let georeference = self.profile.georeference.with_pixels_scaled_by(columns, rows);
        let raster = Arc::clone(&self.raster);
        Ok(Box::new(Self::stretched(raster, size, georeference, self.resampling, self.largest_window_bytes)))
    }
}
