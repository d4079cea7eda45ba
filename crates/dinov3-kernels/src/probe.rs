//! The rate that the machine can reach at all: multiply-adds on registers only. For benchmarks: the share of a peak means
//! little if the peak is from a table.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dinov3_system::threads::available_threads;

use crate::amx;
use crate::bf16::Bf16;
use crate::element::{Operand, SealedOperand};
use crate::int8::Int8;
use crate::isa::Isa;
use crate::simd::{Kernel, LANES, Part, Simd, dispatch, dispatch_integers};

/// Independent sums: enough to hide the latency of a multiply-add, and no more than there are registers for. A vector is
/// four registers of sixteen for portable code, and two with AVX2.
fn sums_of<S: Simd>() -> usize {
    match (S::TILE_VECTORS, S::TILE_ROWS) {
        (1, 2) => 3,
        (1, _) => 6,
        _ => MOST_SUMS,
    }
}
const MOST_SUMS: usize = 12;

struct Probe<E> {
    rounds: usize,
    seed: E,
}

impl<E: Operand> Kernel for Probe<E> {
    /// Operations of all rounds, a multiplication and an addition counted as two.
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        let word = simd.splat_word(E::half_word(std::hint::black_box(self.seed)));
        let factor = E::part_of_columns(simd, word, Part::Even);
        // Different ones in all lanes, or the compiler could compute one for several.
        let mut lanes = [0.0; LANES];
        let mut sums = [factor; MOST_SUMS];
        for (index, sum) in sums.iter_mut().enumerate() {
            for (lane, value) in lanes.iter_mut().enumerate() {
                *value = (index * LANES + lane) as f32;
            }
            *sum = simd.load(&lanes);
        }
        for _ in 0..self.rounds {
            for sum in &mut sums[..sums_of::<S>()] {
                // A product of constants would be computed once for all rounds where it is an instruction of its own.
                *sum = E::accumulate(simd, *sum, *sum, factor);
            }
        }
        let mut total = simd.splat(0.0);
        for sum in sums {
            total = simd.add(total, sum);
        }
        std::hint::black_box(simd.sum(total));
        let numbers = <E as SealedOperand>::GROUP / if E::is_apart::<S>() { 2 } else { 1 };
        (self.rounds * sums_of::<S>() * LANES * numbers * 2) as f64
    }
}

/// Rounds of one burst: half a millisecond, short enough that some bursts meet no other process.
const BURST_ROUNDS: usize = 200_000;
/// A round on tiles multiplies as much as this many on vectors at the least, and takes as long.
const TILE_PART: usize = 16;
/// How long bursts are tried.
const PROBING: Duration = Duration::from_millis(60);

/// What the machine's multiply-add units give.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// Floating-point operations per second of all threads together: the fastest bursts, because other processes only
    /// ever take away.
    pub flops: f64,
    /// The share of it that all bursts together reached, of the slowest thread. Below 1 while others use the same cores:
    /// other processes, or what runs on the second thread of a core, which no load average and no clock shows.
    pub undisturbed_share: f64,
}

/// What so many threads together reach on operands of type `E`, but no more threads than this process may use.
///
/// Every thread repeats short bursts while all of them run. Bursts of all threads together would not do: on a busy machine
/// the threads hardly ever run at once.
pub fn measure_peak<E: Operand>(threads: usize, isa: Isa) -> Peak {
    let threads = threads.clamp(1, available_threads());
    let (running, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let probe = || {
        running.fetch_add(1, Ordering::Relaxed);
        let start = Instant::now();
        let mut best: f64 = 0.0;
        let mut operations_together = 0.0;
        let mut together = Duration::ZERO;
        loop {
            let all_run = running.load(Ordering::Relaxed) == threads;
            let burst = Instant::now();
            let operations = burst_of::<E>(isa, BURST_ROUNDS);
            let elapsed = burst.elapsed();
            if best == 0.0 || all_run && !stop.load(Ordering::Relaxed) {
                best = best.max(operations / elapsed.as_secs_f64());
                operations_together += operations;
                together += elapsed;
            }
            if start.elapsed() > PROBING {
                stop.store(true, Ordering::Relaxed);
            }
            if stop.load(Ordering::Relaxed) {
                return Peak { flops: best, undisturbed_share: operations_together / together.as_secs_f64() / best };
            }
        }
    };
    std::thread::scope(|scope| {
        let thread = || std::thread::Builder::new().spawn_scoped(scope, probe).ok();
        let others: Vec<_> = (1..threads).filter_map(|_| thread()).collect();
        let own = probe();
        others.into_iter().filter_map(|other| other.join().ok()).fold(own, |all, other| Peak {
            flops: all.flops + other.flops,
            undisturbed_share: all.undisturbed_share.min(other.undisturbed_share),
        })
    })
}

/// Keeps the multiply-add units of this thread busy on operands of type `E`, and gives the number of operations, a
/// multiplication and an addition counted as two.
fn burst_of<E: Operand>(isa: Isa, rounds: usize) -> f64 {
    if let Some(words) = amx::burst::<E>(isa, rounds / TILE_PART) {
        return (rounds * words * 2 * <E as SealedOperand>::GROUP) as f64 / TILE_PART as f64;
    }
    // All types are compiled here and not in the benchmark.
    match E::NAME {
        <f32 as Operand>::NAME => dispatch(isa, Probe { rounds, seed: 0.5_f32 }),
        <Bf16 as Operand>::NAME => dispatch(isa, Probe { rounds, seed: Bf16::from_f32(0.5) }),
        _ => dispatch_integers(isa, Probe { rounds, seed: Int8(1) }),
    }
}
