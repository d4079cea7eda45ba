//! Attention against softmax(q kᵀ) v in f64, on every instruction set of this CPU.

mod common;

use common::*;
use dinov3_kernels::selftest::{attention as check, exact_attention};
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
}

#[test]
fn shapes() {
    for isa in Isa::all_supported() {
        for shape in [
            (1, 1, 0, 1, 64),
            (1, 1, 1, 2, 4),
            (2, 2, 1, 1, 8),
            (1, 15, 1, 3, 12),
            (1, 16, 5, 2, 64),
            (2, 17, 5, 2, 20),
            (1, 63, 0, 1, 128),
            (1, 64, 5, 2, 32),
            (3, 65, 5, 3, 64),
            (1, 101, 5, 2, 100),
            (1, 261, 5, 3, 64),
            (1, 517, 5, 1, 64),
        ] {
            // The exact values of many tokens take long: the end alone then.
            for guard in GUARDS.iter().rev().take(if shape.1 > 65 { 1 } else { 2 }) {
                check::<f32>(guard, isa, shape).assert_passed();
                check::<Bf16>(guard, isa, shape).assert_passed();
            }
        }
    }
}

#[test]
fn f32_is_exact_to_a_few_units() {
    // Not a worst case but what whole models need: the error over all outputs, in norms.
    let case = case(1, 261, 5, 2, 64);
    let want = exact_attention::<f32>(&case.shape, case.prefix, &case.qkv, &case.sin, &case.cos).values;
    let norm = want.iter().map(|x| x * x).sum::<f64>().sqrt();
    for isa in Isa::all_supported() {
        let got = case.run::<f32>(isa, 2);
        let errors = got.iter().zip(&want).map(|(&got, want)| f64::from(got) - want);
        let error = errors.map(|x| x * x).sum::<f64>().sqrt() / norm;
        assert!(error < 5e-7, "{}: {error}", isa.name());
    }
}

#[test]
fn many_tokens_in_blocks_of_keys() {
    for isa in Isa::all_supported() {
        // The last block has all its keys, one, and an odd number of them.
        for tokens in [1536, 1537, 1703] {
            check::<f32>(&Heap, isa, (1, tokens, 5, 1, 4)).assert_passed();
            check::<Bf16>(&Heap, isa, (1, tokens, 5, 1, 4)).assert_passed();
        }
        // The second panel of values is narrower than the first.
        check::<Bf16>(&Heap, isa, (1, 1400, 5, 1, 100)).assert_passed();
    }
}

#[test]
fn the_largest_score_may_come_in_any_block_of_keys() {
    let (tokens, dim) = (1703, 16);
    for isa in Isa::all_supported() {
        for winner in [3, 600, 1702] {
            let mut case = case(1, tokens, tokens, 1, dim);
            for token in 0..tokens {
                for d in 0..dim {
                    case.qkv[token * 3 * dim + d] = 10.0;
                    case.qkv[(token * 3 + 1) * dim + d] = if token == winner { 20.0 } else { token as f32 / 1e3 };
                }
            }
            let want = &case.qkv[(winner * 3 + 2) * dim..][..dim];
            for row in case.run::<f32>(isa, 2).chunks_exact(dim) {
                let is_same = |(got, want): (&f32, &f32)| (got - want).abs() <= 1e-6 * want.abs();
                assert!(row.iter().zip(want).all(is_same), "{} {winner}: {row:?} {want:?}", isa.name());
            }
        }
    }
}

#[test]
fn scores_of_minus_infinity_weigh_nothing_in_any_block_of_keys() {
    let (tokens, dim) = (1400, 4);
    for isa in Isa::all_supported() {
        for lost in [0..512, 512..1024, 888..1400] {
            let mut case = case(1, tokens, tokens, 1, dim);
            for token in 0..tokens {
                for d in 0..dim {
                    case.qkv[token * 3 * dim + d] = 1e20;
                    case.qkv[(token * 3 + 1) * dim + d] = if lost.contains(&token) { -1e20 } else { 0.0 };
                    case.qkv[(token * 3 + 2) * dim + d] = if lost.contains(&token) { 1.0 } else { 2.0 };
                }
            }
            let out = case.run::<f32>(isa, 2);
            assert!(out.iter().all(|value| (value - 2.0).abs() < 1e-5), "{} {lost:?}: {:?}", isa.name(), &out[..4]);
        }
    }
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
        for (tokens, heads, dim) in [(131, 3, 64), (1400, 1, 16)] {
            let case = case(3, tokens, 5, heads, dim);
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
