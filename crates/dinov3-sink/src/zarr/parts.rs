//! Stores that several processes make: a shard of every array of a scene is a store of its own first, whose objects become
//! those of the whole.

use serde_json::{Map, Value, json};

use super::chips::{VALID_FRACTION, cell_bytes, vector_arrays};
use super::shard::{Chunking, shard_key};
use super::{METADATA_FILE, PROVENANCE_KEY, group_metadata, metadata_text, place};
use crate::element::ElementType;
use crate::layout::EmbeddingLayout;
use crate::raster::FeatureGrid;

/// Which part of a store one process writes: a shard of each array of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardPlace {
    /// The scene's group; empty for the root.
    pub group: String,
    /// Counted from 0, from the north.
    pub row: u32,
    /// Counted from 0.
    pub column: u32,
}

impl ShardPlace {
    /// The objects that such a part may have and no other part has: those that it lacks are none of the store. `leading` axes
    /// are whole in every shard.
    pub fn objects(&self, layout: &EmbeddingLayout) -> Vec<String> {
        let shard = [self.row as usize, self.column as usize];
        let object = |array: &str, leading| place(&self.group, &format!("{array}/{}", shard_key(leading, shard)));
        let mut objects = vec![object(VALID_FRACTION, 1)];
        for (vectors, scales) in vector_arrays(layout) {
            objects.push(object(&vectors, 2));
            if layout.element() == ElementType::Int8 {
                objects.push(object(&scales, 1));
            }
        }
        objects
    }
}

/// How the chips of a scene are divided into shards: the same for all arrays.
#[derive(Clone, Copy, Debug)]
pub struct ChipShards {
    chunking: Chunking,
    is_turned: bool,
}

impl ChipShards {
    /// For the cells of a scene and vectors of this layout.
    pub fn new(grid: &FeatureGrid, layout: &EmbeddingLayout) -> Self {
        let (_, is_turned) = grid.north_up();
        Self { chunking: Chunking::of_grid(grid, cell_bytes(layout)), is_turned }
    }

    /// Rows and columns of shards.
    pub fn count(&self) -> (u32, u32) {
        let [rows, columns] = self.chunking.shards();
        (rows as u32, columns as u32)
    }

    /// Row and column of the shard of a cell, of which column and row in the scene's own order are given.
    pub fn of_cell(&self, column: u32, row: u32) -> (u32, u32) {
        let [rows, _] = self.chunking.shape;
        let row = match self.is_turned {
            true => rows.saturating_sub(1).saturating_sub(row as usize),
            false => row as usize,
        };
        let [shard_rows, shard_columns] = self.chunking.shard();
        ((row / shard_rows) as u32, (column as usize / shard_columns) as u32)
    }
}

/// The root of a store of which there are the parts.
#[derive(Debug, Default)]
pub struct MergedStore {
    attributes: Map<String, Value>,
    nodes: Map<String, Value>,
}

impl MergedStore {
    /// The name of a root's metadata in its store.
    pub const METADATA: &'static str = METADATA_FILE;

    /// Adds a part by the metadata of its root, and gives its provenance; nothing if they are no such metadata.
    pub fn add(&mut self, root: &[u8]) -> Option<Value> {
        let mut root: Value = serde_json::from_slice(root).ok()?;
        let attributes = root.get_mut("attributes")?.as_object_mut()?;
        let provenance = attributes.remove(PROVENANCE_KEY)?;
        self.attributes.append(attributes);
        self.nodes.append(root.get_mut("consolidated_metadata")?.get_mut("metadata")?.as_object_mut()?);
        Some(provenance)
    }

    /// Groups and arrays that there are, by their places, with their metadata.
    pub fn nodes(&self) -> &Map<String, Value> {
        &self.nodes
    }

    /// The metadata of the root.
    pub fn finish(mut self, provenance: Value) -> Vec<u8> {
        self.attributes.insert(PROVENANCE_KEY.to_owned(), provenance);
        metadata_text(&group_metadata(json!(self.attributes), self.nodes))
    }
}
