//! The file of a PCA basis.

use dinov3_picture::{BasisOrigin, PcaBasis};

use super::{has_a_reason, safetensors_file};
use crate::Target;

const ORIGIN: BasisOrigin<'_> = BasisOrigin { model: "m", weights: "w", tap: "t" };

/// A saved basis, for a model, weights and a tap of one letter.
pub(super) const BASIS: Target = Target {
    name: "pca_basis",
    run: |bytes| match PcaBasis::from_safetensors(bytes, &ORIGIN) {
        Ok(basis) => {
            let channels = basis.pca.mean.len();
            assert!(channels > 0 && basis.pca.components.len() == 3 * channels);
            let values = basis.pca.mean.iter().chain(&basis.pca.components).chain(&basis.low).chain(&basis.high);
            assert!(values.clone().all(|value| value.is_finite()));
            // What was read can be written and read again.
            let written = basis.to_safetensors(&ORIGIN);
            assert_eq!(PcaBasis::from_safetensors(&written, &ORIGIN).ok(), Some(basis));
        }
        Err(error) => has_a_reason(&error),
    },
    seeds: || {
        let header = r#"{"__metadata__":{"kind":"dinov3-pca-basis-1","model":"m","tap":"t","weights":"w"},"components":{"dtype":"F32","shape":[3,1],"data_offsets":[4,16]},"mean":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"range":{"dtype":"F32","shape":[2,3],"data_offsets":[16,40]}}"#;
        vec![
            safetensors_file(header, 40),
            safetensors_file(&header.replace("\"tap\":\"t\"", "\"tap\":\"other\""), 40),
            safetensors_file(&header.replace("\"mean\"", "\"means\""), 40),
        ]
    },
    longest_bytes: 4096,
    words: &[
        b"\"__metadata__\":{",
        b"\"kind\":\"dinov3-pca-basis-1\"",
        b"\"model\":\"m\"",
        b"\"tap\":\"t\"",
        b"\"mean\":",
        b"\"components\":",
        b"\"range\":",
        b"\"dtype\":\"F32\"",
        b"\"shape\":[3,0]",
        b"\"shape\":[",
        b"\"data_offsets\":[",
    ],
};
