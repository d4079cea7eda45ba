//! Windows of a pixel grid.

/// A rectangle of whole pixels of a grid. It may start before the grid's first pixel and end after its last one: a padded
/// chip does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PixelWindow {
    /// Column of the first pixel, counted from the grid's left edge.
    pub x_px: i64,
    /// Row of the first pixel, counted from the grid's top edge.
    pub y_px: i64,
    /// Number of columns.
    pub width_px: u32,
    /// Number of rows.
    pub height_px: u32,
}

impl PixelWindow {
    /// A window from its first pixel and its size.
    pub const fn new(x_px: i64, y_px: i64, width_px: u32, height_px: u32) -> Self {
        Self { x_px, y_px, width_px, height_px }
    }

    /// The window that is a whole grid of this size.
    pub const fn of_grid(width_px: u32, height_px: u32) -> Self {
        Self::new(0, 0, width_px, height_px)
    }

    /// The first column that is no longer in the window.
    pub const fn right_px(&self) -> i64 {
        self.x_px.saturating_add(self.width_px as i64)
    }

    /// The first row that is no longer in the window.
    pub const fn bottom_px(&self) -> i64 {
        self.y_px.saturating_add(self.height_px as i64)
    }

    /// Whether the window has no pixel.
    pub const fn is_empty(&self) -> bool {
        self.width_px == 0 || self.height_px == 0
    }

    /// The number of pixels.
    pub const fn pixels(&self) -> u64 {
        self.width_px as u64 * self.height_px as u64
    }

    /// The pixels in both windows; `None` where there are none.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let (x_px, y_px) = (self.x_px.max(other.x_px), self.y_px.max(other.y_px));
        // No difference exceeds the smaller size of the two, so it fits; a negative one is no overlap.
        let width_px = u32::try_from(self.right_px().min(other.right_px()).checked_sub(x_px)?).ok()?;
        let height_px = u32::try_from(self.bottom_px().min(other.bottom_px()).checked_sub(y_px)?).ok()?;
        let intersection = Self { x_px, y_px, width_px, height_px };
        (!intersection.is_empty()).then_some(intersection)
    }

    /// Whether every pixel of `other` is in this window.
    pub fn contains(&self, other: &Self) -> bool {
        other.is_empty() || self.intersection(other) == Some(*other)
    }

    /// The same window, moved; `None` where its first pixel would leave the range of `i64`.
    pub fn translated(&self, columns: i64, rows: i64) -> Option<Self> {
        let (x_px, y_px) = (self.x_px.checked_add(columns)?, self.y_px.checked_add(rows)?);
        Some(Self { x_px, y_px, ..*self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_a_padded_window_to_the_grid() {
        let grid = PixelWindow::of_grid(1000, 700);
        let chip = PixelWindow::new(-64, 640, 256, 256);
        assert_eq!(grid.intersection(&chip), Some(PixelWindow::new(0, 640, 192, 60)));
        assert_eq!(chip.intersection(&grid), grid.intersection(&chip));
        assert!(!grid.contains(&chip) && grid.contains(&PixelWindow::new(744, 444, 256, 256)));
    }

    #[test]
    fn windows_that_only_touch_have_nothing_in_common() {
        let left = PixelWindow::of_grid(256, 256);
        assert_eq!(left.intersection(&PixelWindow::new(256, 0, 256, 256)), None);
        assert_eq!(left.intersection(&PixelWindow::new(3, 3, 0, 256)), None);
        assert!(left.contains(&PixelWindow::new(999, 999, 0, 5)), "nothing is within everything");
    }

    #[test]
    fn the_ends_of_the_numbers_do_not_overflow() {
        let last = PixelWindow::new(i64::MAX - 3, i64::MAX, u32::MAX, u32::MAX);
        let first = PixelWindow::new(i64::MIN, i64::MIN, u32::MAX, u32::MAX);
        assert_eq!(last.right_px(), i64::MAX);
        assert_eq!(last.intersection(&first), None);
        assert_eq!(first.intersection(&first), Some(first));
        assert_eq!(last.translated(9, 0), None);
        assert_eq!(last.pixels(), u64::from(u32::MAX) * u64::from(u32::MAX));
    }
}
