//! Group commit: a few threads that flush the logs that ask for it, and do other chores that wait for the disk.
//!
//! Two effects merge what would be one sync per append. Appends that come while their log is being flushed share the
//! next flush of it. And syncs of different logs run side by side, so that the file system commits them together:
//! with 64 files written, 16 threads are 15 to 30 times faster than one after the other (`docs/benchmarks.md`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::log::Log;

/// How long a flush that nobody waits for gathers what is appended meanwhile: flushes of single small batches
/// took a quarter of the CPU time (`docs/benchmarks.md`). Consumers see records that nobody wanted on disk first so much later, and the flush.
const SOON: Duration = Duration::from_millis(2);

/// The threads that flush the logs of one directory.
#[derive(Debug)]
pub struct Flusher {
    queue: FlushQueue,
    threads: Vec<JoinHandle<()>>,
    pacer: Option<JoinHandle<()>>,
}

/// Where flushes are asked for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FlushQueue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// For the thread that passes on what is wanted soon.
    pace: Condvar,
    flushes: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Flushes that somebody waits for, in the order of their requests; each log at most once.
    flushes: VecDeque<Arc<Log>>,
    /// What can wait until there are none of those; each log at most once.
    chores: VecDeque<(Arc<Log>, Task)>,
    /// Flushes that nobody waits for; each log at most once.
    soon: Vec<Arc<Log>>,
    pacer_stopping: bool,
    stopping: bool,
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Task {
    /// The flushed end should move.
    Flush,
    /// The recovery point should move.
    Checkpoint,
    /// The log is idle and should give back its files.
    Release,
}

impl Flusher {
    /// Starts `threads` threads (at least one) under the given name.
    ///
    /// # Errors
    /// If the system gives no more threads.
    pub fn start(name: &str, threads: usize) -> std::io::Result<Self> {
        let mut flusher = Self { queue: FlushQueue(Arc::default()), threads: Vec::new(), pacer: None };
        let queue = flusher.queue.clone();
        let builder = std::thread::Builder::new().name(name.to_owned());
        flusher.pacer = Some(builder.spawn(move || queue.pass_on())?);
        for _ in 0..threads.max(1) {
            let queue = flusher.queue.clone();
            let builder = std::thread::Builder::new().name(name.to_owned());
            flusher.threads.push(builder.spawn(move || queue.run())?);
        }
        Ok(flusher)
    }

    /// Where to ask for flushes.
    #[must_use]
    pub fn queue(&self) -> &FlushQueue {
        &self.queue
    }
}

impl Drop for Flusher {
    /// Flushes what is waiting, then ends the threads.
    fn drop(&mut self) {
        // First what is wanted soon, which the others then find.
        self.queue.lock().pacer_stopping = true;
        self.queue.0.pace.notify_all();
        let pacer = self.pacer.take();
        let _ = pacer.map(JoinHandle::join);
        self.queue.lock().stopping = true;
        self.queue.0.wake.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

impl FlushQueue {
    /// Asks for a flush of `log` that covers everything appended before this call, and does not wait for it:
    /// [`Log::flushed_end_offset`] tells, and the log's listener. Asking again before it has begun changes nothing.
    pub fn request(&self, log: &Arc<Log>) {
        if log.flush.set_requested() {
            return;
        }
        self.lock().flushes.push_back(Arc::clone(log));
        self.0.wake.notify_one();
    }

    /// As [`request`](Self::request), for appends whose durability nobody waits for: the flush begins after 2 ms, with
    /// what has come by then. A [`request`](Self::request) meanwhile is not delayed.
    pub fn request_soon(&self, log: &Arc<Log>) {
        if log.flush.set_soon() {
            return;
        }
        let mut state = self.lock();
        state.soon.push(Arc::clone(log));
        if state.soon.len() == 1 {
            self.0.pace.notify_one();
        }
    }

    /// Requests, a little later, what is wanted soon.
    fn pass_on(&self) {
        let mut state = self.lock();
        loop {
            let idle = |state: &mut State| state.soon.is_empty() && !state.pacer_stopping;
            state = self.0.pace.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
            if state.soon.is_empty() {
                return;
            }
            let gathering = self.0.pace.wait_timeout_while(state, SOON, |state| !state.pacer_stopping);
            state = gathering.unwrap_or_else(PoisonError::into_inner).0;
            for log in std::mem::take(&mut state.soon) {
                // From here on a request is another one: what it is for may come too late for this.
                log.flush.clear_soon();
                if !log.flush.set_requested() {
                    state.flushes.push_back(log);
                    self.0.wake.notify_one();
                }
            }
        }
    }

    /// Asks for a chore that waits for the disk, and does not wait for it.
    pub(crate) fn request_chore(&self, log: &Arc<Log>, task: Task) {
        if log.flush.set_chore_requested() {
            return;
        }
        self.lock().chores.push_back((Arc::clone(log), task));
        self.0.wake.notify_one();
    }

    /// How many flushes were done since the start.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.0.flushes.load(Ordering::Relaxed)
    }

    fn run(&self) {
        while let Some((log, task)) = self.next() {
            // From here on a request asks for another run: this one may not see what comes now. A failure is known to
            // the directory, whose owner is told; those who wait for this log are woken.
            let done = match task {
                Task::Flush => {
                    log.flush.clear_requested();
                    self.0.flushes.fetch_add(1, Ordering::Relaxed);
                    log.flush().is_ok()
                }
                Task::Checkpoint => {
                    log.flush.clear_chore_requested();
                    log.checkpoint().is_ok()
                }
                Task::Release => {
                    log.flush.clear_chore_requested();
                    log.release().is_ok()
                }
            };
            if !done {
                log.wake_flush_waiters();
            }
        }
    }

    /// The next task; `None` when there is none left and the flusher stops.
    fn next(&self) -> Option<(Arc<Log>, Task)> {
        let mut state = self.lock();
        loop {
            if let Some(log) = state.flushes.pop_front() {
                return Some((log, Task::Flush));
            }
            if let Some(chore) = state.chores.pop_front() {
                return Some(chore);
            }
            if state.stopping {
                return None;
            }
            state = self.0.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
