//! Why there is no page.

use dinov3_picture::PictureError;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// There is nothing to show.
    #[error("there are no vectors to make a map of")]
    NoCells,
    /// Places and vectors do not belong together.
    #[error("{cells} places of {dims} dimensions need {} numbers, there are {values}", cells.saturating_mul(*dims))]
    Count {
        /// Places given.
        cells: usize,
        /// Dimensions of a vector.
        dims: usize,
        /// Numbers given.
        values: usize,
    },
    /// A vector holds NaN or an infinity.
    #[error("the vector of {id} holds {value} in dimension {dimension}")]
    NotFinite {
        /// Whose vector.
        id: String,
        /// The first such value.
        value: f32,
        /// Where.
        dimension: usize,
    },
    /// A place that no page can count in 32 bits.
    #[error("{id} lies at {x_px}, {y_px}, beyond what a map can count")]
    Window {
        /// Which.
        id: String,
        /// First column.
        x_px: i64,
        /// First row.
        y_px: i64,
    },
    /// The page would be larger than it may.
    #[error(
        "a page of {cells} places in {dims} dimensions would have {}, more than the {} that it may: {}",
        megabytes(*page_bytes), megabytes(*limit_bytes), remedy(*fitting_dims, *page_bytes)
    )]
    TooLarge {
        /// Places.
        cells: usize,
        /// Dimensions of a vector in the page.
        dims: usize,
        /// What the page would have.
        page_bytes: u64,
        /// What it may have.
        limit_bytes: u64,
        /// The dimensions with which it would fit, if any sensible number does.
        fitting_dims: Option<usize>,
    },
    /// The pictures.
    #[error(transparent)]
    Picture(#[from] PictureError),
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// The option that helps.
fn remedy(fitting_dims: Option<usize>, page_bytes: u64) -> String {
    let larger = format!("--max-page {}MB", page_bytes.div_ceil(1_000_000));
    match fitting_dims {
        Some(dims) => format!("--dims {dims} makes it fit, or allow it with {larger}"),
        None => format!("allow it with {larger}, or map chips instead of patches, or larger ones"),
    }
}
