//! One function per kernel: runs it, and compares.

use dinov3_system::threads::Pool;

use super::oracle::{EPS, Exact, Random, gelu, pack, silu, unit};
use super::{Comparison, Place};
use crate::attention::{AttentionScratch, AttentionShape};
use crate::bf16::Bf16;
use crate::element::{Element, Operand};
use crate::gemm::Epilogue;
use crate::int8::{Int8, read_trailer};
use crate::isa::Isa;
use crate::rotary::Rotary;

/// The epilogue of a product, with vectors of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apply {
    /// [`Epilogue::Store`] without a bias.
    Store,
    /// [`Epilogue::Store`] with one.
    Bias,
    /// [`Epilogue::Gelu`].
    Gelu,
    /// [`Epilogue::SwiGlu`].
    SwiGlu,
    /// [`Epilogue::Residual`]; the output is f32.
    Residual,
}

fn rounded<E: Element>(values: Vec<f32>) -> Vec<f32> {
    values.into_iter().map(|value| E::from_f32(value).to_f32()).collect()
}

fn elements<E: Element>(values: &[f32]) -> Vec<E> {
    values.iter().map(|&value| E::from_f32(value)).collect()
}

/// Notes outputs of a kernel and of its portable twin.
fn note<E: Element>(exact: &Exact, got: &[E], twin: &[E], case: impl Fn() -> String) -> Comparison {
    let mut comparison = Comparison::default();
    assert_eq!((got.len(), twin.len()), (exact.values.len(), exact.values.len()));
    for (at, (got, twin)) in got.iter().zip(twin).enumerate() {
        let (value, bound) = (exact.values[at], exact.bounds[at]);
        let (got, twin) = (f64::from(got.to_f32()), f64::from(twin.to_f32()));
        comparison.note(got, value, bound, || format!("{} at {at}", case()));
        comparison.note(got, twin, 2.0 * bound, || format!("{} at {at}, beside the portable code", case()));
    }
    comparison
}

/// Notes outputs whose bits have to be those of others.
fn note_bits(got: &[u32], wanted: &[u32], case: impl Fn() -> String) -> Comparison {
    let mut comparison = Comparison::default();
    assert_eq!(got.len(), wanted.len());
    for (at, (&got, &wanted)) in got.iter().zip(wanted).enumerate() {
        comparison.note(f64::from(got), f64::from(wanted), 0.0, || format!("{} at {at}, as bits", case()));
    }
    comparison
}

fn bits<E: Element>(values: &[E]) -> Vec<u32> {
    values.iter().map(|value| value.to_f32().to_bits()).collect()
}

/// Numbers between the rows of operands and of outputs: what lies there is neither read nor written.
const GAP: usize = 3;

