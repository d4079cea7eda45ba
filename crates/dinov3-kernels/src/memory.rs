//! Buffers: aligned numbers, and an output that several tasks fill at once.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crate::simd::Simd;

/// Numbers that start on a cache line: a row that does not is read from two lines at a time, which halves the speed of tiles.
pub struct AlignedVec<T> {
    numbers: Vec<T>,
    start: usize,
    length: usize,
}

/// 32-bit words, of whatever numbers.
pub(crate) type AlignedWords = AlignedVec<u32>;

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

impl<T> Default for AlignedVec<T> {
    fn default() -> AlignedVec<T> {
        AlignedVec { numbers: Vec::new(), start: 0, length: 0 }
    }
}

impl<T: Copy + Default> AlignedVec<T> {
    /// So many zeros.
    pub fn zeroed(length: usize) -> AlignedVec<T> {
        let spare = LINE / size_of::<T>() - 1;
        let numbers = vec![T::default(); length + spare];
        let start = numbers.as_ptr().align_offset(LINE).min(spare);
        AlignedVec { numbers, start, length }
    }

    /// Makes room for at least `length` numbers. Those that were written before may stay or become zero.
    pub fn grow(&mut self, length: usize) {
        if self.length < length {
            // The old block goes first: the two together may not fit.
            *self = AlignedVec::default();
            *self = AlignedVec::zeroed(length);
        }
    }

    /// Holds `length` numbers from now on. Those that were written before may stay or become zero.
    pub fn resize(&mut self, length: usize) {
        if length <= self.numbers.len().saturating_sub(self.start) {
            self.length = length;
        } else {
            self.grow(length);
        }
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        &self.numbers[self.start..self.start + self.length]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.numbers[self.start..self.start + self.length]
    }
}

impl AlignedWords {
    pub(crate) fn as_floats_mut(&mut self) -> &mut [f32] {
        let words = self.as_mut_slice();
        // SAFETY: u32 and f32 have the same size and alignment, and all bits are a value of either.
        unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len()) }
    }
}

impl<T: Copy + Default> Deref for AlignedVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.as_slice()
    }
}

impl<T: Copy + Default> DerefMut for AlignedVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.as_mut_slice()
    }
}

impl<T> fmt::Debug for AlignedVec<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AlignedVec({})", self.length)
    }
}

/// A slice of which each task writes its own part.
pub(crate) struct SharedOutput<'a, T> {
    start: *mut T,
    length: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through `part`, whose callers keep the parts of different threads apart.
unsafe impl<T: Send> Sync for SharedOutput<'_, T> {}

impl<'a, T> SharedOutput<'a, T> {
    pub(crate) fn new(output: &'a mut [T]) -> SharedOutput<'a, T> {
        SharedOutput { start: output.as_mut_ptr(), length: output.len(), borrow: PhantomData }
    }

    /// `length` elements from `start`.
    ///
    /// # Safety
    /// No two parts that are alive at the same time overlap.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, start: usize, length: usize) -> &mut [T] {
        assert!(start <= self.length && length <= self.length - start);
        // SAFETY: inside the slice that this value borrows; apart from all other parts by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), length) }
    }

    /// Announces that `length` elements from `start` will be used.
    #[inline(always)]
    pub(crate) fn prefetch<S: Simd>(&self, simd: S, start: usize, length: usize) {
        let bytes = self.start.wrapping_add(start).cast::<u8>();
        for at in (0..length * size_of::<T>()).step_by(LINE) {
            simd.prefetch(bytes.wrapping_add(at).cast());
        }
    }
}
