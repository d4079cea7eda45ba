//! A linear classifier that is no part of a model.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use dinov3_kernels::{Isa, PackedMatrix};
use dinov3_model::array::Array;
use dinov3_system::threads::Pool;

use crate::load::Linear;
use crate::output::classify;

/// Why a head cannot be made or used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinearHeadError {
    /// The values do not fill the announced shape.
    #[error("a head of {classes} classes over {inputs} features does not have {weights} weights and {biases} biases")]
    Shape {
        /// Classes announced.
        classes: usize,
        /// Features announced.
        inputs: usize,
        /// Weights given.
        weights: usize,
        /// Biases given.
        biases: usize,
    },
    /// A weight or bias is NaN or infinite.
    #[error("the {part} holds a value that is not finite, at element {element}")]
    NotFinite {
        /// `weight` or `bias`.
        part: &'static str,
        /// Row-major index.
        element: usize,
    },
    /// Vectors of another length.
    #[error("{found} values are not vectors of {inputs} features")]
    Vectors {
        /// Features of the head.
        inputs: usize,
        /// Values given.
        found: usize,
    },
}

/// `logits = vectors × Wᵀ + bias` in f32, for linear probes and heads that are stored apart from their model.
///
/// Immutable and cheap to clone. The bits of a row depend on that row and the weights alone.
#[derive(Clone)]
pub struct LinearHead(Arc<Linear<f32>>);

impl LinearHead {
    /// Packs `weight` [classes, inputs], row-major as torch's `nn.Linear` has it, and `bias`, one value per class.
    ///
    /// # Errors
    /// If a length is not what the shape says, an extent is zero, or a value is not finite.
    pub fn new(
        isa: Isa,
        (classes, inputs): (usize, usize),
        weight: &[f32],
        bias: &[f32],
    ) -> Result<Self, LinearHeadError> {
        if weight.is_empty() || classes.checked_mul(inputs) != Some(weight.len()) || bias.len() != classes {
            let (weights, biases) = (weight.len(), bias.len());
            return Err(LinearHeadError::Shape { classes, inputs, weights, biases });
        }
        for (part, values) in [("weight", weight), ("bias", bias)] {
            if let Some(element) = values.iter().position(|value| !value.is_finite()) {
                return Err(LinearHeadError::NotFinite { part, element });
            }
        }
        let rows = |row: usize, out: &mut [f32]| {
            out.copy_from_slice(&weight[row * inputs..][..out.len()]);
            Ok::<(), Infallible>(())
        };
        let Ok(matrix) = PackedMatrix::pack(isa, &Pool::new(1), classes, inputs, &rows);
        Ok(Self(Arc::new(Linear { matrix, bias: bias.to_vec().into() })))
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.0.matrix.n()
    }

    /// Features that a vector must have.
    pub fn inputs(&self) -> usize {
        self.0.matrix.k()
    }

    /// Class scores [N, classes] of `vectors` [N, inputs], into `logits`, whose allocation is kept.
    ///
    /// On the caller's thread: even the largest head is a thousandth of the pass that made its input.
    ///
    /// # Errors
    /// If `vectors` are no whole number of vectors.
    pub fn logits(&self, vectors: &[f32], logits: &mut Array) -> Result<(), LinearHeadError> {
        let inputs = self.inputs();
        if !vectors.len().is_multiple_of(inputs) {
            return Err(LinearHeadError::Vectors { inputs, found: vectors.len() });
        }
        logits.reshape(&[vectors.len() / inputs, self.classes()]);
        classify(&Pool::new(1), &self.0, vectors, &mut logits.data);
        Ok(())
    }
}

impl fmt::Debug for LinearHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinearHead").field("classes", &self.classes()).field("inputs", &self.inputs()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(classes: usize, inputs: usize, weight: &[f32], bias: &[f32]) -> Result<LinearHead, LinearHeadError> {
        LinearHead::new(Isa::detect(), (classes, inputs), weight, bias)
    }

    #[test]
    fn logits_are_products_with_the_rows_and_the_bias() {
        let head = head(2, 3, &[1.0, 0.0, 0.0, 0.0, 1.0, 1.0], &[10.0, 20.0]).unwrap();
        let mut logits = Array::default();
        head.logits(&[1.0, 2.0, 3.0, 0.5, 0.0, -1.0], &mut logits).unwrap();
        assert_eq!(logits, Array { shape: vec![2, 2], data: vec![11.0, 25.0, 10.5, 19.0] });
        head.logits(&[], &mut logits).unwrap();
        assert_eq!(logits.shape, [0, 2]);
        assert_eq!(head.logits(&[1.0; 4], &mut logits), Err(LinearHeadError::Vectors { inputs: 3, found: 4 }));
    }

    #[test]
    fn lengths_that_lie_and_values_that_are_no_numbers_are_refused() {
        let shape = |classes, inputs, weights: usize, biases: usize| {
            matches!(head(classes, inputs, &vec![0.0; weights], &vec![0.0; biases]), Err(LinearHeadError::Shape { .. }))
        };
        assert!(shape(0, 0, 0, 0) && shape(2, 0, 0, 2) && shape(0, 2, 0, 0));
        assert!(shape(2, 3, 5, 2) && shape(2, 3, 6, 3) && shape(2, 3, 6, 0));
        assert!(shape(usize::MAX, usize::MAX, 1, 1) && shape(1 << 63, 2, 0, 1));
        assert_eq!(
            head(1, 2, &[0.0, f32::NAN], &[0.0]).err(),
            Some(LinearHeadError::NotFinite { part: "weight", element: 1 })
        );
        assert_eq!(
            head(1, 1, &[0.0], &[f32::INFINITY]).err(),
            Some(LinearHeadError::NotFinite { part: "bias", element: 0 })
        );
    }
}
