//! An opened scene: a raster of which everything is known that a run must know.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use dinov3_engine::{Item, ItemError, ItemErrorKind};
use dinov3_geo::{AffineTransform, CellScheme, Coverage, Crs, Footprint, GeoError, HilbertCurve, PixelWindow};
use dinov3_pixels::Statistics;
use dinov3_raster::{
    CrsDefinition, Georeference, Location, Opener, Raster, RasterError, RasterProfile, RasterWindow, Samples, redacted,
};
use dinov3_sink::{
    ChipCell, ChipFootprint, ChipRow, ChipShards, EmbeddingLayout, FeatureGrid, RowName, Stamp, check_grid,
};

use crate::align::{CellNames, Ground};
use crate::cells::ChipCells;
use crate::cut::Choice;
use crate::input::{FileVersion, OpenedFiles, open_stamped};
use crate::pixels::{chip_pixels, without_nan};
use crate::plan::rows_window;
use crate::preset::{Fit, Preset};
use crate::product::ProductFacts;
use crate::radiometry::{Measured, Radiometry, masked};
use crate::resample::at_gsd;
use crate::source::without_name;
use crate::{
    AlignedGrid, AreaOfInterest, ChipGrid, Cut, DeclaredBaseline, MaskValues, Remark, Resampling, Scale, SceneError,
    SceneInput,
};

/// Largest distance between a chip's polygon and its true outline, in pixels.
const FOOTPRINT_TOLERANCE_PX: f64 = 0.05;

