//! What the processor packages have used, where the kernel says it: RAPL's counters under `powercap` of Linux.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const COUNTERS: &str = "/sys/class/powercap";
/// How often counters are read. They start again after 65 to 262 kJ, which a large package uses in some minutes.
const INTERVAL: Duration = Duration::from_secs(20);

/// Counters of all packages, read when it was made and from then on.
pub struct EnergyMeter {
    start: Instant,
    packages: Arc<Mutex<Vec<Package>>>,
    /// What reads them, where there are some; it ends when the sender is dropped.
    reader: Option<(Sender<()>, JoinHandle<()>)>,
}

struct Package {
    folder: PathBuf,
    /// Where the counter starts again, in microjoules.
    range: u64,
    /// What it said last.
    last: u64,
    /// What was used since it was read first. Nothing once it could not be read.
    used: Option<u64>,
}

impl Package {
    fn read(&mut self) {
        let Some(now) = number(&self.folder.join("energy_uj")) else {
            self.used = None;
            return;
        };
        let step = if now >= self.last { now - self.last } else { now + self.range.saturating_sub(self.last) };
        self.used = self.used.map(|used| used + step);
        self.last = now;
    }
}

impl EnergyMeter {
    /// Reads the counters; on most machines only root may.
    pub fn start() -> Self {
        Self::start_at(Path::new(COUNTERS), INTERVAL)
    }

    fn start_at(folder: &Path, interval: Duration) -> Self {
        // Zones of packages are called `intel-rapl:N`, those within them `intel-rapl:N:M`. AMD's are called so, too.
        let is_package = |path: &PathBuf| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            name.starts_with("intel-rapl:") && name.matches(':').count() == 1
        };
        let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let packages: Vec<Package> = entries
            .filter(is_package)
            .filter_map(|folder| {
                let last = number(&folder.join("energy_uj"))?;
                let range = number(&folder.join("max_energy_range_uj")).unwrap_or(u64::MAX);
                Some(Package { folder, range, last, used: Some(0) })
            })
            .collect();
        let has_some = !packages.is_empty();
        let packages = Arc::new(Mutex::new(packages));
        let reader = has_some.then(|| read_on(Arc::clone(&packages), interval)).flatten();
        Self { start: Instant::now(), packages, reader }
    }

    /// `emb:energy` since the start: of the whole machine, whoever used it. Nothing where there are no counters.
    pub fn stop(mut self) -> Option<Value> {
        let (end, thread) = self.reader.take()?;
        drop(end);
        thread.join().ok()?;
        let mut packages = self.packages.lock().unwrap_or_else(PoisonError::into_inner);
        packages.iter_mut().for_each(Package::read);
        let microjoules: u64 = packages.iter().map(|package| package.used).sum::<Option<u64>>()?;
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

/// Reads counters again and again, so that none starts again twice in between.
fn read_on(packages: Arc<Mutex<Vec<Package>>>, interval: Duration) -> Option<(Sender<()>, JoinHandle<()>)> {
    let (end, ended) = channel();
    let read = move || {
        while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            packages.lock().unwrap_or_else(PoisonError::into_inner).iter_mut().for_each(Package::read);
        }
    };
    let thread = std::thread::Builder::new().name("dinov3-energy".to_owned()).spawn(read).ok()?;
    Some((end, thread))
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
        assert_eq!(EnergyMeter::start_at(folder.path(), INTERVAL).stop(), None);
        for (zone, counter) in [("intel-rapl:0", 5), ("intel-rapl:1", 999_000_000), ("intel-rapl:0:0", 7)] {
            write(zone, counter);
        }
        let meter = EnergyMeter::start_at(folder.path(), INTERVAL);
        write("intel-rapl:0", 2_000_005);
        write("intel-rapl:1", 600_000);
        write("intel-rapl:0:0", 1_000_007);
        let energy = meter.stop().unwrap();
        let kilowatt_hours = energy["energy_kwh"].as_f64().unwrap();
        assert!((kilowatt_hours - 3.6 / 3.6e6).abs() < 1e-12, "{energy}");
    }

    #[test]
    fn a_counter_that_starts_again_several_times_is_counted_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let zone = folder.path().join("intel-rapl:0");
        fs::create_dir_all(&zone).unwrap();
        let write = |counter: u64| {
            fs::write(zone.join("new"), counter.to_string()).unwrap();
            fs::rename(zone.join("new"), zone.join("energy_uj")).unwrap();
        };
        fs::write(zone.join("max_energy_range_uj"), "1000000000").unwrap();
        write(0);
        let meter = EnergyMeter::start_at(folder.path(), Duration::from_millis(2));
        for step in 1..=5_u64 {
            let counter = step * 700_000_000 % 1_000_000_000;
            write(counter);
            let deadline = Instant::now() + Duration::from_secs(20);
            while meter.packages.lock().unwrap()[0].last != counter && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        let energy = meter.stop().unwrap();
        assert!((energy["energy_kwh"].as_f64().unwrap() - 3500.0 / 3.6e6).abs() < 1e-12, "{energy}");
    }
}
