//! What the test files share: the instruction sets to test, and memory between pages that nobody may touch.
#![allow(dead_code, unused_imports)]

pub use dinov3_kernels::selftest::{BF16_EPS, EPS, Exact, Heap, Place, Random, gelu, pack, product_bound, silu, unit};
use dinov3_kernels::{Element, Isa};

/// What this CPU has, and the emulated tiles.
pub fn instruction_sets() -> Vec<Isa> {
    let mut all = Isa::all_supported();
    all.push(Isa::AMX_EMULATED);
    for candidate in Isa::candidates().iter().filter(|candidate| candidate.isa.is_none()) {
        println!("{} skipped: {}", candidate.name, candidate.obstacle.as_deref().unwrap_or_default());
    }
    all
}

#[cfg(unix)]
mod guard {
    use dinov3_kernels::selftest::Place;
    use dinov3_system::guarded::{Edge, Guarded};

    /// Slices that touch a page which ends the process.
    pub struct Guard(Edge);

    impl Place for Guard {
        type Slice<T: Copy> = Guarded<T>;

        fn copy<T: Copy>(&self, values: &[T]) -> Guarded<T> {
            Guarded::new(values, self.0).expect("pages")
        }
    }

    /// One at the start of every slice, one at the end.
    pub const GUARDS: [Guard; 2] = [Guard(Edge::Start), Guard(Edge::End)];
}

#[cfg(unix)]
pub use guard::GUARDS;
/// Elsewhere without guards.
#[cfg(not(unix))]
pub const GUARDS: [Heap; 1] = [Heap];

pub fn to_elements<E: Element>(values: &[f32]) -> Vec<E> {
    values.iter().map(|&value| E::from_f32(value)).collect()
}

pub fn bits<E: Element>(values: &[E]) -> Vec<u32> {
    values.iter().map(|value| value.to_f32().to_bits()).collect()
}