/// A matrix product of `m` rows, `n` columns and `k` numbers. Rows lie apart from each other, and nothing follows the last.
///
/// # Panics
/// For [`Apply::Residual`] with an output other than f32, and [`Apply::SwiGlu`] with an `n` that is no multiple of 32.
pub fn linear<E: Operand, O: Element>(
    place: &impl Place,
    isa: Isa,
    (m, n, k): (usize, usize, usize),
    apply: Apply,
) -> Comparison {
    let case = || format!("linear {} to {}, {m}x{n}x{k}, {apply:?}, {}", E::NAME, O::NAME, isa.name());
    let mut random = Random((m * 1000 + n * 100 + k) as u64);
    let a = rounded::<E::Element>(random.normals(m * k, 1.0));
    let w = random.normals(n * k, 0.3);
    // Bytes round the weights themselves.
    let w = if E::NAME == Int8::NAME { w } else { rounded::<E::Element>(w) };
    let bias = place.copy(&random.normals(n, 1.0));
    let gamma = place.copy(&random.normals(n, 1.0));
    let width = if apply == Apply::SwiGlu { n / 2 } else { n };
    let before = rounded::<O>(random.normals(m * (width + GAP), 1.0));
    let pool = Pool::new(2);

    let run = |isa: Isa, epilogue: Epilogue<'_>| -> (Vec<O>, Vec<O>) {
        let packed = pack::<E>(isa, &pool, &w, n, k);
        let (length, stride) = (E::row_length(k), E::row_length(k) + GAP);
        let mut buffer = Vec::new();
        let nothing = vec![E::Element::from_f32(f32::NAN); k];
        // A number that spoils every product, where there is one.
        let filler = E::operands(&pool, isa, &nothing, k, &mut buffer).first().copied().unwrap_or_default();
        let mut rows = vec![filler; m * stride];
        let operands = elements::<E::Element>(&a);
        let operands = E::operands(&pool, isa, &operands, k, &mut buffer);
        for row in 0..m {
            rows[row * stride..][..length].copy_from_slice(&operands[row * length..][..length]);
        }
        let rows = place.copy(&rows[..(m * stride).saturating_sub(GAP)]);
        let mut out = place.copy(&elements::<O>(&before)[..(m * (width + GAP)).saturating_sub(GAP)]);
        crate::linear(&pool, &rows, m, stride, &packed, epilogue, &mut out, width + GAP);
        let rows = out.chunks(width + GAP).map(|row| row.split_at(width.min(row.len())));
        let (used, gaps): (Vec<&[O]>, Vec<&[O]>) = rows.unzip();
        (used.concat(), gaps.concat())
    };
    let epilogue = match apply {
        Apply::Store => Epilogue::Store { bias: None },
        Apply::Bias => Epilogue::Store { bias: Some(&bias) },
        Apply::Gelu => Epilogue::Gelu { bias: &bias },
        Apply::SwiGlu => Epilogue::SwiGlu { bias: &bias },
        Apply::Residual => Epilogue::Residual { bias: Some(&bias), gamma: &gamma },
    };
    let (got, gaps) = run(isa, epilogue);
    let (twin, _) = run(Isa::SCALAR, epilogue);
    let mut comparison = Comparison::default();
    let untouched: Vec<f32> = before.chunks(width + GAP).flat_map(|row| &row[width..]).copied().collect();
    comparison.merge(note_bits(&bits(&gaps), &bits(&elements::<O>(&untouched))[..gaps.len()], || {
        format!("{} between rows", case())
    }));

    let sums = if E::NAME == Int8::NAME {
        if apply == Apply::Store {
            return comparison.and(note_bits(&bits(&got), &bits(&twin), case));
        }
        // What the epilogue starts from is known exactly: it has the bits of the portable twin.
        let store = Epilogue::Store { bias: None };
        let sums = byte_sums::<E>(&pool, &a, &w, (m, n, k), store);
        Exact { bounds: sums.iter().map(|sum| 2.0 * EPS * sum.abs()).collect(), values: sums }
    } else {
        Exact::product(&a, m, &w, n, k)
    };
    let mut exact = Exact::default();
    for row in 0..m {
        for column in 0..width {
            let sum = |column: usize| {
                let with_bias = if apply == Apply::Store { 0.0 } else { f64::from(bias[column]) };
                (sums.values[row * n + column] + with_bias, sums.bounds[row * n + column])
            };
            let (value, bound) = match apply {
                Apply::Store => sum(column),
                Apply::Bias => (sum(column).0, sum(column).1 + EPS * sum(column).0.abs()),
                Apply::Gelu => {
                    let (sum, bound) = sum(column);
                    (gelu(sum), 1.2 * bound + 3e-7 * (1.0 + gelu(sum).abs()))
                }
                Apply::SwiGlu => {
                    let gate = column / 16 * 32 + column % 16;
                    let ((gate, gate_bound), (value, value_bound)) = (sum(gate), sum(gate + 16));
                    let product = silu(gate) * value;
                    let bound = gate_bound * (1.0 + value.abs()) + value_bound * (1.0 + gate.abs());
                    (product, 1.2 * bound + 3e-7 * (1.0 + product.abs()))
                }
                Apply::Residual => {
                    let ((sum, bound), gamma) = (sum(column), f64::from(gamma[column]));
                    let value = f64::from(before[row * (width + GAP) + column]) + gamma * sum;
                    (value, (bound + 4.0 * EPS * sum.abs()) * gamma.abs() + EPS * value.abs())
                }
            };
            exact.values.push(value);
            exact.bounds.push(bound + unit::<O>() * value.abs());
        }
    }
    comparison.and(note(&exact, &got, &twin, case))
}

