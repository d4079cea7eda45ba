//! Buffers: aligned words, and an output that several tasks fill at once.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use crate::simd::Simd;

/// Zeroed 32-bit words that start on a cache line.
#[derive(Default)]
pub(crate) struct AlignedWords {
    words: Vec<u32>,
    start: usize,
    length: usize,
}

const LINE: usize = 64;

impl AlignedWords {
    pub(crate) fn zeroed(length: usize) -> AlignedWords {
        let words = vec![0; length + LINE / 4 - 1];
        let start = words.as_ptr().align_offset(LINE).min(LINE / 4 - 1);
        AlignedWords { words, start, length }
    }

    /// Makes room for `length` words. Words that were written before may stay.
    pub(crate) fn grow(&mut self, length: usize) {
        if self.length < length {
            // The old block goes first: the two together may not fit.
            *self = AlignedWords::default();
            *self = AlignedWords::zeroed(length);
        }
    }

    pub(crate) fn as_slice(&self) -> &[u32] {
        &self.words[self.start..self.start + self.length]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u32] {
        &mut self.words[self.start..self.start + self.length]
    }

    pub(crate) fn as_floats_mut(&mut self) -> &mut [f32] {
        let words = self.as_mut_slice();
        // SAFETY: u32 and f32 have the same size and alignment, and all bits are a value of either.
        unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len()) }
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
