//! Who waits for what: appends for the high watermark, deletions for the followers.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use klamm_types::{Offset, Timestamp};

use crate::event::{AppendTicket, DeletionTicket};

/// An append that waits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct PendingAppend {
    base_offset: Offset,
    /// Until when it may wait for followers.
    deadline: Timestamp,
    /// Until when it may wait for this replica itself.
    own_deadline: Timestamp,
}

/// How much longer than for followers an append waits for this replica's own disk, in milliseconds.
const OWN_SYNC_MS_MAX: i64 = 5_000;

/// The `acks=all` appends that wait for the high watermark, by the end of their records. Their number is
/// bounded by the body, which admits the requests.
///
/// A deadline limits how long the followers are waited for, as with Kafka, where an append is written by the time that
/// somebody waits. It counts once this replica itself holds the records: with a deadline that has passed by then the
/// append still succeeds if nobody else has to hold them. Until then five seconds are added to it, so that
/// a disk that is full or stuck leaves nobody without an answer.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct PendingAcks {
    by_end: BTreeMap<(Offset, AppendTicket), PendingAppend>,
    /// By the deadline that counts.
    by_deadline: BTreeSet<(Timestamp, Offset, AppendTicket)>,
    /// Up to where this replica holds its log as safely as an acknowledgement promises.
    held_end: Offset,
}

/// An append that waits no longer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Released {
    pub(crate) ticket: AppendTicket,
    pub(crate) base_offset: Offset,
}

impl PendingAcks {
    /// Lets the append of `base_offset..end_offset` wait.
    pub(crate) fn park(&mut self, ticket: AppendTicket, range: std::ops::Range<Offset>, deadline: Timestamp) {
        let own_deadline = deadline.plus_millis(OWN_SYNC_MS_MAX);
        let pending = PendingAppend { base_offset: range.start, deadline, own_deadline };
        let earlier = self.by_end.insert((range.end, ticket), pending);
        assert!(earlier.is_none(), "append {ticket:?} is pending twice");
        self.by_deadline.insert((self.deadline_of(range.end, &pending), range.end, ticket));
    }

    fn deadline_of(&self, end_offset: Offset, pending: &PendingAppend) -> Timestamp {
        if end_offset <= self.held_end { pending.deadline } else { pending.own_deadline }
    }

    /// Takes note of how far this replica holds its log itself: the deadlines of appends up to there count from now on.
    pub(crate) fn on_held(&mut self, end: Offset) {
        let before = self.held_end;
        if !self.held_end.advance_to(end) {
            return;
        }
        let last = AppendTicket(u64::MAX);
        let newly = self.by_end.range((Bound::Excluded((before, last)), Bound::Included((end, last))));
        for (&(end, ticket), pending) in newly {
            let was_there = self.by_deadline.remove(&(pending.own_deadline, end, ticket));
            assert!(was_there, "append {ticket:?} has no deadline");
            self.by_deadline.insert((pending.deadline, end, ticket));
        }
    }

    /// Takes the first append whose records all lie below `high_watermark`.
    pub(crate) fn pop_committed(&mut self, high_watermark: Offset) -> Option<Released> {
        let (&(end_offset, ticket), &pending) = self.by_end.first_key_value()?;
        if end_offset > high_watermark {
            return None;
        }
        self.remove(end_offset, ticket, self.deadline_of(end_offset, &pending));
        // B33: answers with where the acknowledged prefix ends instead of where the records are.
        #[cfg(mutant = "B33")]
        let pending = PendingAppend { base_offset: Offset(high_watermark.0 - 1), ..pending };
        Some(Released { ticket, base_offset: pending.base_offset })
    }

    /// Takes the append that has waited longest past its deadline, if any has.
    pub(crate) fn pop_expired(&mut self, now: Timestamp) -> Option<AppendTicket> {
        let &(deadline, end_offset, ticket) = self.by_deadline.first()?;
        if deadline > now {
            return None;
        }
        self.remove(end_offset, ticket, deadline);
        Some(ticket)
    }

    /// Takes any, lowest offset first.
    pub(crate) fn pop_any(&mut self) -> Option<AppendTicket> {
        let (&(end_offset, ticket), pending) = self.by_end.first_key_value()?;
        let deadline = self.deadline_of(end_offset, pending);
        self.remove(end_offset, ticket, deadline);
        Some(ticket)
    }

    /// When the first deadline passes.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.by_deadline.first().map(|&(deadline, ..)| deadline)
    }

    /// The lowest end of an append that waits.
    pub(crate) fn first_end(&self) -> Option<Offset> {
        self.by_end.first_key_value().map(|(&(end_offset, _), _)| end_offset)
    }

    pub(crate) fn len(&self) -> usize {
        debug_assert_eq!(self.by_end.len(), self.by_deadline.len());
        self.by_end.len()
    }

    fn remove(&mut self, end_offset: Offset, ticket: AppendTicket, deadline: Timestamp) {
        let by_end = self.by_end.remove(&(end_offset, ticket));
        let by_deadline = self.by_deadline.remove(&(deadline, end_offset, ticket));
        assert!(by_end.is_some() && by_deadline, "append {ticket:?} is pending by half");
    }
}

/// The deletions that wait until every live replica's log starts at their offset or later. They are few: an
/// administrator sends them.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct PendingDeletions {
    by_offset: BTreeMap<(Offset, DeletionTicket), Timestamp>,
}

impl PendingDeletions {
    pub(crate) fn park(&mut self, ticket: DeletionTicket, offset: Offset, deadline: Timestamp) {
        self.by_offset.insert((offset, ticket), deadline);
    }

    /// Takes the first deletion that `log_start_offset` satisfies.
    pub(crate) fn pop_done(&mut self, log_start_offset: Offset) -> Option<DeletionTicket> {
        let (&(offset, ticket), _) = self.by_offset.first_key_value()?;
        if offset > log_start_offset {
            return None;
        }
        self.by_offset.pop_first().map(|_| ticket)
    }

    /// Takes one whose deadline has passed.
    pub(crate) fn pop_expired(&mut self, now: Timestamp) -> Option<DeletionTicket> {
        let (&key, _) = self.by_offset.iter().find(|&(_, &deadline)| deadline <= now)?;
        self.by_offset.remove(&key).map(|_| key.1)
    }

    pub(crate) fn pop_any(&mut self) -> Option<DeletionTicket> {
        self.by_offset.pop_first().map(|((_, ticket), _)| ticket)
    }

    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.by_offset.values().min().copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_offset.is_empty()
    }
}
