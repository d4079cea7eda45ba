//! What can go wrong with coordinates.

use crate::AffineTransform;

/// Why a geometry could not be computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GeoError {
    /// The pixels of the grid have no area, or their place is not a number.
    #[error("the transform {transform:?} does not map pixels to an area: the georeference is broken")]
    SingularTransform {
        /// The transform.
        transform: AffineTransform,
    },
}
