//! What a controller may do that may have forgotten something.
//!
//! A quorum stands on what its voters remember: a voter that comes back with an empty disk, or with a log whose end was
//! damaged, could give its vote to a candidate that lacks what it had helped to commit, or vote twice in a term. Kafka's
//! static voters do so; KIP-853 refuses the node until an operator removes and adds it. Here it asks all the other
//! voters what they remember, which bounds what it can have forgotten, and votes with that in mind
//! (Viewstamped Replication's recovery, Liskov and Cowling 2012, 4.3).
//!
//! ```text
//!   nothing on the disk -> Blank ----- nobody has anything: found ----> Whole
//!                            | somebody has                              ^
//!                            v                                           | all of it is here
//!                          Behind: votes only for who has at least that -+
//!                            ^
//!   the log was cut ----> Doubtful
//! ```
//!
//! # Invariants
//! - STANDING-1: a node that once acknowledged an entry or gave a vote never gives a vote that only its forgetting makes
//!   possible: neither a second one in a term, nor one to a candidate that lacks the entry.
//! - STANDING-2: a quorum is founded only when all its founders have said that they have nothing.

mod decision;
mod enlistment;

use tokio::sync::watch;

use crate::raft::{LogId, LogStore, Lost};

pub(crate) use enlistment::{Enlisted, Enlistment, remembered_to_pb};

/// What a controller's memory lets it do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// Its disk is empty: it does nothing before it knows whether it is new or has lost everything.
    Blank,
    /// It knows its votes, but not all that it had acknowledged: it follows.
    Doubtful,
    /// It may have acknowledged entries up to this one: it votes for who has it, and stands for no election.
    Behind(LogId),
    /// It remembers everything.
    Whole,
}

impl Standing {
    /// That of a node that has just started.
    fn at_start(is_new: bool, lost: Lost) -> Self {
        match lost {
            _ if is_new => Self::Blank,
            Lost::Nothing => Self::Whole,
            Lost::Unknown => Self::Doubtful,
            Lost::UpTo(log_id) => Self::Behind(log_id),
        }
    }

    /// Whether it may take entries from a leader, and so count for their commitment.
    pub(crate) fn may_follow(self) -> bool {
        self != Self::Blank
    }

    /// Whether it may vote for a candidate whose log ends with `last`. Raft's own conditions come on top.
    pub(crate) fn may_vote_for(self, last: Option<LogId>) -> bool {
        match self {
            Self::Blank | Self::Doubtful => false,
            Self::Behind(until) => last >= Some(until),
            Self::Whole => true,
        }
    }

    /// Whether it may stand for election itself.
    pub(crate) fn may_stand(self) -> bool {
        self == Self::Whole
    }
}

/// The standing of this node, for all who have to heed it.
#[derive(Clone, Debug)]
pub(crate) struct StandingWatch(watch::Receiver<Standing>);

impl StandingWatch {
    pub(crate) fn get(&self) -> Standing {
        *self.0.borrow()
    }
}

/// The standing of a node that starts on `store`, and its watch.
pub(crate) fn of(store: &LogStore) -> (watch::Sender<Standing>, StandingWatch) {
    let (sender, receiver) = watch::channel(Standing::at_start(store.is_new(), store.lost()));
    (sender, StandingWatch(receiver))
}
