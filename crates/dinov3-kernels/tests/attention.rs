//! Attention against softmax(q kᵀ) v in f64, on every instruction set of this CPU.

mod common;

use common::*;
use dinov3_kernels::{
    AttentionScratch, AttentionShape, Bf16, Element, Epilogue, Isa, PackedMatrix, Rotary, attention, linear,
    rotate_heads,
};
use dinov3_system::threads::Pool;

struct Case {
    shape: AttentionShape,
    prefix: usize,
    qkv: Vec<f32>,
    sin: Vec<f32>,
    cos: Vec<f32>,
}

fn case(images: usize, tokens: usize, prefix: usize, heads: usize, head_dim: usize) -> Case {
    let mut random = Random((tokens * 100 + head_dim) as u64);
    let shape = AttentionShape { images, tokens, heads, head_dim };
    let angles = random.normals((tokens - prefix) * head_dim, 3.0);
    Case {
        shape,
        prefix,
        qkv: random.normals(images * tokens * 3 * heads * head_dim, 1.0),
        sin: angles.iter().map(|angle| angle.sin()).collect(),
        cos: angles.iter().map(|angle| angle.cos()).collect(),
    }
}

impl Case {
    fn run<E: Element>(&self, isa: Isa, threads: usize) -> Vec<E> {
        let pool = Pool::new(threads);
        let shape = &self.shape;
        let dim = shape.heads * shape.head_dim;
        let mut scratch = AttentionScratch::default();
        let mut out = vec![E::default(); shape.images * shape.tokens * dim];
        // The second time in used buffers: nothing of the first may shine through.
        for _ in 0..2 {
            attention(&pool, isa, shape, &self.turned(isa, threads), &mut scratch, &mut out);
        }
        out
    }

    /// q, k and v as the kernel takes them.
    fn turned<E: Element>(&self, isa: Isa, threads: usize) -> Vec<E> {
        let mut turned = vec![E::default(); self.qkv.len()];
        rotate_heads(&Pool::new(threads), isa, &self.shape, &self.qkv, self.rotary(), &mut turned);
        turned
    }

    fn rotary(&self) -> Rotary<'_> {
        let AttentionShape { tokens, head_dim, .. } = self.shape;
        Rotary { tokens, prefix_tokens: self.prefix, head_dim, sin: &self.sin, cos: &self.cos }
    }

    fn rotated(&self, image: usize, token: usize, head: usize, which: usize) -> Vec<f64> {
        let AttentionShape { tokens, heads, head_dim, .. } = self.shape;
        let prefix_tokens = self.prefix;
        let start = ((image * tokens + token) * 3 + which) * heads * head_dim + head * head_dim;
        let x: Vec<f64> = self.qkv[start..start + head_dim].iter().map(|&x| f64::from(x)).collect();
        if token < prefix_tokens || which == 2 {
            return x;
        }
        let half = head_dim / 2;
        let at = (token - prefix_tokens) * head_dim;
        (0..head_dim)
            .map(|d| {
                let partner = if d < half { -x[d + half] } else { x[d - half] };
                x[d] * f64::from(self.cos[at + d]) + partner * f64::from(self.sin[at + d])
            })
            .collect()
    }

    /// For each output: the value, and how far it moves if every score moves by 1 the worst way.
    fn oracle(&self) -> (Vec<f64>, Vec<f64>, f64) {
        let AttentionShape { images, tokens, heads, head_dim, .. } = self.shape;
        let mut out = Vec::new();
        let mut spread = Vec::new();
        let mut largest_product = 0.0_f64;
        out.resize(images * tokens * heads * head_dim, 0.0);
        spread.resize(out.len(), 0.0);
        for image in 0..images {
            for head in 0..heads {
                let part = |which| -> Vec<Vec<f64>> {
                    (0..tokens).map(|token| self.rotated(image, token, head, which)).collect()
                };
                let (q, k, v) = (part(0), part(1), part(2));
                for (token, q) in q.iter().enumerate() {
                    let scores: Vec<f64> = k
                        .iter()
                        .map(|k| {
                            let terms = q.iter().zip(k).map(|(q, k)| q * k);
                            let scale = (head_dim as f64).sqrt();
                            let size = terms.clone().map(f64::abs).sum::<f64>() / scale;
                            largest_product = largest_product.max(size);
                            terms.sum::<f64>() / scale
                        })
                        .collect();
                    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let powers: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                    let total: f64 = powers.iter().sum();
                    let start = ((image * tokens + token) * heads + head) * head_dim;
                    for d in 0..head_dim {
                        let sum: f64 = powers.iter().zip(&v).map(|(p, v)| p * v[d]).sum();
                        let size: f64 = powers.iter().zip(&v).map(|(p, v)| p * v[d].abs()).sum();
                        out[start + d] = sum / total;
                        spread[start + d] = size / total;
                    }
                }
            }
        }
        (out, spread, largest_product)
    }

    fn check<E: Element>(&self, isa: Isa) {
        let out = self.run::<E>(isa, 2);
        let (want, spread, product) = self.oracle();
        // A score's error: two rounded factors of each product, and the sum. It moves p by that share, and so the output
        // by twice that share of its absolute terms. p, v and the output are rounded once more.
        let unit = unit::<E>();
        let score_error = product * (3.0 * unit + 30.0 * EPS);
        let share = 2.0 * score_error.exp_m1() + 2.0 * unit + 60.0 * EPS;
        for (at, out) in out.iter().enumerate() {
            let got = f64::from(out.to_f32());
            let bound = spread[at] * share + want[at].abs() * unit;
            assert!(
                (got - want[at]).abs() <= bound,
                "{} {} {:?} at {at}: {got} for {}, bound {bound}",
                isa.name(),
                E::NAME,
                self.shape,
                want[at]
            );
        }
    }
}