/// What is made of every scene of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SceneOptions {
    /// How it is cut.
    pub cut: Cut,
    /// Ground sample distance in metres to which a scene is resampled first.
    pub gsd_m: Option<f64>,
    /// Chips on the cells of a grid instead of side by side from the scene's corner.
    pub grid: Option<AlignedGrid>,
    /// The grid whose cells are named, by the middle of a chip.
    pub cell_ids: Option<CellScheme>,
    /// Only chips of which a part lies in it.
    pub area: Option<AreaOfInterest>,
    /// The product, whose bands, scale and no-data are known.
    pub preset: Option<Preset>,
    /// What is declared of Sentinel-2's offset, whatever the item and the files say.
    pub baseline: Option<DeclaredBaseline>,
    /// Bands of red, green and blue, counted from 1; one band alone counts for all three. By default those of the preset, or
    /// those that the file names, or the first three of three, or the only one.
    pub bands: Option<Vec<usize>>,
    /// What samples mean; by default what the preset says, or levels, where they are bytes.
    pub scale: Option<Scale>,
    /// Which values of a scene's mask ([`SceneInput::mask`]) are invalid; by default those of the preset.
    pub mask_values: Option<MaskValues>,
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
            preset: None,
            baseline: None,
            gsd_m: None,
            grid: None,
            cell_ids: None,
            area: None,
            bands: None,
            scale: None,
            mask_values: None,
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
    /// Of its files.
    stamp: Option<Stamp>,
    /// The same of each of them, and of the mask.
    versions: Vec<FileVersion>,
    /// Of everything that decides about the pixels of its chips.
    whole_stamp: OnceLock<Option<Stamp>>,
    transform: AffineTransform,
    crs: Crs,
    epsg: Option<i32>,
    facts: ProductFacts,
    radiometry: Radiometry,
    measured: OnceLock<Result<Measured, SceneError>>,
    grid: ChipGrid,
    cells: CellNames,
    /// Its chips as cells of a raster, where they are regular.
    chip_cells: Option<ChipCells>,
    resampling: Option<Resampling>,
    remarks: Vec<Remark>,
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
        let OpenedFiles { raster, stamp, mut versions } = open_stamped(opener, input)?;
        let facts = ProductFacts::gather(input, raster.profile());
        let (raster, mask) = masked(opener, raster, input, options)?;
        let (transform, crs) = located(raster.profile(), options)?;
        refuse_off_the_earth(raster.profile(), &transform, &crs)?;
        let radiometry = Radiometry::of(&*raster, mask, input, &facts, options)?;
        let ignored = raster.profile().ignored_files.clone();
        if let (Some(file), Some(mask)) = (&input.mask, &radiometry.mask) {
            versions.push(FileVersion::new(file, mask.stamp));
        }
        let (raster, transform, resampling) = match options.gsd_m {
            Some(gsd_m) => {
                let (raster, transform, resampling) = at_gsd(raster, transform, &crs, gsd_m)?;
                (raster, transform, Some(resampling))
            }
            None => (raster, transform, None),
        };
        let Chosen { grid, cells, mut remarks } = chosen_chips(&*raster, &transform, &crs, options)?;
        remarks.extend(resampling.as_ref().and_then(Resampling::remark));
        remarks.extend((!ignored.is_empty()).then_some(Remark::NotHeeded { files: ignored }));
        let chip_cells = ChipCells::new(&grid, &transform, &crs);
        Ok(Arc::new(Self {
            cells,
            chip_cells,
            resampling,
            remarks,
            stamp,
            versions,
            whole_stamp: OnceLock::new(),
            transform,
            epsg: crs.epsg().and_then(|code| i32::try_from(code).ok()),
            crs,
            facts,
            radiometry,
            measured: OnceLock::new(),
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
        *self.whole_stamp.get_or_init(|| self.radiometry.stamp(self.stamp?, self.measured().ok()?))
    }

    /// What tells the version of each of its files, and of its mask.
    pub(crate) fn versions(&self) -> &[FileVersion] {
        &self.versions
    }

    /// Where it lies, and what files beside it, its item and its options made of its samples, before any pixel was looked at.
    pub(crate) fn reading(&self) -> String {
        format!("{} {:?} {}", self.radiometry.reading(), self.transform, self.crs)
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

    /// Its pixels as the cells of a raster.
    pub fn pixel_grid(&self) -> FeatureGrid {
        let (profile, transform) = (self.profile(), self.transform);
        FeatureGrid { width_px: profile.width_px, height_px: profile.height_px, transform, crs: self.crs.clone() }
    }

    /// Its chips.
    pub fn chips(&self) -> &ChipGrid {
        &self.grid
    }

    /// What was done to reach the ground sample distance that was asked for.
    pub fn resampling(&self) -> Option<&Resampling> {
        self.resampling.as_ref()
    }

    /// What is worth telling.
    pub fn remarks(&self) -> &[Remark] {
        &self.remarks
    }

    /// The side in metres of the blocks that chips are cut on, in a UTM zone.
    pub fn block_side_m(&self) -> Option<f64> {
        match self.cells {
            CellNames::Utm { side_m, .. } => Some(side_m),
            _ => None,
        }
    }

    /// The raster whose cells are its chips, if they are all one stride apart.
    pub fn cells(&self) -> Option<&FeatureGrid> {
        self.chip_cells.as_ref().map(|cells| &cells.grid)
    }

    /// A chip as a cell of that raster.
    pub(crate) fn cell(&self, chip: &PixelWindow) -> Option<ChipCell<'_>> {
        let cells = self.chip_cells.as_ref()?;
        let (column, row) = cells.place(chip)?;
        Some(ChipCell { scene: &self.name, grid: &cells.grid, column, row })
    }

    /// The bands of red, green and blue, counted from 1.
    pub fn rgb_bands(&self) -> [usize; 3] {
        self.radiometry.bands.map(|band| band + 1)
    }

    /// What its samples mean.
    pub fn scale(&self) -> Scale {
        self.radiometry.scale
    }

    /// How samples become reflectance and what says so, for a person; nothing where the scale is of samples.
    pub fn reflectance(&self) -> Option<String> {
        self.radiometry.reflectance()
    }

    /// The mask and which of its values are invalid, for a person.
    pub fn mask(&self) -> Option<String> {
        self.radiometry.mask.as_ref().map(|mask| format!("{}, {} are invalid", mask.name, mask.values))
    }

    /// What is known of the product.
    pub fn facts(&self) -> &ProductFacts {
        &self.facts
    }

    /// The preset that the scene seems to need, whatever its options say.
    pub fn fitting(&self) -> Option<Fit> {
        Preset::fitting(&self.facts, self.profile(), None)
    }

    /// Looks at the pixels of the whole scene, or at a sample of them, once: percentiles, and what the encoder will see.
    ///
    /// # Errors
    /// If they cannot be read, or contradict what was declared.
    pub fn measured(&self) -> Result<&Measured, SceneError> {
        let measure = || self.radiometry.measure(&*self.raster, &self.name, &self.statistics);
        self.measured.get_or_init(measure).as_ref().map_err(Clone::clone)
    }

    /// What was made of this scene's samples, and what it looks like then, for provenance.
    ///
    /// # Errors
    /// Those of [`Scene::measured`].
    pub fn described(&self) -> Result<serde_json::Value, SceneError> {
        let mut described = self.radiometry.described(self.measured()?);
        described["scene"] = self.name.as_str().into();
        if let Some(resampling) = &self.resampling {
            described["resampled"] = resampling.described();
        }
        Ok(described)
    }

    /// Where the whole scene lies.
    ///
    /// # Errors
    /// If a part of its outline lies nowhere on the Earth.
    pub fn footprint(&self) -> Result<Footprint, SceneError> {
        self.footprint_of(&self.profile().window())
            .map_err(|source| SceneError::Coordinates { scene: self.name.clone(), source })
    }

    /// Where the part of it lies that the chips which start in these rows take their pixels from; all of it without rows.
    ///
    /// # Errors
    /// If a part of the outline lies nowhere on the Earth.
    pub fn footprint_of_rows(&self, rows_px: Option<(i64, i64)>) -> Result<Footprint, SceneError> {
        self.footprint_of(&rows_window(self, rows_px))
            .map_err(|source| SceneError::Coordinates { scene: self.name.clone(), source })
    }

    /// Where a window of its pixels lies.
    ///
    /// # Errors
    /// If a part of its outline lies nowhere on the Earth.
    pub fn footprint_of_window(&self, window: &PixelWindow) -> Result<Footprint, SceneError> {
        self.footprint_of(window).map_err(|source| SceneError::Coordinates { scene: self.name.clone(), source })
    }

    /// EPSG code of its grid, if it has one.
    pub fn epsg(&self) -> Option<i32> {
        self.epsg
    }

    /// Acquisition, in microseconds since 1970-01-01T00:00:00Z, if it is known.
    pub fn datetime_us(&self) -> Option<i64> {
        self.datetime_us
    }

    /// The ground sample distance in metres, as `--gsd` counts it: the longer side of the middle pixel; nothing where that
    /// cannot be told.
    pub fn ground_distance_m(&self) -> Option<f64> {
        let profile = self.profile();
        let (column, row) = (f64::from(profile.width_px) / 2.0, f64::from(profile.height_px) / 2.0);
        let (width_m, height_m) = self.crs.pixel_size_m(&self.transform, column, row).ok()?;
        Some(width_m.max(height_m))
    }

    /// For each row of pixels in which chips start: how many of them may have data.
    pub(crate) fn chips_by_row(&self) -> BTreeMap<i64, u64> {
        let mut rows = BTreeMap::new();
        for window in (0..self.grid.len()).map(|index| self.grid.window(index)) {
            *rows.entry(window.y_px).or_default() += u64::from(self.inside(&window).is_some());
        }
        rows
    }

    /// Whether what is made of it can have north up; `made` is that.
    ///
    /// # Errors
    /// Why not, as the end of a sentence.
    pub fn check_north_up(&self, made: &str) -> Result<(), String> {
        if !self.transform.is_rotated() && self.transform.a > 0.0 {
            return Ok(());
        }
        Err(format!(
            "is rotated or mirrored, and {made} has north up: turn it with gdalwarp{} {} turned.tif",
            self.epsg().map_or_else(String::new, |code| format!(" -t_srs EPSG:{code}")),
            self.profile().location
        ))
    }

    /// The raster whose cells its chips are in a Zarr store; nothing if there are no chips.
    ///
    /// # Errors
    /// Why its chips cannot be cells of a store.
    pub fn cells_of_store(&self) -> Result<Option<&FeatureGrid>, String> {
        match self.cells() {
            Some(grid) => check_grid(grid).map(|()| Some(grid)),
            None if self.grid.is_empty() => Ok(None),
            None => {
                Err("has chips that are no columns and rows, as the cells of a Zarr store are: write .parquet"
                    .to_owned())
            }
        }
    }

    /// For each shard of a Zarr store with vectors of this layout: how many of its chips may have data.
    ///
    /// # Errors
    /// Why the chips cannot be cells of a store.
    pub(crate) fn chips_by_shard(&self, layout: &EmbeddingLayout) -> Result<BTreeMap<(u32, u32), u64>, String> {
        let Some(grid) = self.cells_of_store()? else { return Ok(BTreeMap::from([((0, 0), 0)])) };
        let shards = ChipShards::new(grid, layout);
        let (rows, columns) = shards.count();
        let mut chips: BTreeMap<_, u64> =
            (0..rows).flat_map(|row| (0..columns).map(move |column| ((row, column), 0))).collect();
        for window in (0..self.grid.len()).map(|index| self.grid.window(index)) {
            let is_one = self.inside(&window).is_some();
            if let Some(cell) = self.cell(&window).filter(|_| is_one) {
                *chips.entry(shards.of_cell(cell.column, cell.row)).or_default() += 1;
            }
        }
        Ok(chips)
    }

    fn footprint_of(&self, window: &PixelWindow) -> Result<Footprint, GeoError> {
        Footprint::of_window(window, &self.transform, &self.crs, FOOTPRINT_TOLERANCE_PX)
    }

    /// The part of a chip that lies in the scene; nothing if the file's index says that no pixel of it is data.
    pub(crate) fn inside(&self, chip: &PixelWindow) -> Option<PixelWindow> {
        let inside = chip.intersection(&self.profile().window())?;
        let can_be_enough = self.share_of_cell(&inside, chip) >= f64::from(self.min_valid);
        (can_be_enough && !self.raster.is_empty(inside)).then_some(inside)
    }

    /// The share of a chip that lies in the scene, on the cells of a grid; else what lies in the scene is all there is.
    /// Beyond the scene a cell is no data: two scenes that meet a cell shall not both have most of it mirrored.
    fn share_of_cell(&self, inside: &PixelWindow, chip: &PixelWindow) -> f64 {
        match self.cells {
            CellNames::Utm { .. } | CellNames::MajorTom => inside.pixels() as f64 / chip.pixels() as f64,
            _ => 1.0,
        }
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
        let mut read = self.raster.read(inside, &bands).map_err(|error| read_error(&error, &self.name))?;
        without_nan(&mut read);
        Ok(Some(if bands.len() == 1 { thrice(read) } else { read }))
    }

    /// The pixels of a window of which `read` is what lies in the scene.
    pub(crate) fn item(&self, read: &RasterWindow, window: PixelWindow) -> Result<Item, ItemError> {
        let measured = self.measured().map_err(|error| ItemError::new(ItemErrorKind::Read, error.to_string()))?;
        chip_pixels(read, window, &measured.transfer, measured.tables.as_ref(), &self.statistics)
    }

    /// Bands to read: one that counts for several is read once.
    pub(crate) fn distinct_bands(&self) -> Vec<usize> {
        match self.radiometry.bands {
            [a, b, c] if a == b && b == c => vec![a],
            bands => bands.to_vec(),
        }
    }

    /// A chip's pixels and its row; nothing where it has too little data.
    pub(crate) fn chip(&self, chip: PixelWindow) -> Result<Option<(Item, ChipRow)>, ItemError> {
        let Some(read) = self.read(&chip)? else { return Ok(None) };
        let inside = read.window;
        let valid_fraction = read.valid_fraction() as f32;
        let valid_share = f64::from(valid_fraction) * self.share_of_cell(&inside, &chip);
        if valid_share < f64::from(self.min_valid) || valid_fraction == 0.0 {
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
            grid_cell: self.cells.of(&chip, &self.grid, &self.transform, &footprint),
            valid_fraction,
            stac_item: self.stac_item.clone(),
            hilbert: HilbertCurve::EARTH.index(lon, lat),
        };
        Ok(Some((item, row)))
    }

    /// The scene's name and the window as a media fragment (W3C Media Fragments URI 1.0, 4.2.2), with the ground sample
    /// distance where its pixels are not the scene's own.
    pub(crate) fn chip_id(&self, chip: &PixelWindow) -> String {
        let PixelWindow { x_px, y_px, width_px, height_px } = chip;
        let window = format!("{}#xywh={x_px},{y_px},{width_px},{height_px}", self.name);
        match &self.resampling {
            Some(resampling) if resampling.is_resampled() => format!("{window}&gsd={}", resampling.gsd_m),
            _ => window,
        }
    }
}

/// A URL is text; any other name is a path, whatever its bytes.
pub(crate) fn parse(location: &Path) -> Result<Location, RasterError> {
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
    parse(location).map_or_else(|_| redacted(&location.to_string_lossy()), |parsed| name_of(&parsed))
}

/// Said of a chip, whose name begins with the scene's.
fn read_error(error: &RasterError, scene: &str) -> ItemError {
    ItemError::new(ItemErrorKind::Read, without_name(&error.to_string(), scene))
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

/// Refuses a scene whose middle is no place: most likely `--crs` names another system than that of its numbers.
fn refuse_off_the_earth(profile: &RasterProfile, transform: &AffineTransform, crs: &Crs) -> Result<(), SceneError> {
    let (x, y) = transform.apply(f64::from(profile.width_px) / 2.0, f64::from(profile.height_px) / 2.0);
    let found = crs.to_lon_lat(x, y).map(drop);
    found.map_err(|source| SceneError::Coordinates { scene: profile.location.clone(), source })
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
                // A mask says nothing of a place.
                Georeference::None if profile.ignored_files.iter().all(|file| file.ends_with(".msk")) => {
                    "has no georeference: for plain pictures use 'dinov3 embed'".to_owned()
                }
                other if !profile.ignored_files.is_empty() => format!(
                    "{}; {} beside it is not read: 'gdal_translate -of COG' makes one file of both",
                    other.problem().unwrap_or_else(|| "lies nowhere".to_owned()),
                    profile.ignored_files.join(", ")
                ),
                other => other.problem().unwrap_or_else(|| "lies nowhere".to_owned()),
            },
        }),
    }
}

