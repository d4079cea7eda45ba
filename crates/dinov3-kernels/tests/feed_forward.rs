//! The feed-forward network against its two products, on every instruction set of this CPU.

mod common;

use common::*;
use dinov3_kernels::{
    Bf16, Element, Epilogue, FeedForwardScratch, Int8, Isa, Operand, PackedMatrix, feed_forward, layer_norm, linear,
};
use dinov3_system::threads::Pool;

fn pack<E: Operand>(isa: Isa, pool: &Pool, w: &[f32], n: usize, k: usize) -> PackedMatrix<E> {
    let rows = |start: usize, rows: &mut [f32]| {
        rows.copy_from_slice(&w[start * k..start * k + rows.len()]);
        Ok::<(), ()>(())
    };
    PackedMatrix::pack(isa, pool, n, k, &rows).unwrap()
}

/// Few rows per thread go through one product after the other, many through both at once: the same bits either way.
fn equals_two_products<E: Operand>(isa: Isa) {
    let mut random = Random(9);
    let (m, k, hidden) = (390, 20, 70);
    let pool = Pool::new(1);
    let (x, ones) = (random.normals(m * k, 1.0), vec![1.0; k]);
    let mut a = vec![E::default(); m * E::row_length(k)];
    layer_norm(&pool, isa, &x, m, k, &ones, &ones, 1e-6, &mut a);
    let first = pack::<E>(isa, &pool, &random.normals(hidden * k, 0.3), hidden, k);
    let second = pack::<E>(isa, &pool, &random.normals(k * hidden, 0.3), k, hidden);
    let (bias, gamma) = (random.normals(hidden, 1.0), random.normals(k, 1.0));
    let activation = Epilogue::Gelu { bias: &bias };
    let residual = Epilogue::Residual { bias: None, gamma: &gamma };

    let (mut want, mut quantized) = (x.clone(), Vec::new());
    let mut between = vec![E::Element::from_f32(0.0); m * hidden];
    linear(&pool, &a, m, E::row_length(k), &first, activation, &mut between, hidden);
    let operands = E::operands(&pool, isa, &between, hidden, &mut quantized);
    linear(&pool, operands, m, E::row_length(hidden), &second, residual, &mut want, k);

    for threads in [1, 4] {
        let pool = Pool::new(threads);
        let mut scratch = FeedForwardScratch::default();
        // The second time in used buffers: nothing of the first may shine through.
        for _ in 0..2 {
            let mut got = x.clone();
            feed_forward(&pool, &a, m, &first, activation, &second, residual, &mut scratch, &mut got);
            assert!(bits(&got) == bits(&want), "{} {}, {threads} threads", isa.name(), E::NAME);
        }
    }
}

#[test]
fn both_ways_give_the_bits_of_two_products() {
    for isa in Isa::all_supported() {
        equals_two_products::<f32>(isa);
        equals_two_products::<Bf16>(isa);
        equals_two_products::<Int8>(isa);
    }
}

#[test]
#[should_panic(expected = "hidden numbers")]
fn products_that_do_not_fit_are_refused() {
    let (pool, isa) = (Pool::new(1), Isa::detect());
    let (first, second) = (pack::<f32>(isa, &pool, &[1.0; 6], 2, 3), pack::<f32>(isa, &pool, &[1.0; 9], 3, 3));
    let store = Epilogue::Store { bias: None };
    feed_forward(&pool, &[1.0; 3], 1, &first, store, &second, store, &mut FeedForwardScratch::default(), &mut [0.0; 3]);
}
