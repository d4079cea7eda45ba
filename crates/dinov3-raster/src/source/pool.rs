//! Threads that wait for servers.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

type Task = Box<dyn FnOnce() + Send>;

/// A queue and its threads, which start when the first task comes and end with the pool.
pub(crate) struct FetchPool {
    shared: Arc<Shared>,
    most_threads: usize,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl FetchPool {
    pub fn new(most_threads: usize) -> Self {
        let shared = Shared { state: Mutex::default(), changed: Condvar::new() };
        Self { shared: Arc::new(shared), most_threads: most_threads.max(1) }
    }

    /// Queues a task; an urgent one is begun before those that are not.
    pub fn submit(&self, urgent: bool, task: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.lock();
        match urgent {
            true => state.tasks.push_front(Box::new(task)),
            false => state.tasks.push_back(Box::new(task)),
        }
        if state.idle < state.tasks.len() && state.threads < self.most_threads {
            let shared = Arc::clone(&self.shared);
            let started = std::thread::Builder::new().name("dinov3-fetch".to_string()).spawn(move || shared.work());
            match started {
                Ok(_) => state.threads += 1,
                // Without any thread nobody else would do it.
                Err(_) if state.threads == 0 => {
                    let task = state.tasks.pop_front();
                    drop(state);
                    task.into_iter().for_each(|task| task());
                    return;
                }
                Err(_) => {}
            }
        }
        drop(state);
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(task) = state.tasks.pop_front() {
                drop(state);
                task();
                state = self.lock();
            } else if state.closed {
                return;
            } else {
                state.idle += 1;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}

impl Drop for FetchPool {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.tasks.clear();
        drop(state);
        self.shared.changed.notify_all();
    }
}
