//! Products of bytes: the same bits on every instruction set, near the product in f64, and what disturbs them.

mod common;

use common::*;
use dinov3_kernels::selftest::{Apply, layer_norm_bytes, linear as linear_check, quantize};
use dinov3_kernels::{Bf16, Epilogue, Int8, Isa, Operand, layer_norm, linear};
use dinov3_system::threads::Pool;

/// `a × Wᵀ`, both quantised, without a bias.
fn product(isa: Isa, pool: &Pool, a: &[Bf16], w: &[f32], n: usize, k: usize) -> Vec<f32> {
    let packed = pack::<Int8>(isa, pool, w, n, k);
    let mut buffer = Vec::new();
    let rows = Int8::operands(pool, isa, a, k, &mut buffer);
    let m = rows.len() / Int8::row_length(k);
    let mut out = vec![-7.0_f32; m * n];
    let store = Epilogue::Store { bias: None };
    linear(pool, rows, m, Int8::row_length(k), &packed, store, &mut out, n);
    out
}

/// ‖out - a × Wᵀ‖ / ‖a × Wᵀ‖, row by row.
fn errors(out: &[f32], a: &[Bf16], w: &[f32], n: usize, k: usize) -> Vec<f64> {
    let rows = out.chunks_exact(n).zip(a.chunks_exact(k));
    let error = |(out, a): (&[f32], &[Bf16])| {
        let (mut difference, mut size) = (0.0, 0.0);
        for (got, w) in out.iter().zip(w.chunks_exact(k)) {
            let want: f64 = a.iter().zip(w).map(|(a, &w)| f64::from(a.to_f32()) * f64::from(w)).sum();
            difference += (f64::from(*got) - want).powi(2);
            size += want * want;
        }
        (difference / size).sqrt()
    };
    rows.map(error).collect()
}

#[test]
fn every_instruction_set_gives_the_bits_of_the_portable_twin() {
    for isa in instruction_sets() {
        for guard in GUARDS {
            for m in [1, 2, 5, 6, 7, 97] {
                for (n, k) in [(1, 1), (16, 2), (65, 3), (31, 147), (130, 33), (48, 64), (129, 516), (64, 1552)] {
                    linear_check::<Int8, f32>(&guard, isa, (m, n, k), Apply::Store).assert_passed();
                    quantize(&guard, isa, m, k).assert_passed();
                }
            }
        }
    }
}

#[test]
fn the_error_is_that_of_eight_bits() {
    // Uniform rounding over 255 steps of a range of 6 to 8 deviations leaves 0.9 % of a deviation, and the weights the same.
    let pool = Pool::new(2);
    for (m, n, k) in [(9, 70, 384), (3, 64, 1536), (4, 40, 1000), (5, 33, 77), (2, 64, 4096)] {
        let mut random = Random(k as u64);
        let a = to_elements::<Bf16>(&random.normals(m * k, 2.0));
        let w = random.normals(n * k, 0.1);
        let out = product(Isa::detect(), &pool, &a, &w, n, k);
        for error in errors(&out, &a, &w, n, k) {
            assert!(error < 0.02, "{m}x{n}x{k}: {error}");
        }
    }
}

#[test]
fn channels_far_above_the_rest_cost_little() {
    let pool = Pool::new(2);
    let (m, n, k) = (6, 96, 768);
    let mut random = Random(4);
    let mut a = random.normals(m * k, 1.0);
    let mut w = random.normals(n * k, 0.1);
    // One hot activation channel, and one hot weight channel that meets ordinary activations.
    a.iter_mut().skip(5).step_by(k).for_each(|a| *a = 30.0);
    w.iter_mut().skip(5).step_by(k).for_each(|w| *w *= 0.1);
    w.iter_mut().skip(400).step_by(k).for_each(|w| *w *= 16.0);
    let a = to_elements::<Bf16>(&a);
    let out = product(Isa::detect(), &pool, &a, &w, n, k);
    let worst = errors(&out, &a, &w, n, k).into_iter().fold(0.0, f64::max);
    assert!(worst < 0.04, "{worst}");
}

#[test]
fn one_sided_rows_use_the_whole_range() {
    // What leaves a GELU: hardly anything below zero. A range around zero would lose one of the eight bits.
    let pool = Pool::new(2);
    let (m, n, k) = (4, 64, 200);
    let mut random = Random(12);
    let positive: Vec<f32> = random.normals(m * k, 1.0).into_iter().map(|x| x.abs() - 0.1).collect();
    let a = to_elements::<Bf16>(&positive);
    let w = random.normals(n * k, 0.1);
    let out = product(Isa::detect(), &pool, &a, &w, n, k);
    assert!(errors(&out, &a, &w, n, k).into_iter().all(|error| error < 0.011));
}

