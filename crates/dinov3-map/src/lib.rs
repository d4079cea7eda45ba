//! A page that shows which places of a scene look alike.
//!
//! One HTML file with everything in it: the scene's picture, its features as colours, a slider between them, and the
//! vectors themselves, in 8 bits. Click a place, and those that are most alike light up. The page asks nobody for
//! anything: its own policy (`Content-Security-Policy`) forbids it to.
//!
//! What this room does: it arranges the places ([`MapCells`]), makes their vectors short ([`Quantised`]), measures what
//! that costs, and writes the page ([`MapPage`]). What it does not know: where scenes and vectors come from. The page's
//! own parts are in `page/`, as HTML, CSS and JavaScript.
//!
//! ```
//! use dinov3_geo::{AffineTransform, Crs, PixelWindow};
//! use dinov3_map::{Cell, MapCells, MapFacts, MapOptions, MapPage, Scene};
//! use dinov3_picture::RgbPicture;
//!
//! // Two places with vectors of three dimensions.
//! let cell = |x_px| Cell { id: format!("scene.tif#xywh={x_px},0,16,16"), window: PixelWindow::new(x_px, 0, 16, 16) };
//! let cells = MapCells::new(vec![cell(0), cell(16)], 3, vec![1.0, 0.0, 0.0, 0.8, 0.6, 0.0])?;
//! let scene = Scene {
//!     width_px: 32,
//!     height_px: 16,
//!     transform: AffineTransform::unrotated(500_000.0, 5_000_000.0, 10.0, -10.0),
//!     crs: Crs::from_epsg(32633)?,
//! };
//! let overview = RgbPicture::new(32, 16, vec![90; 3 * 32 * 16])?;
//! let facts = MapFacts { scene: "scene.tif".to_owned(), ..MapFacts::default() };
//! let page = MapPage::new(&cells, &scene, &overview, facts, &MapOptions::default())?;
//! assert!(page.html().starts_with("<!doctype html>"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod cells;
mod error;
mod page;
mod scene;
mod vectors;

pub use cells::{Cell, MapCells};
pub use error::MapError;
pub use page::{MapFacts, MapOptions, MapPage, Recall};
pub use scene::Scene;
pub use vectors::{Quantised, UnitVectors};
