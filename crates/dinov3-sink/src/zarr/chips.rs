//! Chips as cells of a raster.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use dinov3_engine::SinkError;
use dinov3_geo::PixelWindow;
use dinov3_stac::uri_of;
use serde_json::Value;

use super::{Cells, RasterFacts, Store, check_grid, pixel_m};
use crate::chip::{ChipCell, ChipRow};
use crate::chips::{ChipFormat, ChipRows};
use crate::error::OutputError;
use crate::layout::EmbeddingLayout;
use crate::name::safe_stem;
use crate::raster::{FeatureBlock, FeatureGrid, FeatureRaster, NorthUpRaster};

/// What a store of chips says beside them.
#[derive(Clone, Debug)]
pub struct ChipStoreOptions {
    /// Side of a chip in pixels of the grid that was cut.
    pub chip_px: u32,
    /// From chip to chip.
    pub stride_px: u32,
    /// A URI of the model.
    pub model: String,
    /// The groups of scenes, by the scene's name: see [`group_names`].
    pub groups: BTreeMap<String, String>,
    /// Row and column of the only shard of each array that is written, for a part of a store: see
    /// [`ChipShards`](crate::ChipShards).
    pub only_shard: Option<(u32, u32)>,
}

/// The group of each scene in a store: none for a single scene, else the scene's name without folders, its ending, and
/// what could not stand in a name; with a number where that would be another one's.
pub fn group_names(scenes: &[String]) -> BTreeMap<String, String> {
    if let [scene] = scenes {
        return BTreeMap::from([(scene.clone(), String::new())]);
    }
    let mut groups = BTreeMap::<String, String>::new();
    // In small letters: some file systems do not tell them apart. And the number that a further scene of a name gets.
    let (mut taken, mut next) = (HashSet::new(), HashMap::<String, u64>::new());
    for scene in scenes {
        let stem = safe_stem(scene, 200);
        let number = next.entry(stem.to_ascii_lowercase()).or_insert(1);
        let name = loop {
            let name = if *number == 1 { stem.clone() } else { format!("{stem}-{number}") };
            *number += 1;
            if taken.insert(name.to_ascii_lowercase()) {
                break name;
            }
        };
        groups.insert(scene.clone(), name);
    }
    groups
}

/// A store of chips in the making.
pub(crate) struct ChipStore {
    store: Store,
    options: ChipStoreOptions,
    /// By group.
    scenes: BTreeMap<String, SceneFacts>,
}

struct SceneFacts {
    number: u32,
    grid: FeatureGrid,
    pixel_m: Option<f64>,
    source: String,
    datetime_us: Option<i64>,
}

impl ChipStore {
    pub(crate) fn create(path: &Path, options: ChipStoreOptions) -> Result<Self, OutputError> {
        let only = options.only_shard.map(|(row, column)| [row as usize, column as usize]);
        Ok(Self { store: Store::create(path, only)?, options, scenes: BTreeMap::new() })
    }
}

/// The array of shares of valid pixels.
pub(super) const VALID_FRACTION: &str = "valid_fraction";

/// The array of each column's vectors, and that of their scales if they are bytes. They are not called as the columns are:
/// see the [module](super).
pub(super) fn vector_arrays(layout: &EmbeddingLayout) -> Vec<(String, String)> {
    let names = layout.columns().iter().map(|column| match column.name.strip_prefix("embedding") {
        Some(rest) => (format!("embeddings{rest}"), format!("scales{rest}")),
        None => (column.name.clone(), format!("scales_{}", column.name)),
    });
    names.collect()
}

/// Bytes of a cell of the array that has the most.
pub(super) fn cell_bytes(layout: &EmbeddingLayout) -> usize {
    let widest = layout.columns().iter().map(|column| column.width).max().unwrap_or(0);
    widest.saturating_mul(layout.element().size_bytes())
}

/// The place of a cell in the order of rows.
fn order(scene: u32, row: u32, column: u32) -> u128 {
    (u128::from(scene) << 64) | (u128::from(row) << 32) | u128::from(column)
}

