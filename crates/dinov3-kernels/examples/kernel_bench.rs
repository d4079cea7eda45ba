//! Speed of the kernels on this machine: GFLOP/s and the share of the rate that a loop of nothing but multiply-adds
//! reaches in the same minute. Run with `cargo run --release -p dinov3-kernels --example kernel_bench [threads]`.

use std::time::Instant;

use dinov3_kernels::{
    AttentionScratch, AttentionShape, Bf16, Element, Epilogue, Int8, Isa, Operand, PackedMatrix, attention,
    depthwise7x7_layer_norm, layer_norm, linear, measure_peak,
};
use dinov3_system::threads::{Pool, available_threads};

/// The shortest of some runs, in seconds: other processes only ever add.
fn best(mut run: impl FnMut()) -> f64 {
    run();
    let start = Instant::now();
    let mut best = f64::INFINITY;
    let mut rounds = 0;
    while rounds < 5 || (start.elapsed().as_secs_f64() < 0.6 && rounds < 1000) {
        let round = Instant::now();
        run();
        best = best.min(round.elapsed().as_secs_f64());
        rounds += 1;
    }
    best
}

/// The same numbers in every run, none of them round.
fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|index| ((index * 7919 % 1009) as f32 - 504.0) / 503.7).collect()
}

fn elements<E: Element>(count: usize) -> Vec<E> {
    numbers(count).into_iter().map(E::from_f32).collect()
}

fn peak<E: Operand>(pool: &Pool, isa: Isa) -> f64 {
    measure_peak::<E>(pool.threads(), isa).flops / 1e9
}

fn report(name: &str, flops: f64, seconds: f64, peak: f64) {
    let rate = flops / seconds / 1e9;
    let share = 100.0 * rate / peak;
    println!("  {name:<34} {:9.3} ms {rate:8.1} GFLOP/s {share:5.1} %", seconds * 1e3);
}

fn products<E: Operand>(pool: &Pool, isa: Isa) {
    let rate = peak::<E>(pool, isa);
    println!("{} {}: peak {rate:.1} GFLOP/s", isa.name(), E::NAME);
    for (m, n, k) in [
        (2088, 1024, 4096),
        (2088, 4096, 1024),
        (261, 1024, 4096),
        (261, 4096, 1024),
        (2088, 384, 1536),
        (2088, 1536, 384),
        (2088, 768, 3072),
        (2088, 3072, 768),
        (32768, 96, 384),
        (32768, 384, 96),
        (1, 4096, 1024),
    ] {
        let elements = elements::<E::Element>(m * k);
        let w = numbers(n * k);
        let packed = PackedMatrix::<E>::pack(isa, pool, n, k, &|start, rows: &mut [f32]| {
            rows.copy_from_slice(&w[start * k..start * k + rows.len()]);
            Ok::<(), ()>(())
        });
        let packed = packed.expect("the source never fails");
        let bias = numbers(n);
        let rate = peak::<E>(pool, isa);
        let flops = 2.0 * m as f64 * n as f64 * k as f64;
        let mut quantized = Vec::new();
        if E::NAME == Int8::NAME {
            let seconds = best(|| {
                E::operands(pool, isa, &elements, k, &mut quantized);
            });
            report(&format!("quantize {m}x{k}, as if {n} columns"), flops, seconds, rate);
        }
        let a = E::operands(pool, isa, &elements, k, &mut quantized);
        let a_stride = E::row_length(k);
        let mut out = vec![E::Element::default(); m * n];
        let seconds = best(|| {
            let epilogue = Epilogue::Store { bias: Some(&bias) };
            linear(pool, a, m, a_stride, &packed, epilogue, &mut out, n);
        });
        report(&format!("linear {m}x{n}x{k}"), flops, seconds, rate);
        if n > k {
            let seconds = best(|| {
                let epilogue = Epilogue::Gelu { bias: &bias };
                linear(pool, a, m, a_stride, &packed, epilogue, &mut out, n);
            });
            report(&format!("linear {m}x{n}x{k} + gelu"), flops, seconds, rate);
        } else {
            let mut out = vec![0.0; m * n];
            let seconds = best(|| {
                let epilogue = Epilogue::Residual { bias: Some(&bias), gamma: &bias };
                linear(pool, a, m, a_stride, &packed, epilogue, &mut out, n);
            });
            report(&format!("linear {m}x{n}x{k} + residual"), flops, seconds, rate);
        }
    }
    rows::<E>(pool, isa);
}

fn heads<E: Element>(pool: &Pool, isa: Isa) {
    for (images, tokens, heads, head_dim) in
        [(8, 261, 16, 64), (1, 261, 6, 64), (1, 1029, 16, 64), (1, 4101, 6, 64), (1, 261, 32, 128)]
    {
        let shape = AttentionShape { images, tokens, heads, head_dim };
        let qkv = elements::<E>(images * tokens * 3 * heads * head_dim);
        let mut scratch = AttentionScratch::default();
        let mut out = vec![E::default(); images * tokens * heads * head_dim];
        let rate = peak::<E>(pool, isa);
        let seconds = best(|| {
            attention(pool, isa, &shape, &qkv, &mut scratch, &mut out);
        });
        let flops = 4.0 * (images * heads * tokens * tokens * head_dim) as f64;
        let name = format!("attention {images} images {tokens} x {heads} x {head_dim}");
        report(&name, flops, seconds, rate);
    }
}

