//! Why a scene cannot be used.

use dinov3_geo::GeoError;
use dinov3_raster::RasterError;

/// Why a scene cannot be used. Its name is told without secrets.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SceneError {
    /// It cannot be opened or read.
    #[error(transparent)]
    Raster(#[from] RasterError),
    /// It does not say where it lies.
    #[error("{scene} {problem}")]
    Georeference {
        /// Which scene.
        scene: String,
        /// What is missing, as the end of the sentence, with what helps.
        problem: String,
    },
    /// Its reference system cannot be used.
    #[error("{scene}: {source}")]
    Coordinates {
        /// Which scene.
        scene: String,
        /// Why.
        #[source]
        source: GeoError,
    },
    /// A band that it does not have.
    #[error("{scene} has {found} bands, and no band {band}: bands are counted from 1")]
    NoSuchBand {
        /// Which scene.
        scene: String,
        /// The band, counted from 1.
        band: usize,
        /// How many there are.
        found: usize,
    },
    /// Which bands are red, green and blue is not known.
    #[error(
        "{scene} has {found} bands and does not say which are red, green and blue: name them with --bands, as 3,2,1"
    )]
    UnknownBands {
        /// Which scene.
        scene: String,
        /// How many there are.
        found: usize,
    },
    /// What the samples mean is not known.
    #[error(
        "{scene} has {sample_type} samples, from {low} to {high} in its middle: say which values are black and white, as \
         --scale 'range {low},{high}'"
    )]
    UnknownScale {
        /// Which scene.
        scene: String,
        /// numpy's name of their type.
        sample_type: &'static str,
        /// The lowest that was seen.
        low: f64,
        /// The highest that was seen.
        high: f64,
    },
    /// The scale does not fit the samples.
    #[error("{scene} has {sample_type} samples, which --scale u8 does not fit: use --scale 'range LOW,HIGH'")]
    WrongScale {
        /// Which scene.
        scene: String,
        /// numpy's name of their type.
        sample_type: &'static str,
    },
    /// No picture of it can be made.
    #[error("{scene}: no picture can be made of it: {problem}")]
    Picture {
        /// Which scene.
        scene: String,
        /// Why.
        problem: String,
    },
}
