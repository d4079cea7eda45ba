//! An opened scene: a raster of which everything is known that a run must know.

use std::path::Path;
use std::sync::Arc;

use dinov3_engine::{Item, ItemError, ItemErrorKind};
use dinov3_geo::{AffineTransform, Crs, Footprint, GeoError, HilbertCurve, PixelWindow};
use dinov3_pixels::Statistics;
use dinov3_raster::{
    Colour, CrsDefinition, Georeference, Location, Opener, Raster, RasterError, RasterProfile, RasterWindow,
    SampleType, Samples,
};
use dinov3_sink::{ChipFootprint, ChipRow, RowName, Stamp};

use crate::pixels::chip_pixels;
use crate::{ChipGrid, Cut, Scale, SceneError, SceneInput};

/// Largest distance between a chip's polygon and its true outline, in pixels.
const FOOTPRINT_TOLERANCE_PX: f64 = 0.05;
/// Side of the window in the middle of a scene whose samples are looked at for a message.
const SEEN_PX: u32 = 512;

/// What is made of every scene of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SceneOptions {
    /// How it is cut.
    pub cut: Cut,
    /// Bands of red, green and blue, counted from 1; one band alone counts for all three. By default those that the file
    /// names, or the first three of three, or the only one.
    pub bands: Option<Vec<usize>>,
    /// What samples mean; by default levels, where they are bytes.
    pub scale: Option<Scale>,
    /// Least share of a chip's window that holds data. Chips without any data never have a row.
    pub min_valid: f32,
    /// The reference system, whatever the file says.
    pub crs: Option<Crs>,
    /// Acquisition, in microseconds since 1970-01-01T00:00:00Z; by default what the [`SceneInput`] says.
    pub datetime_us: Option<i64>,
    /// Statistics to normalise by.
    pub statistics: Statistics,
    /// Memory that decoded blocks may take: what the [`Opener`] was made with.
    pub block_cache_bytes: u64,
}

impl SceneOptions {
    /// Chips of 256 pixels side by side, padded at the edges, with at least half of their pixels valid.
    pub fn new(statistics: Statistics) -> Self {
        Self {
            cut: Cut { chip_px: 256, stride_px: 256, edges: crate::Edges::Pad },
            bands: None,
            scale: None,
            min_valid: 0.5,
            crs: None,
            datetime_us: None,
            statistics,
            block_cache_bytes: dinov3_raster::Options::default().block_cache_bytes,
        }
    }
}

/// An opened scene.
pub struct Scene {
    raster: Box<dyn Raster>,
    name: String,
    stamp: Option<Stamp>,
    transform: AffineTransform,
    crs: Crs,
    epsg: Option<i32>,
    /// Of red, green and blue, counted from 0.
    bands: [usize; 3],
    scale: Scale,
    grid: ChipGrid,
    min_valid: f32,
    datetime_us: Option<i64>,
    stac_item: Option<String>,
    statistics: Statistics,
}

impl Scene {
    /// Opens what a user writes.
    ///
    /// # Errors
    /// If it cannot be read, lies nowhere, or if it is not clear which of its samples are colours.
    pub fn open(opener: &Opener, input: &SceneInput, options: &SceneOptions) -> Result<Arc<Self>, SceneError> {
        let parsed = parse(input.files.first().map_or(Path::new(""), |file| file.as_path()))?;
        // Before it is read: what changes later is found by the next run.
        let stamp = match &parsed {
            Location::File(path) => Stamp::of_file(path),
            _ => None,
        };
        let raster = opener.open_location(&parsed)?;
        let stamp = stamp.or_else(|| raster.version().map(|(bytes, version)| Stamp::of_version(bytes, version)));
        let profile = raster.profile();
        let (transform, crs) = located(profile, options)?;
        let bands = chosen_bands(profile, options.bands.as_deref())?;
        let scale = chosen_scale(&*raster, bands, options.scale)?;
        let strip_px = strip_px(profile, options);
        let grid = ChipGrid::new(options.cut, profile.width_px, profile.height_px, strip_px);
        Ok(Arc::new(Self {
            stamp,
            transform,
            epsg: crs.epsg().and_then(|code| i32::try_from(code).ok()),
            crs,
            bands,
            scale,
            grid,
            min_valid: options.min_valid,
            datetime_us: options.datetime_us.or(input.datetime_us),
            stac_item: input.stac_item.clone(),
            statistics: options.statistics,
            name: input.name.clone(),
            raster,
        }))
    }

