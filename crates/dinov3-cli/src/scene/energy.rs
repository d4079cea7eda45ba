//! What the processor packages have used, where the kernel says it: RAPL's counters under `powercap` of Linux.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

const COUNTERS: &str = "/sys/class/powercap";

/// Counters of all packages, read when it was made.
pub struct EnergyMeter {
    start: Instant,
    /// The folder of each package, its counter in microjoules and where that starts again.
    packages: Vec<(PathBuf, u64, u64)>,
}

impl EnergyMeter {
    /// Reads the counters; on most machines only root may.
    pub fn start() -> Self {
        Self::start_at(Path::new(COUNTERS))
    }

    fn start_at(folder: &Path) -> Self {
        // Zones of packages are called `intel-rapl:N`, those within them `intel-rapl:N:M`. AMD's are called so, too.
        let is_package = |path: &PathBuf| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            name.starts_with("intel-rapl:") && name.matches(':').count() == 1
        };
        let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut packages: Vec<_> = entries
            .filter(is_package)
            .filter_map(|path| {
                let counter = number(&path.join("energy_uj"))?;
                let range = number(&path.join("max_energy_range_uj")).unwrap_or(u64::MAX);
                Some((path, counter, range))
            })
            .collect();
        packages.sort();
        Self { start: Instant::now(), packages }
    }

    /// `emb:energy` since the start: of the whole machine, whoever used it. Nothing where there are no counters.
    pub fn stop(&self) -> Option<Value> {
        if self.packages.is_empty() {
            return None;
        }
        let mut microjoules = 0;
        for (path, before, range) in &self.packages {
            let now = number(&path.join("energy_uj"))?;
            microjoules += if now >= *before { now - before } else { now + range.saturating_sub(*before) };
        }
        let (joules, seconds) = (microjoules as f64 / 1e6, self.start.elapsed().as_secs_f64());
        Some(json!({
            "device_type": "cpu",
            "energy_kwh": joules / 3.6e6,
            "inference_duration_s": seconds,
            "avg_power_w": joules / seconds.max(1e-9),
            "name": "RAPL counters of all processor packages",
        }))
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_counted_once_and_around_the_end_of_a_counter() {
        let folder = tempfile::tempdir().unwrap();
        let write = |zone: &str, counter: u64| {
            let zone = folder.path().join(zone);
            fs::create_dir_all(&zone).unwrap();
            fs::write(zone.join("energy_uj"), format!("{counter}\n")).unwrap();
            fs::write(zone.join("max_energy_range_uj"), "1000000000\n").unwrap();
        };
        assert_eq!(EnergyMeter::start_at(folder.path()).stop(), None);
        for (zone, counter) in [("intel-rapl:0", 5), ("intel-rapl:1", 999_000_000), ("intel-rapl:0:0", 7)] {
            write(zone, counter);
        }
        let meter = EnergyMeter::start_at(folder.path());
        write("intel-rapl:0", 2_000_005);
        write("intel-rapl:1", 600_000);
        write("intel-rapl:0:0", 1_000_007);
        let energy = meter.stop().unwrap();
        let kilowatt_hours = energy["energy_kwh"].as_f64().unwrap();
        assert!((kilowatt_hours - 3.6 / 3.6e6).abs() < 1e-12, "{energy}");
    }
}