#[test]
fn shapes() {
    for isa in Isa::all_supported() {
        for case in [
            case(1, 1, 0, 1, 64),
            case(1, 1, 1, 2, 4),
            case(2, 2, 1, 1, 8),
            case(1, 15, 1, 3, 12),
            case(1, 16, 5, 2, 64),
            case(2, 17, 5, 2, 20),
            case(1, 63, 0, 1, 128),
            case(1, 64, 5, 2, 32),
            case(3, 65, 5, 3, 64),
            case(1, 101, 5, 2, 100),
            case(1, 261, 5, 3, 64),
            case(1, 517, 5, 1, 64),
        ] {
            case.check::<f32>(isa);
            case.check::<Bf16>(isa);
        }
    }
}

#[test]
fn f32_is_exact_to_a_few_units() {
    // Not a worst case but what whole models need: the error over all outputs, in norms.
    let case = case(1, 261, 5, 2, 64);
    let (want, ..) = case.oracle();
    let norm = want.iter().map(|x| x * x).sum::<f64>().sqrt();
    for isa in Isa::all_supported() {
        let got = case.run::<f32>(isa, 2);
        let errors = got.iter().zip(&want).map(|(&got, want)| f64::from(got) - want);
        let error = errors.map(|x| x * x).sum::<f64>().sqrt() / norm;
        assert!(error < 5e-7, "{}: {error}", isa.name());
    }
}

#[test]
fn many_tokens() {
    let case = case(1, 2311, 5, 1, 16);
    case.check::<f32>(Isa::detect());
    case.check::<Bf16>(Isa::detect());
}

