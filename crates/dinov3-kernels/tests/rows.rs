//! LayerNorm, activations, conversion, the depthwise convolution and the reductions, on every instruction set.

mod common;

use common::*;
use dinov3_kernels::{
    Bf16, Element, Isa, convert, depthwise7x7_layer_norm, gelu as gelu_slice, layer_norm, max_rows, mean_rows,
    silu as silu_slice,
};
use dinov3_system::threads::Pool;

fn norm_oracle(x: &[f64], weight: &[f32], bias: &[f32], eps: f64) -> Vec<f64> {
    let count = x.len() as f64;
    let mean = x.iter().sum::<f64>() / count;
    let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
    let scale = 1.0 / (variance + eps).sqrt();
    x.iter()
        .zip(weight.iter().zip(bias))
        .map(|(x, (&w, &b))| (x - mean) * scale * f64::from(w) + f64::from(b))
        .collect()
}

fn norm_case<O: Element>(isa: Isa, rows: usize, d: usize, mean: f32, deviation: f32) {
    let mut random = Random((rows * 10 + d) as u64);
    let pool = Pool::new(2);
    let mut x = random.normals(rows * d, deviation);
    x.iter_mut().for_each(|x| *x += mean);
    // One channel far above the rest.
    if mean == 0.0 && d > 3 {
        x.iter_mut().skip(3).step_by(d).for_each(|x| *x *= 1000.0);
    }
    let (weight, bias) = (random.normals(d, 1.0), random.normals(d, 1.0));
    let mut out = vec![O::default(); rows * d];
    layer_norm(&pool, isa, &x, rows, d, &weight, &bias, 1e-6, &mut out);
    for row in 0..rows {
        let exact: Vec<f64> = x[row * d..][..d].iter().map(|&x| f64::from(x)).collect();
        let want = norm_oracle(&exact, &weight, &bias, 1e-6);
        for column in 0..d {
            let (got, want) = (f64::from(out[row * d + column].to_f32()), want[column]);
            // The variance is a sum of d squares over sixteen lanes; the rest a handful of roundings.
            let b = f64::from(bias[column]);
            let size = (want - b).abs() + b.abs();
            // With two or three numbers of almost the same size the mean's own rounding shows.
            let shift = EPS * f64::from(deviation) * 4.0 / f64::from(deviation).max(1e-3);
            let bound = size * EPS * (20.0 + d as f64 / 16.0) + shift * 4.0 + unit::<O>() * want.abs();
            assert!(
                (got - want).abs() <= bound,
                "{} {rows}x{d} mean {mean}: {got} for {want} at {row},{column}",
                isa.name()
            );
        }
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
    let mut x: Vec<f32> = (-60_000..60_000).map(|i| i as f32 / 5000.0).collect();
    x.extend([0.0, -0.0, 1e-30, -1e-30, 50.0, -50.0, 1e4, -1e4, 3e38, -3e38, f32::INFINITY]);
    for isa in Isa::all_supported() {
        let mut gelus = x.clone();
        gelu_slice(isa, &mut gelus);
        let mut silus = x.clone();
        silu_slice(isa, &mut silus);
        let mut worst = 0.0_f64;
        for (index, &value) in x.iter().enumerate() {
            let wide = f64::from(value);
            if value.is_infinite() {
                assert!(gelus[index] == value && silus[index] == value);
                continue;
            }
            // erf within 1e-7 moves gelu by at most half of that times x.
            let error = (f64::from(gelus[index]) - gelu(wide)).abs();
            if wide.abs() < 12.0 {
                worst = worst.max(error / (0.5 * wide.abs()).max(1e-3));
            }
            assert!(error <= 0.5e-7 * wide.abs() + 3.0 * EPS * gelu(wide).abs(), "gelu({value}) = {}", gelus[index]);
            let error = (f64::from(silus[index]) - silu(wide)).abs();
            assert!(error <= 6.0 * EPS * silu(wide).abs() + 1e-30, "silu({value}) = {}", silus[index]);
        }
        println!("{}: gelu within {worst:.2e} of x / 2", isa.name());
        let mut nan = [f32::NAN; 5];
        gelu_slice(isa, &mut nan);
        assert!(nan.iter().all(|x| x.is_nan()));
        let mut nan = [f32::NAN; 5];
        silu_slice(isa, &mut nan);
        assert!(nan.iter().all(|x| x.is_nan()));
        for length in 0..40 {
            let mut part = x[1000..1000 + length].to_vec();
            let mut all = x.clone();
            gelu_slice(isa, &mut part);
            gelu_slice(isa, &mut all);
            assert!(bits(&part) == bits(&all[1000..1000 + length]));
        }
    }
}

#[test]
fn conversion_has_the_bits_of_single_numbers() {
    let mut random = Random(4);
    let mut x: Vec<f32> = (0..40_000).map(|_| f32::from_bits((random.normal() * 1e9) as i32 as u32)).collect();
    x.extend([f32::NAN, f32::INFINITY, f32::MIN_POSITIVE, 1e-40, -0.0]);
    for isa in Isa::all_supported() {
        for length in [0, 1, 15, 16, 17, x.len()] {
            let pool = Pool::new(2);
            let mut out = vec![Bf16::default(); length];
            convert(&pool, isa, &x[x.len() - length..], &mut out);
            for (x, out) in x[x.len() - length..].iter().zip(&out) {
                assert_eq!(out.to_bits(), Bf16::from_f32(*x).to_bits(), "{x:e}");
            }
            let mut same = vec![0.0_f32; length];
            convert(&pool, isa, &x[..length], &mut same);
            assert!(bits(&same) == bits(&x[..length]));
        }
    }
}

fn depthwise<O: Element>(isa: Isa, images: usize, h: usize, w: usize, c: usize) {
    let mut random = Random((h * 100 + w * 10 + c) as u64);
    let x = random.normals(images * h * w * c, 1.0);
    let weight = random.normals(49 * c, 0.3);
    let bias = random.normals(c, 1.0);
    let (norm_weight, norm_bias) = (random.normals(c, 1.0), random.normals(c, 1.0));
    let mut out = vec![O::default(); x.len()];
    let run = |threads, out: &mut [O]| {
        let pool = Pool::new(threads);
        depthwise7x7_layer_norm(&pool, isa, &x, images, h, w, c, &weight, &bias, &norm_weight, &norm_bias, 1e-6, out);
    };
    run(2, &mut out);
    let mut again = vec![O::default(); x.len()];
    run(1, &mut again);
    assert!(bits(&out) == bits(&again));
    for image in 0..images {
        for y in 0..h {
            for column in 0..w {
                let at = |y: usize, x: usize| ((image * h + y) * w + x) * c;
                let convolved: Vec<f64> = (0..c)
                    .map(|channel| {
                        let mut sum = f64::from(bias[channel]);
                        for ky in 0..7 {
                            for kx in 0..7 {
                                let (sy, sx) = (y + ky, column + kx);
                                if (3..h + 3).contains(&sy) && (3..w + 3).contains(&sx) {
                                    sum += f64::from(x[at(sy - 3, sx - 3) + channel])
                                        * f64::from(weight[(ky * 7 + kx) * c + channel]);
                                }
                            }
                        }
                        sum
                    })
                    .collect();
                let want = norm_oracle(&convolved, &norm_weight, &norm_bias, 1e-6);
                let mean = convolved.iter().sum::<f64>() / c as f64;
                let variance = convolved.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / c as f64;
                for channel in 0..c {
                    let got = f64::from(out[at(y, column) + channel].to_f32());
                    let want = want[channel];
                    // 49 additions of numbers of size 2 lose some 100 units; dividing by the deviation scales that.
                    let bound = 200.0 * EPS * (1.0 + 1.0 / (variance + 1e-6).sqrt()) * (1.0 + want.abs())
                        + unit::<O>() * want.abs();
                    assert!(
                        (got - want).abs() <= bound,
                        "{} {h}x{w}x{c} at {y},{column},{channel}: {got} for {want}",
                        isa.name()
                    );
                }
            }
        }
    }
}

#[test]
fn depthwise_shapes() {
    for isa in Isa::all_supported() {
        for (images, h, w, c) in
            [(1, 1, 1, 16), (2, 2, 3, 5), (1, 7, 8, 17), (2, 8, 7, 32), (1, 5, 9, 33), (1, 3, 16, 96), (1, 9, 23, 48)]
        {
            depthwise::<f32>(isa, images, h, w, c);
            depthwise::<Bf16>(isa, images, h, w, c);
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
