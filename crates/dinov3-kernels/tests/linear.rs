//! Matrix products on every instruction set of this CPU and on emulated tiles.

mod common;

use common::*;
use dinov3_kernels::selftest::{Apply, linear as linear_check};
use dinov3_kernels::{Bf16, Element, Epilogue, Int8, Isa, Operand, PackedMatrix, linear};
use dinov3_system::threads::Pool;

fn plain<E: Operand>(isa: Isa, m: usize, n: usize, k: usize) {
    for guard in GUARDS {
        linear_check::<E, f32>(&guard, isa, (m, n, k), Apply::Store).assert_passed();
    }
}

#[test]
fn odd_shapes() {
    for isa in instruction_sets() {
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
fn a_packed_matrix_knows_its_size_and_layout() {
    let pool = Pool::new(1);
    for isa in instruction_sets() {
        let packed = pack::<Bf16>(isa, &pool, &[0.0; 65 * 33], 65, 33);
        assert_eq!((packed.n(), packed.k(), packed.isa()), (65, 33, isa));
        assert!(packed.bytes() >= 65 * 33 * 2);
    }
    assert!(Isa::SCALAR.layout().starts_with("panels64-tiles16-"));
    assert!(Isa::AMX_EMULATED.layout().starts_with("panels64-tiles16-amx-"));
}

#[test]
fn empty_matrices() {
    let pool = Pool::new(2);
    for isa in instruction_sets() {
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

fn epilogues<E: Operand, O: Element>(isa: Isa) {
    for guard in GUARDS {
        for apply in [Apply::Bias, Apply::Gelu, Apply::SwiGlu] {
            linear_check::<E, O>(&guard, isa, (14, 160, 50), apply).assert_passed();
        }
    }
}

#[test]
fn every_epilogue() {
    for isa in instruction_sets() {
        epilogues::<f32, f32>(isa);
        epilogues::<f32, Bf16>(isa);
        epilogues::<Bf16, f32>(isa);
        epilogues::<Bf16, Bf16>(isa);
        epilogues::<Int8, f32>(isa);
        epilogues::<Int8, Bf16>(isa);
        for guard in GUARDS {
            linear_check::<f32, f32>(&guard, isa, (14, 160, 50), Apply::Residual).assert_passed();
            linear_check::<Bf16, f32>(&guard, isa, (14, 160, 50), Apply::Residual).assert_passed();
            linear_check::<Int8, f32>(&guard, isa, (14, 160, 50), Apply::Residual).assert_passed();
        }
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
    for isa in instruction_sets() {
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
    let exact = Exact::product(&a, m, &w, n, k);
    for isa in instruction_sets() {
        let packed = pack::<f32>(isa, &pool, &w, n, k);
        let mut out = vec![0.0_f32; m * n];
        let store = Epilogue::Store { bias: None };
        linear(&pool, &a, m, k, &packed, store, &mut out, n);
        for (&got, (want, bound)) in out.iter().zip(exact.values.iter().zip(&exact.bounds)) {
            assert!((f64::from(got) - want).abs() <= *bound);
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