    /// Its name in rows and messages, without secrets.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What tells whether it has changed; nothing where that cannot be told.
    pub fn stamp(&self) -> Option<Stamp> {
        self.stamp
    }

    /// What is known of the raster.
    pub fn profile(&self) -> &RasterProfile {
        self.raster.profile()
    }

    /// What it is read from.
    pub(crate) fn raster(&self) -> &dyn Raster {
        &*self.raster
    }

    /// Its reference system.
    pub fn crs(&self) -> &Crs {
        &self.crs
    }

    /// From pixels to coordinates.
    pub fn transform(&self) -> &AffineTransform {
        &self.transform
    }

    /// Its chips.
    pub fn chips(&self) -> &ChipGrid {
        &self.grid
    }

    /// The bands of red, green and blue, counted from 1.
    pub fn rgb_bands(&self) -> [usize; 3] {
        self.bands.map(|band| band + 1)
    }

    /// What its samples mean.
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// Where the whole scene lies.
    ///
    /// # Errors
    /// If a part of its outline lies nowhere on the Earth.
    pub fn footprint(&self) -> Result<Footprint, SceneError> {
        self.footprint_of(&self.profile().window())
            .map_err(|source| SceneError::Coordinates { scene: self.name.clone(), source })
    }

    fn footprint_of(&self, window: &PixelWindow) -> Result<Footprint, GeoError> {
        Footprint::of_window(window, &self.transform, &self.crs, FOOTPRINT_TOLERANCE_PX)
    }

    /// The part of a chip that lies in the scene; nothing if the file's index says that no pixel of it is data.
    pub(crate) fn inside(&self, chip: &PixelWindow) -> Option<PixelWindow> {
        chip.intersection(&self.profile().window()).filter(|inside| !self.raster.is_empty(*inside))
    }

    /// Starts fetching what these chips need.
    pub(crate) fn prefetch(&self, chips: impl Iterator<Item = u64>) {
        self.prefetch_windows(chips.map(|index| self.grid.window(index)));
    }

    /// Starts fetching what these windows need.
    pub(crate) fn prefetch_windows(&self, windows: impl Iterator<Item = PixelWindow>) {
        let windows: Vec<_> = windows.filter_map(|window| self.inside(&window)).collect();
        self.raster.prefetch(&windows, &self.distinct_bands());
    }

    /// Least share of valid pixels.
    pub(crate) fn min_valid(&self) -> f32 {
        self.min_valid
    }

    /// What a window takes from the scene, three bands; nothing where the file's index says that no pixel of it is data.
    pub(crate) fn read(&self, window: &PixelWindow) -> Result<Option<RasterWindow>, ItemError> {
        let Some(inside) = self.inside(window) else { return Ok(None) };
        let bands = self.distinct_bands();
        let mut read = self.raster.read(inside, &bands).map_err(read_error)?;
        without_nan(&mut read);
        Ok(Some(if bands.len() == 1 { thrice(read) } else { read }))
    }

    /// The pixels of a window of which `read` is what lies in the scene.
    pub(crate) fn item(&self, read: &RasterWindow, window: PixelWindow) -> Result<Item, ItemError> {
        chip_pixels(read, window, self.scale, &self.statistics)
    }

    /// Bands to read: one that counts for several is read once.
    pub(crate) fn distinct_bands(&self) -> Vec<usize> {
        match self.bands {
            [a, b, c] if a == b && b == c => vec![a],
            bands => bands.to_vec(),
        }
    }

