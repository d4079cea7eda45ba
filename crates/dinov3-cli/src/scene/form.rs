//! What the units of a job are made into, and how their files are called.

use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;
use dinov3::sink::{WorkUnit, check_grid, check_reference_system, is_store_name};
use dinov3_scene::{Demand, Division};

use crate::arguments::{SceneEmbedArguments, SceneFormat};
use crate::failure::usage;
use crate::scene::job::{Job, Task};
use crate::scene::options::{DENSE, DecidingOptions, FORMAT};
use crate::scene::{dense, zarr_plan, zarr_units};

/// What a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Chips, the rows of `UNIT.parquet`.
    ChipTable,
    /// Chips, the cells of `UNIT.zarr`.
    ChipStore,
    /// Chips, the cells of a shard of each array of one Zarr store, which all units make together.
    ChipShard,
    /// Patches, the cells of `UNIT.tif`.
    PatchRaster,
    /// Patches, the cells of `UNIT.zarr`.
    PatchStore,
}

impl Form {
    /// Of a command that makes chips or patches in this format; `is_one_store` if one store is for all units.
    ///
    /// # Errors
    /// If there is no such form.
    pub fn new(is_dense: bool, format: Option<SceneFormat>, is_one_store: bool) -> Result<Self, &'static str> {
        match (is_dense, format, is_one_store) {
            (true, _, true) => Err("--dense: every scene has a store of its own: name a folder, OUT/"),
            (true, None | Some(SceneFormat::Tif), _) => Ok(Self::PatchRaster),
            (true, Some(SceneFormat::Zarr), _) => Ok(Self::PatchStore),
            (true, Some(SceneFormat::Parquet), _) => {
                Err("--format parquet: patches are cells of a raster: --format tif or zarr")
            }
            (false, Some(SceneFormat::Tif), _) => Err("--format tif: it goes with --dense; chips are parquet or zarr"),
            (false, None | Some(SceneFormat::Zarr), true) => Ok(Self::ChipShard),
            (false, Some(SceneFormat::Parquet), true) => Err("--format parquet: the output is a Zarr store"),
            (false, Some(SceneFormat::Zarr), false) => Ok(Self::ChipStore),
            (false, None | Some(SceneFormat::Parquet), false) => Ok(Self::ChipTable),
        }
    }

    /// Of the command that puts results into this folder or store.
    pub fn of_output(arguments: &SceneEmbedArguments, output: &Path) -> Result<Self> {
        Self::new(arguments.dense.dense, arguments.format, is_store_name(output)).map_err(usage)
    }

    /// Of a plan, whose output has no name yet: Zarr stores of chips are one for all.
    pub fn of_plan(arguments: &SceneEmbedArguments) -> Result<Self> {
        let is_dense = arguments.dense.dense;
        Self::new(is_dense, arguments.format, !is_dense && arguments.format == Some(SceneFormat::Zarr)).map_err(usage)
    }

    /// Of a plan that was read.
    ///
    /// # Errors
    /// If its options say nothing that is known, or its units are of another form.
    pub fn of_read(options: &DecidingOptions, units: &[WorkUnit]) -> Result<Self, String> {
        let is_dense = options.value(DENSE) == Some("true");
        let format = options.value(FORMAT).map(|text| SceneFormat::from_str(text, false)).transpose()?;
        let form = Self::new(is_dense, format, units.iter().any(|unit| unit.shard.is_some()))?;
        form.check_units(units)?;
        Ok(form)
    }

    /// Whether a job can be made into units of this form.
    ///
    /// # Errors
    /// If the command line asks for what they cannot be.
    pub fn check_job(self, job: &Job<'_>) -> Result<()> {
        match self {
            Self::ChipTable => Ok(()),
            Self::ChipStore | Self::ChipShard => zarr_plan::check_cut(&job.options),
            Self::PatchRaster | Self::PatchStore => dense::check_units(job, self),
        }
    }

    /// What `--format` says of it.
    pub fn format(self) -> SceneFormat {
        match self {
            Self::ChipTable => SceneFormat::Parquet,
            Self::ChipStore | Self::ChipShard | Self::PatchStore => SceneFormat::Zarr,
            Self::PatchRaster => SceneFormat::Tif,
        }
    }

    pub fn is_patches(self) -> bool {
        matches!(self, Self::PatchRaster | Self::PatchStore)
    }

    /// What is encoded, for messages.
    pub fn items(self) -> &'static str {
        if self.is_patches() { "windows" } else { "chips" }
    }

    /// What a unit's data are called; while they are made, of a shard.
    pub fn data_of(self, unit: &str) -> String {
        match self {
            Self::ChipTable => format!("{unit}.parquet"),
            Self::ChipStore | Self::PatchStore => format!("{unit}.zarr"),
            Self::ChipShard => zarr_units::part_of(unit),
            Self::PatchRaster => format!("{unit}.tif"),
        }
    }

    /// Picture and basis of a unit's patches: beside the data, and called as those of one output.
    pub fn beside_data_of(self, unit: &str) -> Option<BesidePatches<String>> {
        let stem = match self {
            Self::PatchRaster => unit.to_owned(),
            Self::PatchStore => self.data_of(unit),
            _ => return None,
        };
        Some(BesidePatches::ENDINGS.map(|ending| format!("{stem}{ending}")))
    }

    /// Everything that a unit may have beside its item, the data first.
    pub fn files_of(self, unit: &str) -> Vec<String> {
        let beside = self.beside_data_of(unit).map(|beside| [beside.picture, beside.basis]);
        std::iter::once(self.data_of(unit)).chain(beside.into_iter().flatten()).collect()
    }

    /// The media type of a unit's data.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::ChipTable => "application/vnd.apache.parquet",
            Self::ChipStore | Self::ChipShard | Self::PatchStore => "application/vnd.zarr; version=3",
            Self::PatchRaster => COG,
        }
    }

    /// How scenes are divided, where a scene is one unit unless the form says otherwise.
    pub fn division<'a>(self, job: &'a Job<'_>) -> Division<'a> {
        match (&job.task, self) {
            (Task::Chips(layout), Self::ChipShard) => Division::Shards(layout),
            (Task::Chips(_), _) => Division::Scenes,
            (Task::Patches(cut), _) => Division::Windows(*cut),
        }
    }

    /// What a scene must be.
    pub fn demand(self) -> Demand {
        match self {
            Self::ChipTable => |_| Ok(()),
            Self::ChipStore | Self::ChipShard => |scene| scene.cells_of_store().map(drop),
            Self::PatchRaster => |scene| {
                scene.check_north_up("a raster of its patches")?;
                check_reference_system(&scene.pixel_grid())
            },
            Self::PatchStore => |scene| check_grid(&scene.pixel_grid()),
        }
    }

    /// Whether units are of this form, and stay where they belong; if not, the first one that does not.
    fn check_units(self, units: &[WorkUnit]) -> Result<(), String> {
        for unit in units {
            match (&unit.shard, self == Self::ChipShard) {
                (Some(shard), true) if !is_plain_name(&shard.group) => {
                    return Err(format!("'{}' is no name of a group", shard.group));
                }
                (Some(_), true) | (None, false) => {}
                (Some(_), false) => {
                    return Err(format!("unit {} is a shard, and the options are for files", unit.unit));
                }
                // A scene that could not be opened has none.
                (None, true) if unit.error.is_some() => {}
                (None, true) => return Err(format!("unit {} is no shard, and the options are for a store", unit.unit)),
            }
        }
        Ok(())
    }
}

/// Whether what has this name stays in its folder, is not hidden there, and is called so everywhere.
pub fn is_plain_name(name: &str) -> bool {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    !name.starts_with('.') && name.chars().all(is_plain)
}

/// The media type of cloud optimized GeoTIFFs.
pub const COG: &str = "image/tiff; application=geotiff; profile=cloud-optimized";

/// What lies beside a raster or store of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BesidePatches<T> {
    /// The first three components as colours.
    pub picture: T,
    /// What the components are along.
    pub basis: T,
}

impl BesidePatches<&'static str> {
    /// How their names end.
    pub const ENDINGS: Self = Self { picture: "-pca.tif", basis: "-pca.safetensors" };
}

impl<T> BesidePatches<T> {
    /// Something of each.
    pub fn map<U>(self, of: impl Fn(T) -> U) -> BesidePatches<U> {
        BesidePatches { picture: of(self.picture), basis: of(self.basis) }
    }
}
