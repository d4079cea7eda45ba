//! LayerNorm, activations, conversion, the depthwise convolution and the reductions, on every instruction set.

mod common;

use common::*;
use dinov3_kernels::selftest::{convert, depthwise, gelu_and_silu, layer_norm as layer_norm_check};
use dinov3_kernels::{Bf16, Element, Isa, gelu as gelu_slice, layer_norm, max_rows, mean_rows, silu as silu_slice};
use dinov3_system::threads::Pool;

fn norm_case<O: Element>(isa: Isa, rows: usize, d: usize, mean: f32, deviation: f32) {
    for guard in GUARDS {
        layer_norm_check::<O>(&guard, isa, rows, d, mean, deviation).assert_passed();
    }
}

#[test]
fn layer_norm_rows() {
    for isa in Isa::all_supported() {
        for d in [1, 2, 3, 15, 16, 17, 31, 32, 33, 96, 384, 1023, 1024, 4096] {
            norm_case::<f32>(isa, 3, d, 0.0, 1.0);
            norm_case::<Bf16>(isa, 3, d, 0.0, 1.0);
        }
        for d in [64, 384, 1001, 4096] {
            norm_case::<f32>(isa, 5, d, 100.0, 0.1);
            norm_case::<f32>(isa, 5, d, -3000.0, 0.5);
        }
        norm_case::<f32>(isa, 1000, 37, 1.0, 1.0);
        norm_case::<f32>(isa, 0, 37, 1.0, 1.0);
    }
}

#[test]
fn a_constant_row_becomes_the_bias() {
    let pool = Pool::new(1);
    for isa in Isa::all_supported() {
        let mut out = [0.0_f32; 40];
        layer_norm(&pool, isa, &[0.1; 40], 1, 40, &[2.0; 40], &[0.5; 40], 1e-6, &mut out);
        assert!(out.iter().all(|x| (x - 0.5).abs() < 1e-6), "{out:?}");
    }
}

#[test]
fn layer_norm_bits_do_not_depend_on_batch_or_threads() {
    let mut random = Random(3);
    let (rows, d) = (200, 193);
    let x = random.normals(rows * d, 1.0);
    let (weight, bias) = (random.normals(d, 1.0), random.normals(d, 1.0));
    for isa in Isa::all_supported() {
        let run = |threads, rows: std::ops::Range<usize>| {
            let mut out = vec![0.0_f32; rows.len() * d];
            let x = &x[rows.start * d..rows.end * d];
            let pool = Pool::new(threads);
            layer_norm(&pool, isa, x, rows.len(), d, &weight, &bias, 1e-6, &mut out);
            bits(&out)
        };
        let whole = run(1, 0..rows);
        assert!(run(2, 0..rows) == whole && run(3, 0..rows) == whole);
        assert!(run(2, 150..151) == whole[150 * d..151 * d]);
    }
}

#[test]
fn activations() {
    let special = [0.0, -0.0, 1e-30, -1e-30, 50.0, -50.0, 1e4, -1e4, 3e38, -3e38];
    for isa in Isa::all_supported() {
        for guard in GUARDS {
            gelu_and_silu(&guard, isa, &[-12.0, 12.0], 120_000).assert_passed();
            for value in special {
                gelu_and_silu(&guard, isa, &[value, value], 1).assert_passed();
            }
            for length in 0..40 {
                gelu_and_silu(&guard, isa, &[-4.0, 4.0], length).assert_passed();
            }
        }
        for function in [gelu_slice, silu_slice] {
            let mut values = [f32::INFINITY, f32::NAN, f32::NAN];
            function(isa, &mut values);
            assert!(values[0] == f32::INFINITY && values[1].is_nan() && values[2].is_nan());
            let mut random = Random(11);
            let values = random.normals(40, 3.0);
            let apply = |values: &[f32]| {
                let mut values = values.to_vec();
                function(isa, &mut values);
                bits(&values)
            };
            for length in 0..40 {
                assert!(apply(&values[..length]) == apply(&values)[..length]);
            }
        }
    }
}

#[test]
fn conversion_has_the_bits_of_single_numbers() {
    for isa in Isa::all_supported() {
        for guard in GUARDS {
            for length in [0, 1, 15, 16, 17, 40_005] {
                convert::<f32>(&guard, isa, length).assert_passed();
                convert::<Bf16>(&guard, isa, length).assert_passed();
            }
        }
    }
}

#[test]
fn depthwise_shapes() {
    for isa in Isa::all_supported() {
        // Blocks of eight or four pixels: inside, at one end of a row, at both, moved inwards, and too near to an end.
        for (images, h, w, c) in [
            (1, 1, 1, 16),
            (2, 2, 3, 5),
            (1, 7, 8, 17),
            (2, 8, 7, 32),
            (1, 4, 8, 32),
            (1, 5, 9, 33),
            (1, 2, 10, 16),
            (1, 4, 12, 16),
            (1, 3, 16, 96),
            (1, 9, 23, 48),
            (2, 3, 28, 16),
        ] {
            for guard in GUARDS {
                depthwise::<f32>(&guard, isa, images, h, w, c).assert_passed();
                depthwise::<Bf16>(&guard, isa, images, h, w, c).assert_passed();
            }
        }
    }
}

#[test]
fn reductions() {
    let (rows, d) = (1000, 131);
    let mut random = Random(9);
    let mut x = random.normals(rows * d, 1.0);
    // A column of large numbers that differ in their last digits.
    x.iter_mut().skip(7).step_by(d).for_each(|x| *x += 1000.0);
    let mut mean = vec![0.0; d];
    mean_rows(&x, rows, d, &mut mean);
    let mut largest = vec![0.0; d];
    max_rows(&x, rows, d, &mut largest);
    for column in 0..d {
        let values = x.iter().skip(column).step_by(d);
        let want = values.clone().map(|&x| f64::from(x)).sum::<f64>() / rows as f64;
        assert!((f64::from(mean[column]) - want).abs() <= EPS * want.abs() + 1e-15);
        assert_eq!(largest[column], values.copied().fold(f32::NEG_INFINITY, f32::max));
    }
    x[500 * d + 3] = f32::NAN;
    max_rows(&x, rows, d, &mut largest);
    assert!(largest[3].is_nan() && !largest[4].is_nan());
    max_rows(&[], 0, 2, &mut largest[..2]);
    assert_eq!(largest[..2], [f32::NEG_INFINITY; 2]);
}