/// A product of bytes by the portable code.
fn byte_sums<E: Operand>(
    pool: &Pool,
    a: &[f32],
    w: &[f32],
    (m, n, k): (usize, usize, usize),
    epilogue: Epilogue<'_>,
) -> Vec<f64> {
    let packed = pack::<E>(Isa::SCALAR, pool, w, n, k);
    let (mut buffer, mut out) = (Vec::new(), vec![0.0_f32; m * n]);
    let a = elements::<E::Element>(a);
    let rows = E::operands(pool, Isa::SCALAR, &a, k, &mut buffer);
    crate::linear(pool, rows, m, E::row_length(k), &packed, epilogue, &mut out, n);
    out.into_iter().map(f64::from).collect()
}

/// Rows as bytes: the bits of the portable code.
pub fn quantize(place: &impl Place, isa: Isa, rows: usize, width: usize) -> Comparison {
    let mut values = Random((rows * 100 + width) as u64).normals(rows * width, 1.0);
    // One channel far above the rest.
    values[0] *= 50.0;
    let values = place.copy(&elements::<Bf16>(&values));
    let pool = Pool::new(2);
    let run = |isa| {
        let mut buffer = Vec::new();
        Int8::operands(&pool, isa, &values, width, &mut buffer);
        buffer.into_iter().map(|byte: Int8| u32::from(byte.0)).collect::<Vec<u32>>()
    };
    note_bits(&run(isa), &run(Isa::SCALAR), || format!("quantize {rows}x{width}, {}", isa.name()))
}

/// Heads turned by random angles, and attention over them.
pub fn attention<E: Element>(
    place: &impl Place,
    isa: Isa,
    (images, tokens, prefix_tokens, heads, head_dim): (usize, usize, usize, usize, usize),
) -> Comparison {
    let mut random = Random((tokens * 100 + head_dim) as u64);
    let shape = AttentionShape { images, tokens, heads, head_dim };
    let angles = random.normals((tokens - prefix_tokens) * head_dim, 3.0);
    let qkv = place.copy(&random.normals(images * tokens * 3 * heads * head_dim, 1.0));
    let sin = place.copy(&angles.iter().map(|angle| angle.sin()).collect::<Vec<f32>>());
    let cos = place.copy(&angles.iter().map(|angle| angle.cos()).collect::<Vec<f32>>());
    let rotary = Rotary { tokens, prefix_tokens, head_dim, sin: &sin, cos: &cos };
    let run = |isa| -> Vec<E> {
        let pool = Pool::new(2);
        let mut turned = place.copy(&vec![E::default(); qkv.len()]);
        crate::rotate_heads(&pool, isa, &shape, &qkv, rotary, &mut turned);
        let mut scratch = AttentionScratch::default();
        let mut out = place.copy(&vec![E::default(); images * tokens * heads * head_dim]);
        // The second time in used buffers: nothing of the first may shine through.
        for _ in 0..2 {
            crate::attention(&pool, isa, &shape, &turned, &mut scratch, &mut out);
        }
        out.to_vec()
    };
    let exact = exact_attention::<E>(&shape, prefix_tokens, &qkv, &sin, &cos);
    note(&exact, &run(isa), &run(Isa::SCALAR), || format!("attention {} {shape:?}, {}", E::NAME, isa.name()))
}

