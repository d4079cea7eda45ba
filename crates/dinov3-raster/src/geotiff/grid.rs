//! How an image is cut into blocks, and where these are in the file.

use std::ops::Range;

use dinov3_geo::PixelWindow;
use tiff_reader::{Ifd, TagValue};

pub(super) const TAG_STRIP_OFFSETS: u16 = 273;
pub(super) const TAG_STRIP_BYTE_COUNTS: u16 = 279;
pub(super) const TAG_TILE_OFFSETS: u16 = 324;
pub(super) const TAG_TILE_BYTE_COUNTS: u16 = 325;

/// An image's blocks.
#[derive(Clone, Debug)]
pub(super) struct Grid {
    /// Which directory of the file.
    pub directory: usize,
    /// Where that is.
    pub directory_offset: u64,
    pub width_px: u32,
    pub height_px: u32,
    pub is_tiled: bool,
    pub block_width_px: u32,
    pub block_height_px: u32,
    /// Whether each band has blocks of its own.
    pub is_planar: bool,
    /// How many sets of blocks there are: one, or one for each band.
    pub planes: usize,
    /// Samples side by side in a block.
    pub samples_per_pixel: usize,
}

/// A block, cut to the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub plane: usize,
    pub index: usize,
    pub window: PixelWindow,
}

impl Grid {
    fn across(&self) -> usize {
        self.width_px.div_ceil(self.block_width_px) as usize
    }

    fn down(&self) -> usize {
        self.height_px.div_ceil(self.block_height_px) as usize
    }

    /// How many blocks there must be; `None` if that exceeds the machine's numbers.
    pub fn count(&self) -> Option<usize> {
        self.across().checked_mul(self.down())?.checked_mul(self.planes)
    }

    /// Which set of blocks a band is in.
    pub fn plane_of(&self, band: usize) -> usize {
        if self.is_planar { band } else { 0 }
    }

    /// The sets of blocks that these bands are in, each once.
    pub fn planes_of(&self, bands: &[usize]) -> Vec<usize> {
        let mut planes: Vec<usize> = bands.iter().map(|&band| self.plane_of(band)).collect();
        planes.sort_unstable();
        planes.dedup();
        planes
    }

    /// Which of these bands come from a set of blocks: the sample within its pixels, and the place among `bands`.
    pub fn picks(&self, plane: usize, bands: &[usize]) -> Vec<(usize, usize)> {
        let places = bands.iter().enumerate().filter(|(_, band)| self.plane_of(**band) == plane);
        places.map(|(place, &band)| (if self.is_planar { 0 } else { band }, place)).collect()
    }

    /// The blocks of a plane that a window within the image touches.
    pub fn blocks(&self, inside: PixelWindow, plane: usize) -> impl Iterator<Item = Block> + use<> {
        let [width, height] = [i64::from(self.block_width_px), i64::from(self.block_height_px)];
        let rows = inside.y_px / height..(inside.bottom_px() - 1) / height + 1;
        let columns = inside.x_px / width..(inside.right_px() - 1) / width + 1;
        let (across, per_plane) = (self.across(), self.across() * self.down());
        let image = PixelWindow::of_grid(self.width_px, self.height_px);
        let [block_width, block_height] = [self.block_width_px, self.block_height_px];
        rows.flat_map(move |row| {
            columns.clone().filter_map(move |column| {
                let whole = PixelWindow::new(column * width, row * height, block_width, block_height);
                let index = plane * per_plane + row as usize * across + column as usize;
                Some(Block { plane, index, window: image.intersection(&whole)? })
            })
        })
    }

    /// A window within the image, cut where rows of blocks meet.
    pub fn rows_of_blocks(&self, inside: PixelWindow) -> impl Iterator<Item = PixelWindow> + use<> {
        let height = i64::from(self.block_height_px);
        let block_height = self.block_height_px;
        (inside.y_px / height..(inside.bottom_px() - 1) / height + 1).filter_map(move |row| {
            inside.intersection(&PixelWindow::new(inside.x_px, row * height, inside.width_px, block_height))
        })
    }

    /// Where a block is; `None` if nothing is stored for it.
    pub fn stored(&self, directory: &Ifd, index: usize) -> Option<Range<u64>> {
        let [offsets, counts] = self.tables();
        let (offset, count) = (entry(directory, offsets, index)?, entry(directory, counts, index)?);
        (offset != 0 && count != 0).then(|| offset..offset.saturating_add(count))
    }

    /// The tags of the tables of offsets and of lengths.
    pub fn tables(&self) -> [u16; 2] {
        match self.is_tiled {
            true => [TAG_TILE_OFFSETS, TAG_TILE_BYTE_COUNTS],
            false => [TAG_STRIP_OFFSETS, TAG_STRIP_BYTE_COUNTS],
        }
    }
}

fn entry(directory: &Ifd, tag: u16, index: usize) -> Option<u64> {
    match &directory.tag(tag)?.value {
        TagValue::Byte(values) => values.get(index).map(|&value| value.into()),
        TagValue::Short(values) => values.get(index).map(|&value| value.into()),
        TagValue::Long(values) => values.get(index).map(|&value| value.into()),
        TagValue::Long8(values) => values.get(index).copied(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        Grid {
            directory: 0,
            directory_offset: 8,
            width_px: 100,
            height_px: 70,
            is_tiled: true,
            block_width_px: 32,
            block_height_px: 16,
            is_planar: true,
            planes: 3,
            samples_per_pixel: 1,
        }
    }

    #[test]
    fn a_window_touches_its_blocks() {
        let grid = grid();
        assert_eq!(grid.count(), Some(4 * 5 * 3));
        let blocks: Vec<Block> = grid.blocks(PixelWindow::new(31, 16, 2, 1), 1).collect();
        assert_eq!(blocks.iter().map(|block| block.index).collect::<Vec<_>>(), [24, 25]);
        assert_eq!(blocks[1].window, PixelWindow::new(32, 16, 32, 16));
        let last: Vec<Block> = grid.blocks(PixelWindow::new(99, 69, 1, 1), 2).collect();
        assert_eq!(last, [Block { plane: 2, index: 59, window: PixelWindow::new(96, 64, 4, 6) }]);
        let rows: Vec<PixelWindow> = grid.rows_of_blocks(PixelWindow::new(5, 10, 50, 30)).collect();
        assert_eq!(rows.iter().map(|row| (row.y_px, row.height_px)).collect::<Vec<_>>(), [(10, 6), (16, 16), (32, 8)]);
    }

    #[test]
    fn bands_may_be_repeated_and_reordered() {
        let planar = grid();
        assert_eq!(planar.planes_of(&[2, 0, 2]), [0, 2]);
        assert_eq!(planar.picks(2, &[2, 0, 2]), [(0, 0), (0, 2)]);
        let chunky = Grid { is_planar: false, planes: 1, samples_per_pixel: 3, ..grid() };
        assert_eq!(chunky.planes_of(&[2, 0, 2]), [0]);
        assert_eq!(chunky.picks(0, &[2, 0, 2]), [(2, 0), (0, 1), (2, 2)]);
    }
}
