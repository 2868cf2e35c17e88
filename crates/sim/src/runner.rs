//! Runs of many seeds, and what they came to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::world::World;

/// A promise that was not kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The seed of the run.
    pub seed: u64,
    /// What did not hold.
    pub what: String,
}

/// A run in which everything held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// How many things happened.
    pub steps: u64,
    /// How many records were acknowledged.
    pub acknowledged: u64,
    /// Microseconds of virtual time.
    pub virtual_us: u64,
}

/// What many runs add up to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Runs that were made.
    pub runs: u64,
    /// Things that happened.
    pub steps: u64,
    /// Records that were acknowledged.
    pub acknowledged: u64,
    /// Microseconds of virtual time.
    pub virtual_us: u64,
    /// By seed.
    pub violations: Vec<Violation>,
}

/// Runs one seed.
///
/// # Errors
/// What did not hold.
pub fn run_seed(seed: u64) -> Result<Outcome, Violation> {
    let report = catch_unwind(AssertUnwindSafe(|| World::new(seed, false).run()));
    report.map_err(|panic| violation(seed, &*panic)).map(|report| Outcome {
        steps: report.steps,
        acknowledged: report.acknowledged as u64,
        virtual_us: report.virtual_us,
    })
}

/// Everything that happens under a seed, line by line, up to the violation if there is one.
#[must_use]
pub fn trace_of(seed: u64) -> String {
    let mut world = World::new(seed, true);
    let report = catch_unwind(AssertUnwindSafe(|| world.run()));
    let mut trace = world.into_trace();
    if let Err(panic) = report {
        trace.push_str(&violation(seed, &*panic).what);
        trace.push('\n');
    }
    trace
}

fn violation(seed: u64, panic: &(dyn std::any::Any + Send)) -> Violation {
    let text = panic.downcast_ref::<String>().cloned();
    let what = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Violation { seed, what: what.unwrap_or_else(|| "a panic without a message".to_owned()) }
}

/// Runs `count` seeds from `first` on, on so many threads; stops after `violations_max` violations. `progress` is told
/// now and then how many are done.
pub fn run_seeds(
    first: u64,
    count: u64,
    threads: usize,
    violations_max: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Totals {
    let next = AtomicU64::new(0);
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let offset = next.fetch_add(1, Ordering::Relaxed);
                    if offset >= count {
                        return;
                    }
                    let outcome = run_seed(first + offset);
                    let mut totals = totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    if totals.violations.len() >= violations_max {
                        return;
                    }
                    totals.add(outcome);
                    progress(totals.runs);
                }
            });
        }
    });
    let mut totals = totals.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    totals.violations.sort_by_key(|violation| violation.seed);
    totals
}

impl Totals {
    fn add(&mut self, outcome: Result<Outcome, Violation>) {
        self.runs += 1;
        match outcome {
            Ok(outcome) => {
                self.steps += outcome.steps;
                self.acknowledged += outcome.acknowledged;
                self.virtual_us += outcome.virtual_us;
            }
            Err(violation) => self.violations.push(violation),
        }
    }
}