/// softmax(q kᵀ / √d) v after RoPE of all tokens but the first.
pub fn exact_attention<E: Element>(
    shape: &AttentionShape,
    prefix_tokens: usize,
    qkv: &[f32],
    sin: &[f32],
    cos: &[f32],
) -> Exact {
    let AttentionShape { images, tokens, heads, head_dim, .. } = *shape;
    let rotated = |image: usize, token: usize, head: usize, which: usize| -> Vec<f64> {
        let start = ((image * tokens + token) * 3 + which) * heads * head_dim + head * head_dim;
        let x: Vec<f64> = qkv[start..start + head_dim].iter().map(|&x| f64::from(x)).collect();
        if token < prefix_tokens || which == 2 {
            return x;
        }
        let half = head_dim / 2;
        let at = (token - prefix_tokens) * head_dim;
        (0..head_dim)
            .map(|d| {
                let partner = if d < half { -x[d + half] } else { x[d - half] };
                x[d] * f64::from(cos[at + d]) + partner * f64::from(sin[at + d])
            })
            .collect()
    };
    let mut values = vec![0.0; images * tokens * heads * head_dim];
    // How far an output moves if every score moves by 1 the worst way.
    let mut spread = values.clone();
    let mut largest_product = 0.0_f64;
    for image in 0..images {
        for head in 0..heads {
            let part =
                |which| -> Vec<Vec<f64>> { (0..tokens).map(|token| rotated(image, token, head, which)).collect() };
            let (q, k, v) = (part(0), part(1), part(2));
            for (token, q) in q.iter().enumerate() {
                let mut score = |k: &Vec<f64>| {
                    let terms = q.iter().zip(k).map(|(q, k)| q * k);
                    let scale = (head_dim as f64).sqrt();
                    largest_product = largest_product.max(terms.clone().map(f64::abs).sum::<f64>() / scale);
                    terms.sum::<f64>() / scale
                };
                let scores: Vec<f64> = k.iter().map(&mut score).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let powers: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                let total: f64 = powers.iter().sum();
                let start = ((image * tokens + token) * heads + head) * head_dim;
                for d in 0..head_dim {
                    let terms = powers.iter().zip(&v).map(|(power, v)| power * v[d]);
                    values[start + d] = terms.clone().sum::<f64>() / total;
                    spread[start + d] = terms.map(f64::abs).sum::<f64>() / total;
                }
            }
        }
    }
    let score_error = largest_product * (3.0 * unit::<E>() + 30.0 * EPS);
    let share = 2.0 * score_error.exp_m1() + 2.0 * unit::<E>() + 60.0 * EPS;
    let bound = |(value, spread): (&f64, f64)| spread * share + value.abs() * unit::<E>();
    Exact { bounds: values.iter().zip(spread).map(bound).collect(), values }
}

fn exact_norm(x: &[f64], weight: &[f32], bias: &[f32], eps: f64) -> Vec<f64> {
    let count = x.len() as f64;
    let mean = x.iter().sum::<f64>() / count;
    let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
    let scale = 1.0 / (variance + eps).sqrt();
    let affine = weight.iter().zip(bias);
    x.iter().zip(affine).map(|(x, (&w, &b))| (x - mean) * scale * f64::from(w) + f64::from(b)).collect()
}