impl ChipFormat for ChipStore {
    fn admit(&mut self, row: &ChipRow, cell: Option<ChipCell<'_>>) -> Result<u128, String> {
        let cell = cell.ok_or("it is no cell of a regular grid")?;
        if cell.column >= cell.grid.width_px || cell.row >= cell.grid.height_px {
            return Err(format!("its cell {}, {} lies outside of the grid", cell.column, cell.row));
        }
        check_grid(cell.grid).map_err(|problem| format!("its scene {problem}"))?;
        let group = self.options.groups.get(cell.scene).ok_or("its scene was not announced")?;
        let number = self.scenes.len() as u32;
        let scene = self.scenes.entry(group.clone()).or_insert_with(|| SceneFacts {
            number,
            grid: cell.grid.clone(),
            pixel_m: pixel_m(cell.grid, self.options.stride_px.max(1).into()),
            source: row.source.clone(),
            datetime_us: row.datetime_us,
        });
        Ok(order(scene.number, cell.row, cell.column))
    }

    fn finish(self: Box<Self>, mut rows: ChipRows<'_>, provenance: Value) -> Result<(), SinkError> {
        let Self { mut store, options, scenes } = *self;
        let element = rows.layout().element();
        let columns = rows.layout().columns().to_vec();
        let arrays = vector_arrays(rows.layout());
        let cell_bytes = cell_bytes(rows.layout());
        for (group, scene) in &scenes {
            let mut chips = ChipRaster { rows: &mut rows, scene, part: Part::ValidFraction };
            let grid = NorthUpRaster::new(&mut chips).grid().clone();
            let facts = RasterFacts {
                cells: Cells::Chips { chip_px: options.chip_px, stride_px: options.stride_px },
                model: &options.model,
                sources: vec![uri_of(&scene.source)],
                dims: columns.first().map_or(0, |column| column.width),
                cell_bytes,
                pixel_m: scene.pixel_m,
                element,
                datetime_us: scene.datetime_us,
            };
            store.begin(group, &grid, &facts)?;
            store.numbers(group, VALID_FRACTION, &mut NorthUpRaster::new(&mut chips))?;
            let mut start = 0;
            for (column, (name, scales)) in columns.iter().zip(&arrays) {
                chips.part = Part::Vector { start, width: column.width };
                store.vectors(group, (name, scales), element, &mut NorthUpRaster::new(&mut chips))?;
                start += column.width;
            }
        }
        Ok(store.finish(provenance)?)
    }
}

/// Which of a chip's values.
#[derive(Clone, Copy)]
enum Part {
    ValidFraction,
    Vector { start: usize, width: usize },
}

/// The chips of a scene, from the journal.
struct ChipRaster<'a, 'r> {
    rows: &'a mut ChipRows<'r>,
    scene: &'a SceneFacts,
    part: Part,
}

impl FeatureRaster for ChipRaster<'_, '_> {
    fn grid(&self) -> &FeatureGrid {
        &self.scene.grid
    }

    fn dims(&self) -> usize {
        match self.part {
            Part::ValidFraction => 1,
            Part::Vector { width, .. } => width,
        }
    }

    fn read(&mut self, window: PixelWindow, block: &mut FeatureBlock) -> Result<(), OutputError> {
        let dims = self.dims();
        block.clear(window, dims);
        let [first_row, first_column] = [window.y_px, window.x_px].map(|place| place as u32);
        for row in 0..window.height_px {
            let start = order(self.scene.number, first_row + row, first_column);
            for (place, chip, values) in self.rows.between(start, start + u128::from(window.width_px))? {
                let cell = row as usize * window.width_px as usize + (place - start) as usize;
                block.valid[cell] = true;
                let into = &mut block.values[cell * dims..][..dims];
                match self.part {
                    Part::ValidFraction => into.copy_from_slice(&[chip.valid_fraction]),
                    // Of this length: the journal was agreed on with the layout.
                    Part::Vector { start, width } => into.copy_from_slice(&values[start..][..width]),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenes_have_groups_of_their_own() {
        let names = |scenes: &[&str]| -> Vec<String> {
            let scenes: Vec<String> = scenes.iter().map(|scene| (*scene).to_owned()).collect();
            let groups = group_names(&scenes);
            scenes.iter().map(|scene| groups[scene].clone()).collect()
        };
        assert_eq!(names(&["a/b.tif"]), [""]);
        assert_eq!(names(&["a/b.tif", "c/b.tif", "B.tiff", "b-2.tif"]), ["b", "b-2", "B-3", "b-2-2"]);
        assert_eq!(names(&["s3://x/north 1.tif", "__.tif", "ü.tif"]), ["north_1", "scene", "_"]);
    }
}
