//! How much memory this process takes.

/// Memory of this process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryUse {
    /// The most that was ever resident, pages of mapped files included.
    pub peak_resident_bytes: u64,
    /// Resident now and not backed by a file: what cannot be given back without the swap.
    pub anonymous_bytes: u64,
}

/// Asks the system; `None` where it has no `/proc/self/status`.
pub fn memory_use() -> Option<MemoryUse> {
    parse(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse(status: &str) -> Option<MemoryUse> {
    let bytes = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kibibytes.checked_mul(1024)
    };
    Some(MemoryUse { peak_resident_bytes: bytes("VmHWM")?, anonymous_bytes: bytes("RssAnon")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_and_converted() {
        let status = "Name:\tdinov3\nVmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\nRssAnon:\t     12 kB\n";
        let expected = MemoryUse { peak_resident_bytes: 2 << 20, anonymous_bytes: 12 << 10 };
        assert_eq!(parse(status), Some(expected));
        assert_eq!(parse("VmHWM:\t 2048 pages\nRssAnon: 1 kB"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_takes_memory() {
        assert!(memory_use().unwrap().peak_resident_bytes > 100_000);
    }
}
