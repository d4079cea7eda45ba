//! Matrix products against a product in f64, on every instruction set of this CPU.

mod common;

use common::*;
use dinov3_kernels::{Bf16, Element, Epilogue, Isa, PackedMatrix, linear};
use dinov3_system::threads::Pool;

/// Sums in f64 and the sums of absolute products, which scale the rounding error.
fn product(a: &[f32], m: usize, w: &[f32], n: usize, k: usize) -> (Vec<f64>, Vec<f64>) {
    let mut sums = vec![0.0; m * n];
    let mut sizes = vec![0.0; m * n];
    for row in 0..m {
        for column in 0..n {
            for index in 0..k {
                let term = f64::from(a[row * k + index]) * f64::from(w[column * k + index]);
                sums[row * n + column] += term;
                sizes[row * n + column] += term.abs();
            }
        }
    }
    (sums, sizes)
}

/// Rounding errors of a sum in blocks of 512 grow like the square root of the number of additions; 4 deviations.
fn bound(size: f64, k: usize) -> f64 {
    size * EPS * (4.0 * (k.min(1024) as f64).sqrt() + 4.0)
}

fn rounded<E: Element>(values: Vec<f32>) -> Vec<f32> {
    values.into_iter().map(|value| E::from_f32(value).to_f32()).collect()
}

fn plain<E: Element>(isa: Isa, m: usize, n: usize, k: usize) {
    let mut random = Random((m * 1000 + n * 100 + k) as u64);
    let pool = Pool::new(2);
    let a = rounded::<E>(random.normals(m * k, 1.0));
    let w = rounded::<E>(random.normals(n * k, 1.0));
    let packed = pack::<E>(isa, &pool, &w, n, k);
    assert_eq!((packed.n(), packed.k()), (n, k));
    assert!(packed.bytes() >= n * k * size_of::<E>());
    let (sums, sizes) = product(&a, m, &w, n, k);
    // Rows apart from each other; what lies between must stay.
    let (a_stride, out_stride) = (k + 3, n + 2);
    let mut spread = vec![E::from_f32(f32::NAN); m * a_stride];
    for row in 0..m {
        spread[row * a_stride..][..k].copy_from_slice(&to_elements(&a[row * k..(row + 1) * k]));
    }
    // Nothing after the last row: reading past its end would leave the slice.
    spread.truncate((m - 1) * a_stride + k);
    let mut out = vec![-7.0_f32; m * out_stride];
    let store = Epilogue::Store { bias: None };
    linear(&pool, &spread, m, a_stride, &packed, store, &mut out, out_stride);
    for row in 0..m {
        for column in 0..n {
            let (want, size) = (sums[row * n + column], sizes[row * n + column]);
            let got = f64::from(out[row * out_stride + column]);
            assert!(
                (got - want).abs() <= bound(size, k),
                "{} {} {m}x{n}x{k} at {row},{column}: {got} for {want}",
                isa.name(),
                E::NAME
            );
        }
        assert_eq!(out[row * out_stride + n..(row + 1) * out_stride], [-7.0; 2]);
    }
}

#[test]
fn odd_shapes() {
    for isa in Isa::all_supported() {
        for m in [1, 2, 3, 4, 5, 6, 7, 13, 97] {
            for (n, k) in [(1, 1), (16, 2), (65, 3), (31, 147), (130, 33)] {
                plain::<f32>(isa, m, n, k);
                plain::<Bf16>(isa, m, n, k);
            }
        }
        for n in [2, 15, 17, 32, 33, 47, 48, 49, 63, 64, 96, 127, 128, 129] {
            plain::<f32>(isa, 7, n, 5);
            plain::<Bf16>(isa, 7, n, 5);
        }
        for k in [511, 512, 513, 1023, 1024, 1025, 2049, 4096] {
            plain::<f32>(isa, 7, 65, k);
            plain::<Bf16>(isa, 7, 65, k);
        }
    }
}

#[test]
fn empty_matrices() {
    let pool = Pool::new(2);
    for isa in Isa::all_supported() {
        let packed = pack::<f32>(isa, &pool, &[], 2, 0);
        let bias = [3.0, 4.0];
        let mut out = [0.0_f32; 4];
        let store = Epilogue::Store { bias: Some(&bias) };
        linear(&pool, &[], 2, 0, &packed, store, &mut out, 2);
        assert_eq!(out, [3.0, 4.0, 3.0, 4.0]);
        linear(&pool, &[], 0, 0, &packed, store, &mut out, 2);
        let none = pack::<Bf16>(isa, &pool, &[], 0, 5);
        let store = Epilogue::Store { bias: None };
        linear(&pool, &[Bf16::default(); 5], 1, 5, &none, store, &mut out[..0], 0);
    }
}

