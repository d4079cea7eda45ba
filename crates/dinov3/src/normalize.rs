//! Embeddings of length one.

use dinov3_model::encoder::{EncodeError, Encoder, Features, ImageBatch, Pooling, Request};
use dinov3_model::spec::ModelSpec;

/// An encoder whose embeddings have Euclidean length one. Tokens, maps and class scores stay as they are.
pub struct Normalized<E>(pub E);

impl<E: Encoder> Encoder for Normalized<E> {
    fn spec(&self) -> &ModelSpec {
        self.0.spec()
    }

    fn encode(
        &mut self,
        batch: &ImageBatch<'_>,
        request: &Request,
        features: &mut Features,
    ) -> Result<(), EncodeError> {
        self.0.encode(batch, request, features)?;
        for (pooling, array) in &mut features.pooled {
            if *pooling != Pooling::None {
                let width = array.shape[1];
                array.data.chunks_exact_mut(width).for_each(normalize);
            }
        }
        Ok(())
    }
}

/// Divides by the length; a zero vector stays zero, as in torch's `normalize` with its default epsilon.
fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt().max(1e-12);
    vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
}

#[cfg(test)]
mod tests {
    #[test]
    fn lengths_become_one_and_zero_stays_zero() {
        let mut vector = [3.0, 4.0];
        super::normalize(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
        let mut zero = [0.0; 2];
        super::normalize(&mut zero);
        assert_eq!(zero, [0.0; 2]);
    }
}
