//! Small rounds of each kernel, for counting instructions: `kernel_guard CASE ROUNDS` runs a case on one thread, `kernel_guard`
//! alone lists the cases. `bench/guard.sh` compares the counts with those of the last release.

use dinov3_kernels::{
    AttentionScratch, AttentionShape, Bf16, Element, Epilogue, Int8, Isa, Operand, PackedMatrix, attention,
    depthwise7x7_layer_norm, gelu, layer_norm, linear, silu,
};
use dinov3_system::threads::Pool;

/// A name and what runs so many rounds.
type Case = (&'static str, fn(usize));

/// Shapes of a few million multiply-adds: whole tiles and the odd rows and columns beside them.
const CASES: &[Case] = &[
    ("linear-wide-f32", |rounds| product::<f32>(rounds, (96, 256, 192), false)),
    ("linear-wide-bf16", |rounds| product::<Bf16>(rounds, (96, 256, 192), false)),
    ("linear-wide-int8", |rounds| product::<Int8>(rounds, (96, 256, 192), false)),
    ("linear-odd-f32", |rounds| product::<f32>(rounds, (53, 200, 257), false)),
    ("linear-odd-bf16", |rounds| product::<Bf16>(rounds, (53, 200, 257), false)),
    ("linear-odd-int8", |rounds| product::<Int8>(rounds, (53, 200, 257), false)),
    ("linear-thin-f32", |rounds| product::<f32>(rounds, (192, 192, 48), false)),
    ("linear-thin-bf16", |rounds| product::<Bf16>(rounds, (192, 192, 48), false)),
    ("linear-gelu-f32", |rounds| product::<f32>(rounds, (96, 256, 64), true)),
    ("linear-gelu-bf16", |rounds| product::<Bf16>(rounds, (96, 256, 64), true)),
    ("attention-f32", attend::<f32>),
    ("attention-bf16", attend::<Bf16>),
    ("norm-f32", norm::<f32>),
    ("norm-bf16", norm::<Bf16>),
    ("depthwise", depthwise),
    ("gelu", |rounds| apply(rounds, gelu)),
    ("silu", |rounds| apply(rounds, silu)),
];

/// The same numbers in every run, none of them round.
fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|index| ((index * 7919 % 1009) as f32 - 504.0) / 503.7).collect()
}

fn product<E: Operand>(rounds: usize, (m, n, k): (usize, usize, usize), gelu: bool) {
    let (pool, isa) = (Pool::new(1), Isa::detect());
    let elements: Vec<E::Element> = numbers(m * k).into_iter().map(E::Element::from_f32).collect();
    let mut quantized = Vec::new();
    let a = E::operands(&pool, isa, &elements, k, &mut quantized);
    let w = numbers(n * k);
    let packed = PackedMatrix::<E>::pack(isa, &pool, n, k, &|start, rows: &mut [f32]| {
        rows.copy_from_slice(&w[start * k..start * k + rows.len()]);
        Ok::<(), ()>(())
    });
    let packed = packed.expect("the source never fails");
    let bias = numbers(n);
    let mut out = vec![E::Element::default(); m * n];
    for _ in 0..rounds {
        let epilogue = if gelu { Epilogue::Gelu { bias: &bias } } else { Epilogue::Store { bias: Some(&bias) } };
        linear(&pool, a, m, E::row_length(k), &packed, epilogue, &mut out, n);
    }
}

fn attend<E: Element>(rounds: usize) {
    let (pool, isa) = (Pool::new(1), Isa::detect());
    let shape = AttentionShape { images: 1, tokens: 69, heads: 2, head_dim: 64 };
    let qkv: Vec<E> = numbers(69 * 3 * 128).into_iter().map(E::from_f32).collect();
    let mut scratch = AttentionScratch::default();
    let mut out = vec![E::default(); 69 * 128];
    for _ in 0..rounds {
        attention(&pool, isa, &shape, &qkv, &mut scratch, &mut out);
    }
}

fn norm<E: Element>(rounds: usize) {
    let (rows, d) = (256, 384);
    let (pool, x, ones) = (Pool::new(1), numbers(rows * d), vec![1.0; d]);
    let mut out = vec![E::default(); rows * d];
    for _ in 0..rounds {
        layer_norm(&pool, Isa::detect(), &x, rows, d, &ones, &ones, 1e-6, &mut out);
    }
}

fn depthwise(rounds: usize) {
    let (side, c) = (16, 96);
    let (pool, x, weight, ones) = (Pool::new(1), numbers(side * side * c), numbers(49 * c), vec![1.0; c]);
    let mut out = vec![0.0_f32; x.len()];
    for _ in 0..rounds {
        let isa = Isa::detect();
        depthwise7x7_layer_norm(&pool, isa, &x, 1, side, side, c, &weight, &ones, &ones, &ones, 1e-6, &mut out);
    }
}

fn apply(rounds: usize, function: fn(Isa, &mut [f32])) {
    let mut values = numbers(1 << 16);
    for _ in 0..rounds {
        function(Isa::detect(), &mut values);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, rounds] = &arguments[..] else {
        CASES.iter().for_each(|(name, _)| println!("{name}"));
        return;
    };
    if let Err(error) = Isa::try_from_env() {
        eprintln!("error: {error}");
        std::process::exit(2);
    }
    let case = CASES.iter().find(|(known, _)| known == name).expect("a case of the list");
    case.1(rounds.parse().expect("a number of rounds"));
}