/// LayerNorm of rows of `d` numbers with this mean and deviation.
pub fn layer_norm<O: Element>(
    place: &impl Place,
    isa: Isa,
    rows: usize,
    d: usize,
    mean: f32,
    deviation: f32,
) -> Comparison {
    let mut random = Random((rows * 10 + d) as u64);
    let pool = Pool::new(2);
    let mut x = random.normals(rows * d, deviation);
    x.iter_mut().for_each(|x| *x += mean);
    // One channel far above the rest.
    if mean == 0.0 && d > 3 {
        x.iter_mut().skip(3).step_by(d).for_each(|x| *x *= 1000.0);
    }
    let x = place.copy(&x);
    let (weight, bias) = (place.copy(&random.normals(d, 1.0)), place.copy(&random.normals(d, 1.0)));
    let run = |isa| {
        let mut out = place.copy(&vec![O::default(); rows * d]);
        crate::layer_norm(&pool, isa, &x, rows, d, &weight, &bias, 1e-6, &mut out);
        out.to_vec()
    };
    let mut exact = Exact::default();
    for row in x.chunks_exact(d) {
        let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        for (value, &b) in exact_norm(&row, &weight, &bias, 1e-6).into_iter().zip(bias.iter()) {
            let size = (value - f64::from(b)).abs() + f64::from(b).abs();
            // With two or three numbers of almost the same size the mean's own rounding shows.
            let shift = EPS * f64::from(deviation) * 4.0 / f64::from(deviation).max(1e-3);
            exact.values.push(value);
            exact.bounds.push(size * EPS * (20.0 + d as f64 / 16.0) + shift * 4.0 + unit::<O>() * value.abs());
        }
    }
    let case = || format!("layer_norm {} {rows}x{d} of mean {mean}, {}", O::NAME, isa.name());
    note(&exact, &run(isa), &run(Isa::SCALAR), case)
}

/// LayerNorm that writes bytes: within one step of the portable code, scales within a millionth.
pub fn layer_norm_bytes(place: &impl Place, isa: Isa, rows: usize, d: usize) -> Comparison {
    let mut random = Random((rows * 10 + d) as u64);
    let pool = Pool::new(2);
    let x = place.copy(&random.normals(rows * d, 3.0));
    let (weight, bias) = (place.copy(&random.normals(d, 1.0)), place.copy(&random.normals(d, 1.0)));
    let length = Int8::row_length(d);
    let run = |isa| {
        let mut out = place.copy(&vec![Int8::default(); rows * length]);
        crate::layer_norm(&pool, isa, &x, rows, d, &weight, &bias, 1e-6, &mut out);
        out.to_vec()
    };
    let (got, twin) = (run(isa), run(Isa::SCALAR));
    let mut comparison = Comparison::default();
    for (row, (got, twin)) in got.chunks_exact(length).zip(twin.chunks_exact(length)).enumerate() {
        let case = || format!("layer_norm int8 {rows}x{d} in row {row}, {}", isa.name());
        for (&got, &twin) in got[..d].iter().zip(twin) {
            comparison.note(f64::from(got.0), f64::from(twin.0), 1.0, case);
        }
        let ((scale, zero), (twin_scale, twin_zero)) = (read_trailer(got), read_trailer(twin));
        comparison.note(scale.into(), twin_scale.into(), 1e-6 * f64::from(twin_scale), case);
        comparison.note(zero.into(), twin_zero.into(), 1.0, case);
    }
    comparison
}

