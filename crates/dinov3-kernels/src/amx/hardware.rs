//! The tile instructions. The compiler has no stable names for them, but its assembler has.
//!
//! A tile keeps its content from one block of assembly to the next: the compiler never uses tiles by itself, since no
//! function here is compiled for AMX, and the kernel of the operating system saves them with the thread.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::marker::PhantomData;
use std::sync::OnceLock;

use super::TileOps;

/// The first thing that this machine lacks for tiles of bf16 and bytes.
pub(crate) fn cpu_lacks() -> Option<&'static str> {
    static LACKS: OnceLock<Option<&str>> = OnceLock::new();
    *LACKS.get_or_init(|| {
        // SAFETY: every x86-64 CPU has the instruction, and leaf 0 says how far the leaves go.
        #[allow(unused_unsafe)]
        let features = unsafe { if __cpuid_count(0, 0).eax < 7 { 0 } else { __cpuid_count(7, 0).edx } };
        for (bit, name) in [(24, "amx-tile"), (22, "amx-bf16"), (25, "amx-int8")] {
            if features >> bit & 1 == 0 {
                return Some(name);
            }
        }
        let permitted = dinov3_system::request_tile_registers();
        (!permitted).then_some("the operating system's permission to use AMX tiles")
    })
}

/// How many rows of how many bytes each tile has, as LDTILECFG reads it.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

const WHOLE_TILES: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// The tile registers of this thread.
pub(crate) struct Hardware(
    // Another thread has tiles of its own.
    PhantomData<*const ()>,
);

impl Hardware {
    /// # Safety
    /// [`cpu_lacks`] nothing, and this thread has no other value of this type.
    pub(crate) unsafe fn configure() -> Hardware {
        // SAFETY: the CPU has the instruction; the configuration is 64 bytes of a valid palette.
        unsafe { asm!("ldtilecfg [{0}]", in(reg) &WHOLE_TILES, options(nostack, readonly, preserves_flags)) };
        Hardware(PhantomData)
    }
}

impl Drop for Hardware {
    fn drop(&mut self) {
        // SAFETY: the CPU has the instruction, or there would be no such value.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

impl TileOps for Hardware {
    #[inline(always)]
    fn zero<const TILE: usize>(&mut self) {
        // SAFETY: the tiles are configured as long as this value lives.
        unsafe { asm!("tilezero tmm{tile}", tile = const TILE, options(nostack, nomem, preserves_flags)) };
    }

    #[inline(always)]
    unsafe fn load<const TILE: usize>(&mut self, source: *const u8, stride_bytes: usize) {
        // SAFETY: sixteen rows of 64 bytes by this function's contract.
        unsafe {
            asm!(
                "tileloadd tmm{tile}, [{source} + {stride} * 1]",
                tile = const TILE, source = in(reg) source, stride = in(reg) stride_bytes,
                options(nostack, readonly, preserves_flags)
            );
        }
    }

    #[inline(always)]
    unsafe fn store<const TILE: usize>(&mut self, target: *mut u8, stride_bytes: usize) {
        // SAFETY: sixteen rows of 64 bytes by this function's contract.
        unsafe {
            asm!(
                "tilestored [{target} + {stride} * 1], tmm{tile}",
                tile = const TILE, target = in(reg) target, stride = in(reg) stride_bytes,
                options(nostack, preserves_flags)
            );
        }
    }

    #[inline(always)]
    fn dot_bf16<const C: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: the tiles are configured as long as this value lives.
        unsafe {
            asm!(
                "tdpbf16ps tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,
                options(nostack, nomem, preserves_flags)
            );
        }
    }

    #[inline(always)]
    fn dot_u8s8<const C: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: the tiles are configured as long as this value lives.
        unsafe {
            asm!(
                "tdpbusd tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,
                options(nostack, nomem, preserves_flags)
            );
        }
    }
}
