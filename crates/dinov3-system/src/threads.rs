//! A fork-join pool for short parallel loops.
//!
//! Between two loops the workers spin for some tens of microseconds, because a forward pass is dozens of loops in a
//! row and waking a parked thread costs more than a small loop; after that they sleep and cost nothing.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long an idle worker spins before it sleeps.
const SPIN: Duration = Duration::from_micros(30);

/// The number of threads that this process may use.
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |threads| threads.get())
}

type Task = dyn Fn(usize, usize) + Sync;

/// One loop: what the workers need to take part in it.
#[derive(Clone, Copy)]
struct Job {
    task: *const Task,
    tasks: usize,
}

// The state word: epoch in the upper bits, then the number of workers that joined, then the open bit.
const OPEN: u64 = 1;
const JOINED: u64 = 2;
const JOINED_MASK: u64 = 0xfffe;
const EPOCH_SHIFT: u32 = 16;
/// The joined field has 15 bits.
const MOST_THREADS: usize = 4096;

struct Shared {
    state: AtomicU64,
    job: UnsafeCell<Option<Job>>,
    next: AtomicUsize,
    sleepers: AtomicUsize,
    stopping: AtomicBool,
    sleep_lock: Mutex<()>,
    wake: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written only while the state word is closed with nobody joined, by the one thread that holds the
// pool's run lock, and read only by threads that joined after it was opened. The task behind the pointer is Sync.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is only followed while the caller of `run` keeps the task alive.
unsafe impl Send for Shared {}

thread_local! {
    /// True while this thread runs a task of any pool: a loop started inside runs inline.
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks, so a poisoned lock still guards sound data.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Takes tasks until none is left. Panics are kept for the caller of `run`.
    fn work(&self, job: Job, worker: usize) {
        // SAFETY: the caller of `run` does not return, and so keeps the task alive, before every joined worker has left.
        let task = unsafe { &*job.task };
        IN_TASK.set(true);
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= job.tasks {
                break;
            }
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| task(index, worker))) {
                lock(&self.panic).get_or_insert(payload);
            }
        }
        IN_TASK.set(false);
    }

    /// Joins the open loop if it is not the one with number `last`. Gives its number and the job.
    fn join(&self, last: u64) -> Option<(u64, Job)> {
        let mut state = self.state.load(Ordering::SeqCst);
        loop {
            let epoch = state >> EPOCH_SHIFT;
            if state & OPEN == 0 || epoch == last {
                return None;
            }
            match self.state.compare_exchange_weak(state, state + JOINED, Ordering::AcqRel, Ordering::SeqCst) {
                Ok(_) => {
                    // SAFETY: joined while open, so the job is set and will not change until this thread has left.
                    let job = unsafe { *self.job.get() };
                    return job.map(|job| (epoch, job));
                }
                Err(now) => state = now,
            }
        }
    }

    fn worker_loop(&self, worker: usize) {
        let mut last = 0;
        while let Some((epoch, job)) = self.wait_for_job(last) {
            self.work(job, worker);
            last = epoch;
            self.state.fetch_sub(JOINED, Ordering::Release);
        }
    }

    fn wait_for_job(&self, last: u64) -> Option<(u64, Job)> {
        let start = Instant::now();
        loop {
            for _ in 0..64 {
                if let Some(found) = self.join(last) {
                    return Some(found);
                }
                std::hint::spin_loop();
            }
            if self.stopping.load(Ordering::SeqCst) {
                return None;
            }
            if start.elapsed() > SPIN {
                break;
            }
        }
        // The count goes up before the last look at the state; the caller of `run` opens the loop before it looks at the
        // count. One of the two sees the other, so no wake-up is lost.
        let mut guard = lock(&self.sleep_lock);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let found = loop {
            if let Some(found) = self.join(last) {
                break Some(found);
            }
            if self.stopping.load(Ordering::SeqCst) {
                break None;
            }
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        found
    }

    fn wake_sleepers(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = lock(&self.sleep_lock);
            self.wake.notify_all();
        }
    }
}

struct Owner {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One loop at a time.
    run_lock: Mutex<()>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.wake_sleepers();
        for worker in self.workers.drain(..) {
            // A worker catches every panic of a task, so there is nothing to report.
            let _ = worker.join();
        }
    }
}