fn epilogues<E: Element, O: Element>(isa: Isa) {
    let mut random = Random(5);
    let pool = Pool::new(3);
    let (m, n, k) = (14, 160, 50);
    let a = rounded::<E>(random.normals(m * k, 1.0));
    let w = rounded::<E>(random.normals(n * k, 0.3));
    let bias = random.normals(n, 1.0);
    let gamma = random.normals(n, 1.0);
    let packed = pack::<E>(isa, &pool, &w, n, k);
    let elements = to_elements::<E>(&a);
    let (sums, sizes) = product(&a, m, &w, n, k);
    let biased = |row: usize, column: usize| sums[row * n + column] + f64::from(bias[column]);
    // The sum's error, the activation's own, and the rounding of the result.
    let near = |got: O, want: f64, error: f64| {
        let got = f64::from(got.to_f32());
        let bound = error * 1.2 + 3e-7 * (1.0 + want.abs()) + unit::<O>() * want.abs();
        assert!((got - want).abs() <= bound, "{}: {got} for {want}", isa.name());
    };
    let run = |epilogue: Epilogue<'_>, width: usize| {
        let mut out = vec![O::default(); m * width];
        linear(&pool, &elements, m, k, &packed, epilogue, &mut out, width);
        out
    };

    let stored = run(Epilogue::Store { bias: Some(&bias) }, n);
    let gelus = run(Epilogue::Gelu { bias: &bias }, n);
    let gated = run(Epilogue::SwiGlu { bias: &bias }, n / 2);
    for row in 0..m {
        for column in 0..n {
            let error = bound(sizes[row * n + column], k);
            near(stored[row * n + column], biased(row, column), error);
            near(gelus[row * n + column], gelu(biased(row, column)), error);
        }
        for column in 0..n / 2 {
            let gate = column / 16 * 32 + column % 16;
            let (g, v) = (biased(row, gate), biased(row, gate + 16));
            let error = bound(sizes[row * n + gate], k) * (1.0 + v.abs())
                + bound(sizes[row * n + gate + 16], k) * (1.0 + g.abs());
            near(gated[row * n / 2 + column], silu(g) * v, error);
        }
    }

    let before = random.normals(m * n, 1.0);
    for (bias, with_bias) in [(Some(&bias[..]), 1.0), (None, 0.0)] {
        let mut out = before.clone();
        let residual = Epilogue::Residual { bias, gamma: &gamma };
        linear(&pool, &elements, m, k, &packed, residual, &mut out, n);
        for row in 0..m {
            for column in 0..n {
                let at = row * n + column;
                let sum = sums[at] + with_bias * bias.map_or(0.0, |bias| f64::from(bias[column]));
                let want = f64::from(before[at]) + f64::from(gamma[column]) * sum;
                let error = (bound(sizes[at], k) + 4.0 * EPS * sum.abs()) * f64::from(gamma[column]).abs()
                    + 2.0 * EPS * want.abs();
                assert!((f64::from(out[at]) - want).abs() <= error);
            }
        }
    }
}

#[test]
fn every_epilogue() {
    for isa in Isa::all_supported() {
        epilogues::<f32, f32>(isa);
        epilogues::<f32, Bf16>(isa);
        epilogues::<Bf16, f32>(isa);
        epilogues::<Bf16, Bf16>(isa);
    }
}

/// The same bits for a row alone and in a batch, and for any number of threads.
fn same_bits<E: Element>(isa: Isa) {
    let mut random = Random(6);
    let (m, n, k) = (203, 200, 1300);
    let a = to_elements::<E>(&random.normals(m * k, 1.0));
    let w = random.normals(n * k, 1.0);
    let bias = random.normals(n, 1.0);
    let run = |threads: usize, rows: std::ops::Range<usize>| {
        let pool = Pool::new(threads);
        let packed = pack::<E>(isa, &pool, &w, n, k);
        let mut out = vec![0.0_f32; rows.len() * n];
        let epilogue = Epilogue::Gelu { bias: &bias };
        let a = &a[rows.start * k..rows.end * k];
        linear(&pool, a, rows.len(), k, &packed, epilogue, &mut out, n);
        bits(&out)
    };
    let whole = run(1, 0..m);
    for threads in [2, 3] {
        assert!(run(threads, 0..m) == whole, "{} threads", threads);
    }
    for rows in [0..1, 5..6, 95..97, 100..107, 202..203] {
        assert!(run(2, rows.clone()) == whole[rows.start * n..rows.end * n]);
    }
}

#[test]
fn bits_do_not_depend_on_batch_or_threads() {
    for isa in Isa::all_supported() {
        same_bits::<f32>(isa);
        same_bits::<Bf16>(isa);
    }
}

#[test]
fn one_channel_a_thousand_times_the_rest() {
    let pool = Pool::new(2);
    let (m, n, k) = (8, 64, 768);
    let mut random = Random(8);
    let mut a = random.normals(m * k, 1.0);
    a.iter_mut().skip(5).step_by(k).for_each(|x| *x *= 1000.0);
    let w = random.normals(n * k, 1.0);
    let (sums, sizes) = product(&a, m, &w, n, k);
    for isa in Isa::all_supported() {
        let packed = pack::<f32>(isa, &pool, &w, n, k);
        let mut out = vec![0.0_f32; m * n];
        let store = Epilogue::Store { bias: None };
        linear(&pool, &a, m, k, &packed, store, &mut out, n);
        for at in 0..m * n {
            assert!((f64::from(out[at]) - sums[at]).abs() <= bound(sizes[at], k));
        }
    }
}

#[test]
fn an_error_of_the_source_comes_back() {
    let pool = Pool::new(2);
    let packed = PackedMatrix::<f32>::pack(Isa::SCALAR, &pool, 300, 3, &|start, _| {
        if start == 128 { Err("broken") } else { Ok(()) }
    });
    assert_eq!(packed.err(), Some("broken"));
}

#[test]
#[should_panic(expected = "residual stream is f32")]
fn a_residual_in_bf16_is_refused() {
    let pool = Pool::new(1);
    let packed = pack::<f32>(Isa::SCALAR, &pool, &[1.0], 1, 1);
    let residual = Epilogue::Residual { bias: None, gamma: &[1.0] };
    linear(&pool, &[1.0], 1, 1, &packed, residual, &mut [Bf16::default()], 1);
}

#[test]
#[should_panic(expected = "rows of a")]
fn too_few_rows_are_refused() {
    let pool = Pool::new(1);
    let packed = pack::<f32>(Isa::SCALAR, &pool, &[1.0, 2.0], 1, 2);
    let store = Epilogue::Store { bias: None };
    linear(&pool, &[1.0; 3], 2, 2, &packed, store, &mut [0.0_f32; 2], 1);
}
