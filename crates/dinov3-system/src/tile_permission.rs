//! The permission to use the tile registers of AMX.
#![allow(unsafe_code)]

/// Asks the kernel for the tile registers of AMX, for all threads of this process. A register file of 8 KB per thread has
/// to be saved at every switch, so Linux gives it to those who ask. False where there is none: on other systems and
/// CPUs, in old kernels (before 5.16), under a hypervisor that hides it.
pub fn request_tile_registers() -> bool {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    {
        // From asm/prctl.h: ARCH_REQ_XCOMP_PERM, and the state component of the tiles' data, XFEATURE_XTILEDATA.
        const REQUEST_PERMISSION: libc::c_int = 0x1023;
        const TILE_DATA: libc::c_ulong = 18;
        // SAFETY: the call takes two numbers and touches no memory of this process.
        unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 }
    }
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    false
}
