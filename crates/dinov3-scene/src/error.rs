//! Why a scene cannot be used.

use dinov3_geo::GeoError;
use dinov3_raster::RasterError;
use dinov3_stac::StacError;

use crate::Preset;

/// Why a scene cannot be used. Its name is told without secrets.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SceneError {
    /// It cannot be opened or read.
    #[error(transparent)]
    Raster(#[from] RasterError),
    /// It is no scene.
    #[error("{scene}: {problem}")]
    Input {
        /// What was named.
        scene: String,
        /// Why it is none.
        problem: String,
    },
    /// A document of STAC items that cannot be read.
    #[error("{document} {source}")]
    Catalogue {
        /// Which document.
        document: String,
        /// Why.
        #[source]
        source: StacError,
    },
    /// A table of STAC items that cannot be read.
    #[error("{document} cannot be read as stac-geoparquet: {problem}")]
    Table {
        /// Which file.
        document: String,
        /// Why.
        problem: String,
    },
    /// Files of bands cannot be found.
    #[error("{problem}")]
    BandFiles {
        /// Why.
        problem: String,
    },
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
    /// It cannot be cut as it was asked for.
    #[error("{scene} {problem}")]
    Cut {
        /// Which scene.
        scene: String,
        /// Why, as the end of the sentence.
        problem: String,
    },
    /// The file with the area of interest cannot be used.
    #[error("{} {problem}", path.display())]
    Area {
        /// Which file.
        path: std::path::PathBuf,
        /// Why, as the end of the sentence.
        problem: String,
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
        "{scene} has {sample_type} samples, from {low} to {high} in its middle: {fits}say which values are black and \
         white, as --scale 'range {low},{high}'"
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
        /// The preset that fits, as the beginning of a sentence; empty if none does.
        fits: String,
    },
    /// How samples become reflectance is not known.
    #[error(
        "{scene} has {sample_type} samples and does not say how they become reflectance: a --preset does{fits}, and \
         --scale 'range LOW,HIGH' is of samples as they are"
    )]
    UnknownReflectance {
        /// Which scene.
        scene: String,
        /// numpy's name of their type.
        sample_type: &'static str,
        /// The preset that fits, in brackets; empty if none does.
        fits: String,
    },
    /// `--scale reflectance` of bands of which item or file say how samples become reflectance, and not of all of them.
    #[error(
        "{scene}: {source_of_it} does not say of each of the bands {bands} how samples become reflectance: a --preset does{fits}, \
         and --scale 'range LOW,HIGH' is of samples as they are"
    )]
    PartlyKnownReflectance {
        /// Which scene.
        scene: String,
        /// What says it of others.
        source_of_it: String,
        /// Red, green and blue, from 1.
        bands: String,
        /// The preset that fits, in brackets; empty if none does.
        fits: String,
    },
    /// Not the product that it was declared to be, or one of which too little is known.
    #[error("{scene}: --preset {preset}: {problem}")]
    Preset {
        /// Which scene.
        scene: String,
        /// As what it was declared.
        preset: Preset,
        /// What is wrong or missing, with what helps.
        problem: String,
    },
    /// Too many samples become negative by the offset.
    #[error(
        "{scene}: {percent} % of the valid pixels have a negative reflectance by {calibration} ({source_of_it}): the \
         offset was most likely added already, which --baseline harmonized declares"
    )]
    NegativeReflectance {
        /// Which scene.
        scene: String,
        /// How many of its valid pixels.
        percent: f64,
        /// How samples became reflectance.
        calibration: String,
        /// What said so.
        source_of_it: String,
    },
    /// A band of one value has no percentiles.
    #[error("{scene}: band {band} is {value} at both ends of {scale}: it has no contrast to stretch")]
    NoContrast {
        /// Which scene.
        scene: String,
        /// The band, counted from 1.
        band: usize,
        /// The scale that was asked for.
        scale: String,
        /// Both percentiles.
        value: f64,
    },
    /// The mask does not fit the scene.
    #[error("{scene}: its mask {mask} {problem}")]
    Mask {
        /// Which scene.
        scene: String,
        /// Which mask.
        mask: String,
        /// What is wrong, as the end of the sentence.
        problem: String,
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