#[test]
fn huge_scores() {
    // Scores of about ±1e4: the largest wins, nothing overflows.
    let tokens = 37;
    for isa in Isa::all_supported() {
        let mut case = case(1, tokens, tokens, 1, 64);
        for token in 0..tokens {
            for d in 0..64 {
                let sign = if token % 2 == 0 { 1.0 } else { -1.0 };
                // q and k grow with the token, so that the last even one wins for even queries.
                case.qkv[token * 192 + d] = sign * 36.0;
                case.qkv[token * 192 + 64 + d] = sign * (30.0 + token as f32 / 4.0);
            }
        }
        let same = |got: f32, want: f32, unit: f32| (got - want).abs() <= unit * want.abs();
        let single = case.run::<f32>(isa, 1);
        let half = case.run::<Bf16>(isa, 1);
        for token in 0..tokens {
            let winner = if token % 2 == 0 { tokens - 1 } else { tokens - 2 };
            for d in 0..64 {
                let want = case.qkv[winner * 192 + 128 + d];
                assert!(same(single[token * 64 + d], want, 1e-6));
                assert!(half[token * 64 + d].to_f32().is_finite());
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_batch_or_threads() {
    for isa in Isa::all_supported() {
        let case = case(3, 131, 5, 3, 64);
        let one = case.run::<f32>(isa, 1);
        let one_half = case.run::<Bf16>(isa, 1);
        for threads in [2, 3] {
            assert!(bits(&case.run::<f32>(isa, threads)) == bits(&one));
            assert!(bits(&case.run::<Bf16>(isa, threads)) == bits(&one_half));
        }
        let image = case.qkv.len() / 3;
        let alone = Case {
            shape: AttentionShape { images: 1, ..case.shape },
            prefix: case.prefix,
            qkv: case.qkv[image..2 * image].to_vec(),
            sin: case.sin.clone(),
            cos: case.cos.clone(),
        };
        let size = one.len() / 3;
        assert!(bits(&alone.run::<f32>(isa, 2)) == bits(&one[size..2 * size]));
        assert!(bits(&alone.run::<Bf16>(isa, 3)) == bits(&one_half[size..2 * size]));
    }
}

#[test]
fn one_image_with_nan_leaves_the_others_alone() {
    for isa in Isa::all_supported() {
        let mut case = case(2, 20, 5, 2, 64);
        let clean = case.run::<f32>(isa, 2);
        case.qkv[7] = f32::NAN;
        let dirty = case.run::<f32>(isa, 2);
        assert!(dirty[..clean.len() / 2].iter().any(|x| x.is_nan()));
        let half = clean.len() / 2;
        assert!(bits(&dirty[half..]) == bits(&clean[half..]));
    }
}

/// The projection with turned heads against the projection, then the turning: the same bits.
fn turned_in_the_projection<E: Element>(isa: Isa) {
    let mut random = Random(3);
    let (tokens, heads, k) = (7, 2, 24);
    let case = case(2, tokens, 5, heads, 64);
    let (rows, n) = (2 * tokens, 3 * heads * 64);
    let pool = Pool::new(2);
    let (a, w, bias) = (random.normals(rows * k, 1.0), random.normals(n * k, 0.2), random.normals(n, 1.0));
    let a: Vec<E> = a.into_iter().map(E::from_f32).collect();
    let packed = PackedMatrix::<E>::pack(isa, &pool, n, k, &|start, out: &mut [f32]| {
        out.copy_from_slice(&w[start * k..start * k + out.len()]);
        Ok::<(), ()>(())
    });
    let packed = packed.unwrap();
    for bias in [None, Some(&bias[..])] {
        let (mut apart, mut want) = (vec![0.0; rows * n], vec![E::default(); rows * n]);
        linear(&pool, &a, rows, k, &packed, Epilogue::Store { bias }, &mut apart, n);
        rotate_heads(&pool, isa, &case.shape, &apart, case.rotary(), &mut want);
        let mut got = vec![E::default(); rows * n];
        linear(&pool, &a, rows, k, &packed, Epilogue::Rotary { bias, rotary: case.rotary() }, &mut got, n);
        assert!(bits(&got) == bits(&want), "{} {}", isa.name(), E::NAME);
    }
}

#[test]
fn heads_may_be_turned_in_the_projection() {
    for isa in Isa::all_supported() {
        turned_in_the_projection::<f32>(isa);
        turned_in_the_projection::<Bf16>(isa);
    }
}
