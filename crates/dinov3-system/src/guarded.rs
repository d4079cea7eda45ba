//! Memory between two pages that cannot be touched, for tests: what reads or writes past an end ends the process.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// Which end of a [`Guarded`] slice touches a forbidden page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Whatever lies before the first value is forbidden.
    Start,
    /// Whatever lies behind the last value is forbidden.
    End,
}

/// A copy of a slice, at one edge of pages of its own.
pub struct Guarded<T> {
    map: *mut libc::c_void,
    map_bytes: usize,
    values: *mut T,
    length: usize,
    owned: PhantomData<T>,
}

impl<T: Copy> Guarded<T> {
    /// Copies `values` to fresh pages.
    ///
    /// # Errors
    /// What the operating system says if it has no such memory.
    pub fn new(values: &[T], edge: Edge) -> std::io::Result<Guarded<T>> {
        // SAFETY: asks for a number.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let bytes = size_of_val(values);
        let inside = bytes.next_multiple_of(page);
        let map_bytes = inside + 2 * page;
        // SAFETY: new pages wherever there is room; nothing of this process is replaced.
        let map = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(std::ptr::null_mut(), map_bytes, libc::PROT_NONE, flags, -1, 0)
        };
        if map == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let before = match edge {
            Edge::Start => 0,
            // The size of a type is a multiple of its alignment, and so is the end of a page.
            Edge::End => inside - bytes,
        };
        // SAFETY: inside the map.
        let target = unsafe { map.cast::<u8>().add(page + before).cast::<T>() };
        let guarded = Guarded { map, map_bytes, values: target, length: values.len(), owned: PhantomData };
        // SAFETY: the pages between the outer two, which belong to this value; then room for the values, aligned as above.
        unsafe {
            if inside > 0
                && libc::mprotect(map.cast::<u8>().add(page).cast(), inside, libc::PROT_READ | libc::PROT_WRITE) != 0
            {
                return Err(std::io::Error::last_os_error());
            }
            target.copy_from_nonoverlapping(values.as_ptr(), values.len());
        }
        Ok(guarded)
    }
}

impl<T> Deref for Guarded<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: so many initialised values lie there as long as this value lives.
        unsafe { std::slice::from_raw_parts(self.values, self.length) }
    }
}

impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.values, self.length) }
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the map that `new` made; the values are `Copy` and need no drop.
        unsafe { libc::munmap(self.map, self.map_bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_touch_the_forbidden_page() {
        for length in [0, 1, 1023, 1024, 1025] {
            let values: Vec<u32> = (0..length).collect();
            for edge in [Edge::Start, Edge::End] {
                let mut guarded = Guarded::new(&values, edge).unwrap();
                assert_eq!(*guarded, *values);
                guarded.iter_mut().for_each(|value| *value += 1);
                let at = match edge {
                    Edge::Start => guarded.as_ptr() as usize,
                    Edge::End => guarded.as_ptr_range().end as usize,
                };
                assert_eq!(at % 4096, 0);
            }
        }
    }
}
