//! How the images of a batch are given to threads.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use dinov3_system::threads::Pool;

/// How a batch goes through the steps of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Division {
    /// Images that go through a step together.
    images: usize,
    /// Whether each thread takes such images through a step on its own; else all threads share every step.
    is_own: bool,
}

impl Division {
    /// On its own, a thread never waits for another within a step. Waiting costs a few percent, a quarter of the speed where
    /// two cores are far from each other, and more where another process takes one of them. It needs rows enough that
    /// reading the weights does not show, and images enough that all threads finish at about the same time. Else images
    /// are enough for all threads to work on, and few, so that what is handed on within a step is still in cache.
    pub fn new(count: usize, rows_per_image: usize, threads: usize) -> Self {
        /// Rows per thread below which reading the weights would show.
        const FEWEST_ROWS: usize = 256;
        let even = |wanted: usize| count.div_ceil(count.div_ceil(wanted).max(1)).max(1);
        let own = Self { images: even(FEWEST_ROWS.div_ceil(rows_per_image)), is_own: true };
        match threads > 1 && count / own.images >= 2 * threads {
            true => own,
            false => Self::shared(count, rows_per_image, threads),
        }
    }

    /// All threads share every step.
    pub fn shared(count: usize, rows_per_image: usize, threads: usize) -> Self {
        const FEWEST_ROWS: usize = 256;
        let wanted = threads.max((threads * FEWEST_ROWS).div_ceil(rows_per_image));
        Self { images: count.div_ceil(count.div_ceil(wanted).max(1)).max(1), is_own: false }
    }

    /// Takes all images through some steps. `values` holds `values_per_image` of each image and is changed in place.
    ///
    /// `step` gets its number, the pool on which its loops run, scratch memory that nobody else uses meanwhile, and the
    /// values of some images.
    pub fn run<T: Send, S: Default + Send>(
        self,
        pool: &Pool,
        steps: Range<usize>,
        values: &mut [T],
        values_per_image: usize,
        scratch: &mut Vec<Mutex<S>>,
        step: impl Fn(usize, &Pool, &mut S, &mut [T]) + Sync,
    ) {
        let parts = values.chunks_mut((self.images * values_per_image).max(1));
        let threads = if self.is_own { pool.threads() } else { 1 };
        scratch.resize_with(scratch.len().max(threads), Mutex::default);
        if !self.is_own {
            let scratch = scratch[0].get_mut().unwrap_or_else(PoisonError::into_inner);
            let mut parts: Vec<_> = parts.collect();
            for index in steps {
                parts.iter_mut().for_each(|part| step(index, pool, scratch, part));
            }
            return;
        }
        let parts: Vec<_> = parts.map(Mutex::new).collect();
        let progress = Progress::new(parts.len(), steps);
        let alone = Pool::new(1);
        pool.run_with_worker(threads, &|_, worker| {
            let mut scratch = scratch[worker].lock().unwrap_or_else(PoisonError::into_inner);
            while let Some((part, index)) = progress.take() {
                let mut values = parts[part].lock().unwrap_or_else(PoisonError::into_inner);
                step(index, &alone, &mut scratch, &mut values);
                drop(values);
                progress.give_back(part);
            }
        });
    }
}

/// How far the parts of a batch have come.
struct Progress {
    parts: Mutex<Vec<PartProgress>>,
    end: usize,
}

#[derive(Clone)]
struct PartProgress {
    next: usize,
    is_taken: bool,
}

impl Progress {
    fn new(parts: usize, steps: Range<usize>) -> Self {
        Self { parts: Mutex::new(vec![PartProgress { next: steps.start, is_taken: false }; parts]), end: steps.end }
    }

    /// The part that has come least far, so that all use the same weights at about the same time, and the step that it
    /// takes now; nothing when all that is left is in other hands.
    fn take(&self) -> Option<(usize, usize)> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let free = parts.iter_mut().enumerate().filter(|(_, part)| !part.is_taken && part.next < self.end);
        let (index, part) = free.min_by_key(|(_, part)| part.next)?;
        part.is_taken = true;
        Some((index, part.next))
    }

    fn give_back(&self, part: usize) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts[part].next += 1;
        parts[part].is_taken = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_go_on_their_own_where_there_are_enough_for_all_threads() {
        assert_eq!(Division::new(8, 261, 2), Division { images: 1, is_own: true });
        assert_eq!(Division::new(64, 21, 2), Division { images: 13, is_own: true });
        assert_eq!(Division::new(3, 261, 2), Division::shared(3, 261, 2));
        assert_eq!(Division::new(8, 261, 16), Division::shared(8, 261, 16));
        assert_eq!(Division::new(8, 261, 1), Division::shared(8, 261, 1));
        assert_eq!(Division::shared(8, 261, 2), Division { images: 2, is_own: false });
        assert_eq!(Division::shared(1, 261, 2), Division { images: 1, is_own: false });
    }

    #[test]
    fn every_image_takes_every_step_once_and_in_order() {
        for (count, threads) in [(1, 1), (1, 3), (5, 2), (8, 2), (9, 4), (64, 3)] {
            let division = Division::new(count, 300, threads);
            let pool = Pool::new(threads);
            let mut values = vec![0_u64; count * 2];
            let mut scratch: Vec<Mutex<Vec<u64>>> = Vec::new();
            division.run(&pool, 3..9, &mut values, 2, &mut scratch, |index, _, scratch, values| {
                scratch.push(values.len() as u64);
                values.iter_mut().for_each(|value| *value = *value * 10 + index as u64);
            });
            assert_eq!(values, vec![345_678; count * 2], "{count} images, {threads} threads");
            let taken: u64 = scratch.into_iter().flat_map(|scratch| scratch.into_inner().unwrap()).sum();
            assert_eq!(taken, 6 * 2 * count as u64);
        }
    }

    #[test]
    fn the_part_that_has_come_least_far_is_next() {
        let progress = Progress::new(2, 0..2);
        assert_eq!(progress.take(), Some((0, 0)));
        assert_eq!(progress.take(), Some((1, 0)));
        assert_eq!(progress.take(), None);
        progress.give_back(1);
        assert_eq!(progress.take(), Some((1, 1)));
        progress.give_back(0);
        progress.give_back(1);
        assert_eq!(progress.take(), Some((0, 1)));
        assert_eq!(progress.take(), None);
    }
}