    /// A chip's pixels and its row; nothing where it has too little data.
    pub(crate) fn chip(&self, chip: PixelWindow) -> Result<Option<(Item, ChipRow)>, ItemError> {
        let Some(read) = self.read(&chip)? else { return Ok(None) };
        let inside = read.window;
        let valid_fraction = read.valid_fraction() as f32;
        if valid_fraction < self.min_valid || valid_fraction == 0.0 {
            return Ok(None);
        }
        let item = self.item(&read, chip)?;
        let footprint =
            self.footprint_of(&inside).map_err(|error| ItemError::new(ItemErrorKind::Other, error.to_string()))?;
        let (lon, lat) = footprint.bbox_centre();
        let place = |pixels: i64| i32::try_from(pixels).unwrap_or(i32::MAX);
        let row = ChipRow {
            id: self.chip_id(&chip),
            footprint: ChipFootprint { wkb: footprint.to_wkb(), bbox: footprint.bbox() },
            datetime_us: self.datetime_us,
            source: self.name.clone(),
            epsg: self.epsg,
            x_px: place(inside.x_px),
            y_px: place(inside.y_px),
            width_px: place(inside.width_px.into()),
            height_px: place(inside.height_px.into()),
            grid_cell: None,
            valid_fraction,
            stac_item: self.stac_item.clone(),
            hilbert: HilbertCurve::EARTH.index(lon, lat),
        };
        Ok(Some((item, row)))
    }

    /// The scene's name and the window as a media fragment (W3C Media Fragments URI 1.0, 4.2.2).
    pub(crate) fn chip_id(&self, chip: &PixelWindow) -> String {
        let PixelWindow { x_px, y_px, width_px, height_px } = chip;
        format!("{}#xywh={x_px},{y_px},{width_px},{height_px}", self.name)
    }
}

/// A URL is text; any other name is a path, whatever its bytes.
fn parse(location: &Path) -> Result<Location, RasterError> {
    match location.to_str() {
        Some(text) if text.contains("://") => Location::parse(text),
        _ => Ok(Location::File(location.to_path_buf())),
    }
}

fn name_of(location: &Location) -> String {
    match location {
        Location::File(path) => path.row_name().into_owned(),
        remote => remote.shown(),
    }
}

/// What rows and messages call the scene that a user writes so: without the secrets that a URL may hold.
pub fn scene_name(location: &Path) -> String {
    parse(location).map_or_else(|_| "a URL that is none".to_owned(), |parsed| name_of(&parsed))
}

fn read_error(error: dinov3_raster::RasterError) -> ItemError {
    ItemError::new(ItemErrorKind::Read, error.to_string())
}

/// What is no number is no data, whatever the file says.
pub(crate) fn without_nan(read: &mut RasterWindow) {
    if !read.samples.sample_type().is_float() {
        return;
    }
    let pixels = read.valid.len();
    for at in 0..read.samples.len() {
        if read.samples.get(at).is_nan() {
            read.valid[at % pixels] = false;
        }
    }
}

/// One band as red, green and blue.
fn thrice(mut read: RasterWindow) -> RasterWindow {
    macro_rules! repeated {
        ($($kind:ident)+) => {
            match &mut read.samples {
                $(Samples::$kind(values) => *values = values.repeat(3),)+
                _ => {}
            }
        };
    }
    repeated!(U8 I8 U16 I16 U32 I32 F32 F64);
    read.bands = 3;
    read
}

/// Where the scene lies: as the options say, else as it says itself.
fn located(profile: &RasterProfile, options: &SceneOptions) -> Result<(AffineTransform, Crs), SceneError> {
    let scene = profile.location.clone();
    let coordinates = |source| SceneError::Coordinates { scene: scene.clone(), source };
    let georeference = &profile.georeference;
    let crs = match (&options.crs, georeference) {
        (Some(crs), _) => Some(crs.clone()),
        (None, Georeference::Located { crs: CrsDefinition::Epsg(code), .. }) => {
            Some(Crs::from_epsg(*code).map_err(coordinates)?)
        }
        (None, Georeference::Located { crs: CrsDefinition::Proj(text), .. }) => {
            Some(Crs::from_proj(text).map_err(coordinates)?)
        }
        _ => None,
    };
    match (georeference.transform(), crs) {
        (Some(transform), Some(crs)) => {
            transform.inverse().map_err(coordinates)?;
            Ok((*transform, crs))
        }
        _ => Err(SceneError::Georeference {
            scene: scene.clone(),
            problem: match georeference {
                Georeference::None => "has no georeference: for plain pictures use 'dinov3 embed'".to_owned(),
                other => other.problem().unwrap_or_else(|| "lies nowhere".to_owned()),
            },
        }),
    }
}