/// A set of threads that share the tasks of one loop at a time. Clones use the same threads.
#[derive(Clone)]
pub struct Pool {
    owner: Arc<Owner>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

impl Pool {
    /// A pool in which `threads` threads work, the caller of `run` included. Fewer if the system refuses to start them.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            next: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            sleep_lock: Mutex::new(()),
            wake: Condvar::new(),
            panic: Mutex::new(None),
        });
        let workers = (1..threads.min(MOST_THREADS))
            .map_while(|worker| {
                let shared = shared.clone();
                std::thread::Builder::new()
                    .name(format!("dinov3-{worker}"))
                    .spawn(move || shared.worker_loop(worker))
                    .ok()
            })
            .collect();
        Pool { owner: Arc::new(Owner { shared, workers, run_lock: Mutex::new(()) }) }
    }

    /// The number of threads that work on a loop, the caller included.
    pub fn threads(&self) -> usize {
        self.owner.workers.len() + 1
    }

    /// Runs `task(index)` for each index in `0..tasks` and returns when all are done.
    ///
    /// Threads take the indices from a shared counter. A loop started inside a task runs on that task's thread. If
    /// tasks panic, the first panic goes on in the caller after the whole loop.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.run_with_worker(tasks, &|index, _| task(index));
    }

    /// Like [`Pool::run`], and passes the number of the worker, below [`Pool::threads`], as second argument. No two tasks
    /// of one loop run at the same time under one number.
    pub fn run_with_worker(&self, tasks: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        if self.owner.workers.is_empty() || tasks <= 1 || IN_TASK.get() {
            (0..tasks).for_each(|index| task(index, 0));
            return;
        }
        let run_guard = lock(&self.owner.run_lock);
        let shared = &*self.owner.shared;
        let job = Job {
            // SAFETY: only the lifetime is widened. `run_with_worker` does not return before every worker that can see
            // the pointer has left the loop, and nothing below unwinds before that.
            task: unsafe { std::mem::transmute::<*const (dyn Fn(usize, usize) + Sync + '_), *const Task>(task) },
            tasks,
        };
        // SAFETY: the state is closed, nobody has joined, and the run lock keeps other callers out.
        unsafe { *shared.job.get() = Some(job) };
        shared.next.store(0, Ordering::Relaxed);
        let epoch = (shared.state.load(Ordering::Relaxed) >> EPOCH_SHIFT) + 1;
        shared.state.store(epoch << EPOCH_SHIFT | OPEN, Ordering::SeqCst);
        shared.wake_sleepers();
        shared.work(job, 0);
        // Who has not joined by now finds no work: only those inside are waited for.
        shared.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut rounds = 0_u32;
        while shared.state.load(Ordering::Acquire) & JOINED_MASK != 0 {
            rounds += 1;
            if rounds < 2000 {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        let panic = lock(&shared.panic).take();
        drop(run_guard);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_runs_once() {
        for threads in [0, 1, 2, 3, 8] {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 2, 7, 1000] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run_with_worker(tasks, &|index, worker| {
                    assert!(worker < pool.threads());
                    counts[index].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn many_short_loops_with_pauses() {
        let pool = Pool::new(3);
        let total = AtomicUsize::new(0);
        for round in 0..3000 {
            pool.run(5, &|_| {
                total.fetch_add(1, Ordering::Relaxed);
            });
            if round % 100 == 0 {
                // Long enough for the workers to fall asleep.
                std::thread::sleep(Duration::from_micros(300));
            }
        }
        assert_eq!(total.into_inner(), 15000);
    }

    #[test]
    fn a_worker_number_is_held_by_one_thread_at_a_time() {
        let pool = Pool::new(4);
        let busy: Vec<AtomicBool> = (0..pool.threads()).map(|_| AtomicBool::new(false)).collect();
        pool.run_with_worker(500, &|_, worker| {
            assert!(!busy[worker].swap(true, Ordering::SeqCst));
            std::hint::black_box((0..1000).sum::<usize>());
            busy[worker].store(false, Ordering::SeqCst);
        });
    }

    #[test]
    fn nested_and_concurrent_loops() {
        let pool = Pool::new(2);
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let pool = pool.clone();
                        pool.run(4, &|_| {
                            pool.run(3, &|_| {
                                total.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 4 * 50 * 12);
    }

    #[test]
    fn a_panic_reaches_the_caller_after_all_tasks() {
        let pool = Pool::new(2);
        let done = AtomicUsize::new(0);
        for _ in 0..3 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(20, &|index| {
                    done.fetch_add(1, Ordering::Relaxed);
                    assert!(index != 7, "seven");
                });
            }));
            assert!(result.is_err());
        }
        assert_eq!(done.load(Ordering::Relaxed), 60);
        pool.run(20, &|_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 80);
    }
}