struct Chosen {
    grid: ChipGrid,
    cells: CellNames,
    remarks: Vec<Remark>,
}

/// Which windows are chips, and how their cells are named.
fn chosen_chips(
    raster: &dyn Raster,
    transform: &AffineTransform,
    crs: &Crs,
    options: &SceneOptions,
) -> Result<Chosen, SceneError> {
    let RasterProfile { width_px, height_px, .. } = *raster.profile();
    let strip_px = strip_px(raster, options);
    let (grid, cells, mut remarks) = match options.grid {
        Some(grid) => {
            let ground = Ground { transform, crs, width_px, height_px, strip_px };
            let scene = raster.profile().location.clone();
            grid.chips(&ground, options.cut).map_err(|problem| SceneError::Cut { scene, problem })?
        }
        None => {
            let cells = options.cell_ids.map_or(CellNames::None, CellNames::Containing);
            (ChipGrid::new(options.cut, width_px, height_px, strip_px), cells, Vec::new())
        }
    };
    let Some(area) = &options.area else { return Ok(Chosen { grid, cells, remarks }) };
    let footprint = |window: &PixelWindow| Footprint::of_window(window, transform, crs, FOOTPRINT_TOLERANCE_PX);
    let mut choose = |window: PixelWindow, is_chip: bool| {
        let Some(inside) = window.intersection(&raster.profile().window()) else { return Choice::None };
        let looked_at = match is_chip {
            true => inside,
            // What is straight around many chips may bend around each.
            false => PixelWindow::new(
                inside.x_px - 1,
                inside.y_px - 1,
                inside.width_px.saturating_add(2),
                inside.height_px.saturating_add(2),
            ),
        };
        match footprint(&looked_at).map(|footprint| area.area().coverage(&footprint)) {
            Ok(Coverage::Outside) => Choice::None,
            Ok(Coverage::Inside) => Choice::All,
            // A chip without a footprint is reported when it is read.
            Ok(Coverage::Partly) | Err(_) => Choice::Some,
        }
    };
    let grid = grid.select(&mut choose);
    if grid.is_empty() {
        remarks.push(Remark::OutsideArea);
    }
    Ok(Chosen { grid, cells, remarks })
}

/// Columns that are read together, so that no block is decoded twice: all of them, if the blocks of a row of chips fit into
/// half of the cache.
fn strip_px(raster: &dyn Raster, options: &SceneOptions) -> u32 {
    let profile = raster.profile();
    // A chip meets blocks that it shares with the row of chips before it.
    let row_bytes = raster.row_of_windows_bytes(options.cut.chip_px, profile.bands.len()).max(1);
    let half = options.block_cache_bytes / 2;
    if row_bytes <= half || !profile.blocks.is_tiled {
        return profile.width_px;
    }
    let share = half as f64 / row_bytes as f64;
    (f64::from(profile.width_px) * share) as u32 / profile.blocks.width_px.max(1) * profile.blocks.width_px.max(1)
}