fn chosen_bands(profile: &RasterProfile, asked: Option<&[usize]>) -> Result<[usize; 3], SceneError> {
    let (scene, found) = (&profile.location, profile.bands.len());
    let Some(asked) = asked else {
        let is_colour = |band: &usize| !matches!(profile.bands[*band].colour, Colour::Alpha { .. });
        let colours: Vec<usize> = (0..found).filter(is_colour).collect();
        return match (profile.rgb(), colours.as_slice()) {
            (Some(bands), _) => Ok(bands),
            (None, [band]) => Ok([*band; 3]),
            (None, [red, green, blue]) => Ok([*red, *green, *blue]),
            _ => Err(SceneError::UnknownBands { scene: scene.clone(), found }),
        };
    };
    if let Some(&band) = asked.iter().find(|&&band| band == 0 || band > found) {
        return Err(SceneError::NoSuchBand { scene: scene.clone(), band, found });
    }
    match *asked {
        [band] => Ok([band - 1; 3]),
        [red, green, blue] => Ok([red - 1, green - 1, blue - 1]),
        _ => Err(SceneError::UnknownBands { scene: scene.clone(), found }),
    }
}

fn chosen_scale(raster: &dyn Raster, bands: [usize; 3], asked: Option<Scale>) -> Result<Scale, SceneError> {
    let profile = raster.profile();
    let (scene, sample_type) = (profile.location.clone(), profile.sample_type.name());
    // Fewer bits are bytes too, but 255 is not their white.
    let is_bytes = profile.sample_type == SampleType::U8 && profile.bits_per_sample == 8;
    match asked {
        Some(Scale::U8) if !is_bytes => Err(SceneError::WrongScale { scene, sample_type }),
        Some(scale) => Ok(scale),
        None if is_bytes => Ok(Scale::U8),
        None => {
            let (low, high) = rounded_outwards(seen_range(raster, &bands)?);
            Err(SceneError::UnknownScale { scene, sample_type, low, high })
        }
    }
}

/// The lowest and the highest sample of valid pixels in the middle of a scene.
fn seen_range(raster: &dyn Raster, bands: &[usize]) -> Result<(f64, f64), SceneError> {
    let profile = raster.profile();
    let start = |length_px: u32| i64::from(length_px.saturating_sub(SEEN_PX) / 2);
    let size = |length_px: u32| length_px.min(SEEN_PX);
    let (width_px, height_px) = (profile.width_px, profile.height_px);
    let window = PixelWindow::new(start(width_px), start(height_px), size(width_px), size(height_px));
    let read = raster.read(window, bands)?;
    let valid = (0..read.samples.len()).filter(|at| read.valid[at % read.valid.len()]);
    let values = valid.map(|at| read.samples.get(at)).filter(|value| value.is_finite());
    let range = values.fold(None, |range: Option<(f64, f64)>, value| {
        let (low, high) = range.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    });
    Ok(range.unwrap_or_default())
}

/// To three digits of their difference; a range without extent becomes one that `--scale` takes.
fn rounded_outwards((low, high): (f64, f64)) -> (f64, f64) {
    if low >= high {
        return (low.min(0.0), high.max(low.min(0.0) + 1.0));
    }
    let digits = 2 - (high - low).log10().floor() as i32;
    let step = 10_f64.powi(-digits);
    // Through text: multiples of a step are no round numbers.
    let round = |value: f64| format!("{:.*}", usize::try_from(digits).unwrap_or(0), value).parse().unwrap_or(value);
    (round((low / step).floor() * step), round((high / step).ceil() * step))
}

/// Columns that are read together, so that no block is decoded twice: all of them, if the blocks of a row of chips fit into
/// half of the cache.
fn strip_px(profile: &RasterProfile, options: &SceneOptions) -> u32 {
    // A chip meets blocks that it shares with the row of chips before it.
    let row_bytes = profile.row_of_windows_bytes(options.cut.chip_px, profile.bands.len()).max(1);
    let half = options.block_cache_bytes / 2;
    if row_bytes <= half || !profile.blocks.is_tiled {
        return profile.width_px;
    }
    let share = half as f64 / row_bytes as f64;
    (f64::from(profile.width_px) * share) as u32 / profile.blocks.width_px.max(1) * profile.blocks.width_px.max(1)
}