fn rows<E: Operand>(pool: &Pool, isa: Isa) {
    let (rows, d) = (2088, 1024);
    let (x, ones) = (numbers(rows * d), vec![1.0; d]);
    let mut out = vec![E::default(); rows * E::row_length(d)];
    let seconds = best(|| layer_norm(pool, isa, &x, rows, d, &ones, &ones, 1e-6, &mut out));
    let gigabytes = (rows * d * (4 + size_of::<E>())) as f64 / 1e9;
    println!("  layer_norm {rows}x{d}: {:.3} ms, {:.1} GB/s", seconds * 1e3, gigabytes / seconds);
    let rate = peak::<f32>(pool, isa);
    for (images, side, c) in [(8, 64, 96), (8, 16, 384), (8, 8, 768)] {
        let x = numbers(images * side * side * c);
        let (weight, ones) = (numbers(49 * c), vec![1.0; c]);
        let mut out = vec![E::default(); images * side * side * E::row_length(c)];
        let seconds = best(|| {
            depthwise7x7_layer_norm(pool, isa, &x, images, side, side, c, &weight, &ones, &ones, &ones, 1e-6, &mut out);
        });
        let name = format!("depthwise + norm {images}x{side}x{side}x{c}");
        report(&name, 98.0 * x.len() as f64, seconds, rate);
    }
}

/// Rounds under a profiler: enough to make the preparation small.
const ROUNDS: usize = 60;

/// With an argument that names a case, some rounds of it on one thread: for `perf stat -e task-clock`, which does not count
/// what other processes take.
fn profile(case: &str) {
    let (pool, isa) = (Pool::new(1), Isa::detect());
    match case {
        "attention-f32" => profile_attention::<f32>(&pool, isa),
        "attention-bf16" => profile_attention::<Bf16>(&pool, isa),
        "thin-f32" => profile_linear::<f32>(&pool, isa, 8192, 384, 96),
        "thin-bf16" => profile_linear::<Bf16>(&pool, isa, 8192, 384, 96),
        "wide-f32" => profile_linear::<f32>(&pool, isa, 261, 1024, 4096),
        "thin-int8" => profile_linear::<Int8>(&pool, isa, 8192, 384, 96),
        "wide-int8" => profile_linear::<Int8>(&pool, isa, 261, 1024, 4096),
        "wide-bf16" => profile_linear::<Bf16>(&pool, isa, 261, 1024, 4096),
        "depthwise" => {
            let (x, weight, ones) = (numbers(64 * 64 * 96), numbers(49 * 96), vec![1.0; 96]);
            let mut out = vec![0.0_f32; x.len()];
            for _ in 0..ROUNDS {
                depthwise7x7_layer_norm(&pool, isa, &x, 1, 64, 64, 96, &weight, &ones, &ones, &ones, 1e-6, &mut out);
            }
            println!("{} multiply-adds", ROUNDS * 49 * x.len());
        }
        _ => println!("no such case"),
    }
}

fn profile_attention<E: Element>(pool: &Pool, isa: Isa) {
    let shape = AttentionShape { images: 2, tokens: 261, heads: 16, head_dim: 64 };
    let qkv = elements::<E>(2 * 261 * 3 * 1024);
    let mut scratch = AttentionScratch::default();
    let mut out = vec![E::default(); 2 * 261 * 1024];
    for _ in 0..ROUNDS {
        let scratch = &mut scratch;
        attention(pool, isa, &shape, &qkv, scratch, &mut out);
    }
    println!("{} multiply-adds", ROUNDS * 2 * 16 * 2 * 261 * 261 * 64);
}

fn profile_linear<E: Operand>(pool: &Pool, isa: Isa, m: usize, n: usize, k: usize) {
    let elements = elements::<E::Element>(m * k);
    let mut quantized = Vec::new();
    let a = E::operands(pool, isa, &elements, k, &mut quantized);
    let w = numbers(n * k);
    let packed = PackedMatrix::<E>::pack(isa, pool, n, k, &|start, rows: &mut [f32]| {
        rows.copy_from_slice(&w[start * k..start * k + rows.len()]);
        Ok::<(), ()>(())
    });
    let packed = packed.expect("the source never fails");
    let mut out = vec![E::Element::default(); m * n];
    for _ in 0..ROUNDS {
        let epilogue = Epilogue::Store { bias: Some(&w[..n]) };
        linear(pool, a, m, E::row_length(k), &packed, epilogue, &mut out, n);
    }
    println!("{} multiply-adds", ROUNDS * m * n * k);
}

fn main() {
    if let Err(error) = Isa::try_from_env() {
        eprintln!("error: {error}");
        std::process::exit(2);
    }
    if let Some(case) = std::env::args().nth(1).filter(|case| case.parse::<usize>().is_err()) {
        profile(&case);
        return;
    }
    let threads = std::env::args().nth(1).and_then(|threads| threads.parse().ok());
    let pool = Pool::new(threads.unwrap_or_else(available_threads));
    let isa = Isa::detect();
    println!("{} threads", pool.threads());
    products::<f32>(&pool, isa);
    heads::<f32>(&pool, isa);
    products::<Bf16>(&pool, isa);
    heads::<Bf16>(&pool, isa);
    products::<Int8>(&pool, isa);
}