/// The depthwise convolution and its norm, on one thread and on two.
pub fn depthwise<O: Element>(place: &impl Place, isa: Isa, images: usize, h: usize, w: usize, c: usize) -> Comparison {
    let mut random = Random((h * 100 + w * 10 + c) as u64);
    let x = place.copy(&random.normals(images * h * w * c, 1.0));
    let weight = place.copy(&random.normals(49 * c, 0.3));
    let bias = place.copy(&random.normals(c, 1.0));
    let (norm_weight, norm_bias) = (place.copy(&random.normals(c, 1.0)), place.copy(&random.normals(c, 1.0)));
    let run = |isa, threads| {
        let (pool, mut out) = (Pool::new(threads), place.copy(&vec![O::default(); x.len()]));
        crate::depthwise7x7_layer_norm(
            &pool,
            isa,
            &x,
            images,
            h,
            w,
            c,
            &weight,
            &bias,
            &norm_weight,
            &norm_bias,
            1e-6,
            &mut out,
        );
        out.to_vec()
    };
    let case = || format!("depthwise {} {images}x{h}x{w}x{c}, {}", O::NAME, isa.name());
    let got = run(isa, 2);
    let same = note_bits(&bits(&got), &bits(&run(isa, 1)), || format!("{} on one thread", case()));

    let mut exact = Exact::default();
    for (image, y, column) in (0..images * h * w).map(|at| (at / (h * w), at / w % h, at % w)) {
        let at = |y: usize, x: usize| ((image * h + y) * w + x) * c;
        let convolve = |channel: usize| {
            let mut sum = f64::from(bias[channel]);
            for (ky, kx) in (0..49).map(|tap| (tap / 7, tap % 7)) {
                let (sy, sx) = (y + ky, column + kx);
                if (3..h + 3).contains(&sy) && (3..w + 3).contains(&sx) {
                    let weight = weight[(ky * 7 + kx) * c + channel];
                    sum += f64::from(x[at(sy - 3, sx - 3) + channel]) * f64::from(weight);
                }
            }
            sum
        };
        let convolved: Vec<f64> = (0..c).map(convolve).collect();
        let mean = convolved.iter().sum::<f64>() / c as f64;
        let variance = convolved.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / c as f64;
        for value in exact_norm(&convolved, &norm_weight, &norm_bias, 1e-6) {
            let bound = 200.0 * EPS * (1.0 + 1.0 / (variance + 1e-6).sqrt()) * (1.0 + value.abs());
            exact.values.push(value);
            exact.bounds.push(bound + unit::<O>() * value.abs());
        }
    }
    same.and(note(&exact, &got, &run(Isa::SCALAR, 1), case))
}

/// Both functions on `count` numbers evenly over a range.
pub fn gelu_and_silu(place: &impl Place, isa: Isa, range: &[f32; 2], count: usize) -> Comparison {
    let [from, to] = *range;
    let x: Vec<f32> = (0..count).map(|index| from + (to - from) * index as f32 / count as f32).collect();
    let run = |isa, function: fn(Isa, &mut [f32])| {
        let mut values = place.copy(&x);
        function(isa, &mut values);
        values.to_vec()
    };
    let compare = |name: &str, function: fn(Isa, &mut [f32]), exact: fn(f64) -> f64, bound: fn(f64, f64) -> f64| {
        let values: Vec<f64> = x.iter().map(|&x| exact(f64::from(x))).collect();
        let bounds = x.iter().zip(&values).map(|(&x, &value)| bound(f64::from(x), value)).collect();
        let case = || format!("{name}, {}", isa.name());
        note(&Exact { values, bounds }, &run(isa, function), &run(Isa::SCALAR, function), case)
    };
    compare("gelu", crate::gelu, gelu, |x, value| 0.5e-7 * x.abs() + 3.0 * EPS * value.abs()).and(compare(
        "silu",
        crate::silu,
        silu,
        |_, value| 6.0 * EPS * value.abs() + 1e-30,
    ))
}

/// Conversion of arbitrary f32 bits: those of single numbers.
pub fn convert<E: Element>(place: &impl Place, isa: Isa, count: usize) -> Comparison {
    let mut random = Random(count as u64);
    let mut x: Vec<f32> = (0..count).map(|_| f32::from_bits((random.normal() * 1e9) as i32 as u32)).collect();
    for (x, special) in x.iter_mut().zip([f32::NAN, f32::INFINITY, f32::MIN_POSITIVE, 1e-40, -0.0]) {
        *x = special;
    }
    let x = place.copy(&x);
    let mut out = place.copy(&vec![E::default(); count]);
    crate::convert(&Pool::new(2), isa, &x, &mut out);
    note_bits(&bits(&out), &bits(&elements::<E>(&x)), || format!("convert {}, {}", E::NAME, isa.name()))
}
