//! The sample pictures: painted by a program, because they are to be ours to give away.
//!
//! The painters use no photograph and no random number of the day: the same pixels on every machine. The bytes of the
//! files depend on the compressor's version too; therefore pixels are compared, not bytes, and a file that holds
//! the right pixels is left alone.

pub mod aerial;
pub mod canvas;
mod fields;
mod harbour;
mod palette;
mod table;
mod valley;

use std::path::Path;

use anyhow::{Context, Result, bail};
use dinov3_picture::RgbPicture;

use crate::png_file;

/// Where the samples live. From the manifest's folder, so that it works wherever cargo is called.
pub const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples");

type Painter = fn() -> RgbPicture;

const SCENES: [(&str, Painter); 4] = [
    ("aerial-fields.png", fields::paint),
    ("aerial-harbour.png", harbour::paint),
    ("table.png", table::paint),
    ("valley.png", valley::paint),
];

/// As many as keep every file below the limit that the test below sets; more are hardly seen.
const COLOURS: usize = 256;

/// Draws every sample into a folder.
pub fn draw(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for (name, paint) in SCENES {
        let path = folder.join(name);
        let picture = palette::reduce(&paint(), COLOURS);
        if png_file::read(&path).is_ok_and(|present| present == picture) {
            println!("{name}: unchanged");
            continue;
        }
        png_file::write(&path, &picture)?;
        println!("{name}: drawn, {} × {}", picture.width_px(), picture.height_px());
    }
    Ok(())
}

/// Compares the files of a folder with what would be drawn.
pub fn check(folder: &Path) -> Result<()> {
    for (name, paint) in SCENES {
        if png_file::read(&folder.join(name))? != palette::reduce(&paint(), COLOURS) {
            bail!("{name} is not what cargo xtask draw-samples draws");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_what_the_program_draws() {
        check(Path::new(FOLDER)).unwrap();
    }

    #[test]
    fn samples_are_small() {
        for (name, _) in SCENES {
            let bytes = Path::new(FOLDER).join(name).metadata().unwrap().len();
            assert!(bytes < 150_000, "{name}: {bytes} bytes");
        }
    }
}
