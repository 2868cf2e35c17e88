//! Noticing that a process is gone before its silence says so (FAULTS 5.3).
//!
//! Evidence is a stream that ends, corroborated by a listener that refuses connections: the host is up, and nobody is
//! there. Safety depends on none of it: a false belief costs one election.

mod leader_watch;
mod probe;

use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use leader_watch::LeaderWatch;
pub(crate) use probe::{Probe, is_refused_twice, probe, probe_dying};

/// The term whose leader this node knows to be dead, if it knows of one.
#[derive(Debug, Default)]
pub(crate) struct DeadLeader {
    /// One more than the term; 0 for none.
    term_after: AtomicU64,
}

impl DeadLeader {
    fn set(&self, term: u64) {
        self.term_after.store(term.saturating_add(1), Ordering::Release);
    }

    fn clear(&self) {
        self.term_after.store(0, Ordering::Release);
    }

    /// Whether the leader before `term` is dead.
    pub(crate) fn is_before(&self, term: u64) -> bool {
        let term_after = self.term_after.load(Ordering::Acquire);
        term_after > 0 && term >= term_after
    }
}
