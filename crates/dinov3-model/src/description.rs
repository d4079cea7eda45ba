//! A model as JSON of our own: everything that a [`ModelSpec`] says, where a `config.json` leaves much to tables.
//!
//! ```
//! use dinov3_model::{description, spec};
//! let spec = spec::find("vit_small_patch16_dinov3")?;
//! assert_eq!(description::parse(&description::describe(&spec))?, spec);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use serde_json::Value;

use crate::config_json::{ConfigError, validate};
use crate::spec::ModelSpec;

/// The model in JSON.
pub fn describe(spec: &ModelSpec) -> Value {
    // Structures of numbers and texts; no map has keys that are no texts.
    serde_json::to_value(spec).unwrap_or_default()
}

/// The model of a description, with the limits of a `config.json`.
///
/// # Errors
/// If it is none, or describes what cannot be.
pub fn parse(description: &Value) -> Result<ModelSpec, ConfigError> {
    let spec: ModelSpec = serde::Deserialize::deserialize(description)
        .map_err(|error: serde_json::Error| ConfigError::NotJson { reason: error.to_string() })?;
    validate(&spec)?;
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec;

    #[test]
    fn every_model_comes_back_from_its_text() {
        for spec in spec::all() {
            let text = describe(&spec.clone().with_num_classes(5)).to_string();
            let again = parse(&serde_json::from_str(&text).unwrap()).unwrap();
            assert_eq!(again, spec.with_num_classes(5));
        }
    }

    #[test]
    fn impossible_models_are_refused() {
        let good = describe(&spec::find("vit_small_patch16_dinov3").unwrap());
        for (field, value, reason) in [
            ("heads", Value::from(7), "num_heads"),
            ("depth", Value::from(1_u64 << 40), "depth"),
            ("embed_dim", Value::from(-1), "invalid value"),
            ("mlp", Value::from("other"), "unknown variant"),
            ("other", Value::from(1), "unknown field"),
        ] {
            let mut bad = good.clone();
            bad["architecture"]["vit"][field] = value;
            let error = parse(&bad).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert!(parse(&Value::Null).is_err());
    }
}