#[test]
fn zeros_give_the_bias_and_constants_are_exact() {
    let pool = Pool::new(1);
    let (n, k) = (20, 32);
    for isa in instruction_sets() {
        let out = product(isa, &pool, &[Bf16::default(); 2 * 32], &vec![0.5; n * k], n, k);
        assert!(out.iter().all(|&x| x == 0.0), "{out:?}");
        let out = product(isa, &pool, &[Bf16::from_f32(1.0); 32], &vec![0.0; n * k], n, k);
        assert!(out.iter().all(|&x| x == 0.0), "{out:?}");
        let out = product(isa, &pool, &[Bf16::from_f32(3.0); 32], &vec![0.5; n * k], n, k);
        assert!(out.iter().all(|&x| (x - 48.0).abs() < 1e-4), "{out:?}");
        assert_eq!(product(isa, &pool, &[], &vec![0.5; n * k], n, k), []);
    }
}

#[test]
fn what_is_not_finite_stays_visible_and_in_its_row() {
    let pool = Pool::new(1);
    let (n, k) = (17, 40);
    let mut random = Random(2);
    let w = random.normals(n * k, 1.0);
    let clean = to_elements::<Bf16>(&random.normals(3 * k, 1.0));
    for isa in instruction_sets() {
        let expected = product(isa, &pool, &clean, &w, n, k);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for column in [0, 16, 39] {
                let mut a = clean.clone();
                a[k + column] = Bf16::from_f32(bad);
                let out = product(isa, &pool, &a, &w, n, k);
                assert!(out[n..2 * n].iter().all(|x| x.is_nan()), "{} {bad} at {column}", isa.name());
                assert!(out[..n] == expected[..n] && out[2 * n..] == expected[2 * n..]);
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_batch_threads_or_stride() {
    let mut random = Random(6);
    let (m, n, k) = (203, 200, 1300);
    let a = to_elements::<Bf16>(&random.normals(m * k, 1.0));
    let w = random.normals(n * k, 1.0);
    for isa in instruction_sets() {
        let whole = product(isa, &Pool::new(1), &a, &w, n, k);
        for threads in [2, 3] {
            assert!(product(isa, &Pool::new(threads), &a, &w, n, k) == whole, "{threads} threads");
        }
        let pool = Pool::new(2);
        for rows in [0..1, 5..6, 95..97, 202..203] {
            let part = product(isa, &pool, &a[rows.start * k..rows.end * k], &w, n, k);
            assert!(part == whole[rows.start * n..rows.end * n]);
        }
        // Rows apart from each other, and nothing after the last one.
        let packed = pack::<Int8>(isa, &pool, &w, n, k);
        let mut buffer = Vec::new();
        let (length, stride) = (Int8::row_length(k), Int8::row_length(k) + 5);
        let mut spread = vec![Int8::default(); 7 * stride];
        for (row, target) in
            Int8::operands(&pool, isa, &a, k, &mut buffer).chunks_exact(length).zip(spread.chunks_mut(stride))
        {
            target[..length].copy_from_slice(row);
        }
        spread.truncate(6 * stride + length);
        let mut out = vec![0.0_f32; 7 * n];
        linear(&pool, &spread, 7, stride, &packed, Epilogue::Store { bias: None }, &mut out, n);
        assert!(out == whole[..7 * n]);
    }
}

#[test]
fn a_norm_writes_rows_that_multiply_like_its_numbers() {
    let pool = Pool::new(3);
    for (rows, d, n) in [(5, 96, 48), (700, 64, 33), (3, 77, 20)] {
        let mut random = Random(d as u64);
        let x = random.normals(rows * d, 3.0);
        let (weight, bias) = (random.normals(d, 1.0), random.normals(d, 1.0));
        let w = random.normals(n * d, 0.2);
        for isa in instruction_sets() {
            for guard in GUARDS {
                layer_norm_bytes(&guard, isa, rows, d).assert_passed();
            }
            let mut normed = vec![0.0_f32; rows * d];
            layer_norm(&pool, isa, &x, rows, d, &weight, &bias, 1e-6, &mut normed);
            let mut quantized = vec![Int8::default(); rows * Int8::row_length(d)];
            layer_norm(&pool, isa, &x, rows, d, &weight, &bias, 1e-6, &mut quantized);
            let packed = pack::<Int8>(isa, &pool, &w, n, d);
            let mut out = vec![0.0_f32; rows * n];
            let store = Epilogue::Store { bias: None };
            linear(&pool, &quantized, rows, Int8::row_length(d), &packed, store, &mut out, n);
            // bf16 numbers serve the oracle: their own error is smaller than the one that is bounded.
            let worst = errors(&out, &to_elements(&normed), &w, n, d).into_iter().fold(0.0, f64::max);
            assert!(worst < 0.03, "{} {rows}x{d}: {worst}", isa.name());
        }
    }
}

#[test]
#[should_panic(expected = "rows of a")]
fn rows_without_their_scales_are_refused() {
    let pool = Pool::new(1);
    let packed = pack::<Int8>(Isa::SCALAR, &pool, &[1.0; 8], 1, 8);
    linear(&pool, &[Int8::default(); 8], 1, 8, &packed, Epilogue::Store { bias: None }, &mut [0.0_f32], 1);
}
