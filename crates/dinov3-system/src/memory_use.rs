//! How much memory this process takes, and how much it may take.

use std::path::Path;

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

/// The memory that this process may take, in bytes: the machine's, or less where its control group (a container, a batch
/// system) says so. `None` where the system does not tell as Linux does.
pub fn memory_limit() -> Option<u64> {
    let machine = total(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(group_limits(&groups, Path::new("/sys/fs/cgroup")).fold(machine, u64::min))
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The limits of the group that `/proc/self/cgroup` names and of the groups around it; version 2 has one tree, version 1
/// one for memory. In a container the path may be that outside, where no such folder is: the tree's root is looked at.
fn group_limits<'a>(groups: &'a str, tree: &'a Path) -> impl Iterator<Item = u64> + 'a {
    groups
        .lines()
        .filter_map(move |line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
            if controllers.is_empty() {
                return Some((tree.to_path_buf(), path, "memory.max"));
            }
            let memory = controllers.split(',').any(|controller| controller == "memory");
            memory.then(|| (tree.join("memory"), path, "memory.limit_in_bytes"))
        })
        .flat_map(|(root, path, file)| {
            let folders: Vec<_> = Path::new(path).ancestors().map(|folder| root.join(folder).join(file)).collect();
            folders
        })
        // "max" is no number, and no limit.
        .filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_limit_around_a_process_counts() {
        let tree = std::env::temp_dir().join(format!("dinov3-groups-{}", std::process::id()));
        let write = |name: &str, text: &str| {
            let path = tree.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("a/memory.max", "2000\n");
        write("a/b/memory.max", "max\n");
        write("memory/job/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/memory.limit_in_bytes", "700\n");
        let narrowest = |groups: &str| group_limits(groups, &tree).min();
        assert_eq!(narrowest("0::/a/b\n"), Some(2000));
        assert_eq!(narrowest("0::/elsewhere\n"), None);
        assert_eq!(narrowest("12:cpu,cpuacct:/a\n4:memory:/job\n1:name=systemd:/x\n"), Some(700));
        assert_eq!(narrowest("nonsense\n"), None);
        assert_eq!(total("MemTotal:       24000 kB\nMemFree: 1 kB\n"), Some(24_576_000));
        std::fs::remove_dir_all(&tree).unwrap();
    }

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
