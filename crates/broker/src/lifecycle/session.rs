//! A session with the controller, as a state machine: when to send a heartbeat, and what an answer is worth.

use std::collections::VecDeque;
use std::time::Duration;

use klamm_types::{Offset, Timestamp};

use super::{BrokerPhase, Wishes};

/// The most heartbeats that may be unanswered at a time.
pub(super) const OUTSTANDING_MAX: usize = 4;
/// The least time between two heartbeats when there is news: applied metadata that others wait for, a wish.
const NEWS_GAP_MS: i64 = 20;
/// How often a broker that wants to go asks whether it may.
const SHUTDOWN_GAP_MS: i64 = 50;
/// How long a heartbeat may go unanswered before its stream is given up, between these bounds a third of the
/// session: two more can be tried in what is left of it.
const SILENCE_MS: (i64, i64) = (300, 1_000);

/// What a heartbeat says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Heartbeat {
    pub(super) sequence: u64,
    pub(super) applied: Offset,
    pub(super) wishes: Wishes,
}

/// What an answer says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    pub(super) fenced: bool,
    pub(super) may_shut_down: bool,
    pub(super) session_timeout_ms: u32,
}

/// What an answer comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Answered {
    pub(super) phase: BrokerPhase,
    /// Until when the broker may act as the leader of what it leads; `None` if it may not.
    pub(super) lease_until: Option<Timestamp>,
}

/// The session of one registration. It outlives the streams that carry it.
#[derive(Clone, Debug)]
pub(super) struct Session {
    interval_ms: i64,
    timeout_ms: i64,
    next_sequence: u64,
    /// Heartbeats on the present stream that are not answered yet, oldest first.
    outstanding: VecDeque<Sent>,
    /// The last heartbeat on the present stream.
    last: Option<Sent>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    heartbeat: Heartbeat,
    at: Timestamp,
}

impl Session {
    /// A session in which the controller wants a heartbeat every `interval_ms` and gives up after `timeout_ms`.
    pub(super) fn new(interval_ms: u32, timeout_ms: u32) -> Self {
        Self {
            interval_ms: i64::from(interval_ms.max(1)),
            timeout_ms: i64::from(timeout_ms.max(1)),
            next_sequence: 0,
            outstanding: VecDeque::new(),
            last: None,
        }
    }

    /// How long the session lasts from an answered heartbeat on.
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.unsigned_abs())
    }

    /// The stream is gone, and what it carried will not be answered.
    pub(super) fn on_stream_ended(&mut self) {
        self.outstanding.clear();
        self.last = None;
    }

    /// When the next heartbeat is due, given what it would say; `None` while too many are unanswered.
    pub(super) fn due_at(&self, applied: Offset, wishes: Wishes) -> Option<Timestamp> {
        let Some(last) = self.last else {
            return Some(Timestamp(i64::MIN));
        };
        if self.outstanding.len() >= OUTSTANDING_MAX {
            return None;
        }
        let said = last.heartbeat;
        let mut gap = self.interval_ms;
        if wishes.shutdown {
            gap = gap.min(SHUTDOWN_GAP_MS);
        }
        if applied != said.applied || wishes != said.wishes {
            gap = gap.min(NEWS_GAP_MS);
        }
        Some(last.at.plus_millis(gap))
    }

    /// The next heartbeat, sent at `now`.
    pub(super) fn heartbeat(&mut self, now: Timestamp, applied: Offset, wishes: Wishes) -> Heartbeat {
        let heartbeat = Heartbeat { sequence: self.next_sequence, applied, wishes };
        self.next_sequence += 1;
        let sent = Sent { heartbeat, at: now };
        self.outstanding.push_back(sent);
        self.last = Some(sent);
        heartbeat
    }

    /// When the stream is to be given up if no answer comes; `None` if none is outstanding.
    pub(super) fn silent_at(&self) -> Option<Timestamp> {
        let patience = (self.timeout_ms / 3).clamp(SILENCE_MS.0, SILENCE_MS.1);
        self.outstanding.front().map(|oldest| oldest.at.plus_millis(patience))
    }

    /// A heartbeat is answered; `None` if it is not the one whose turn it is.
    pub(super) fn on_answer(&mut self, sequence: u64, standing: Standing) -> Option<Answered> {
        let sent = self.outstanding.pop_front().filter(|sent| sent.heartbeat.sequence == sequence)?;
        self.timeout_ms = i64::from(standing.session_timeout_ms.max(1));
        let wishes = sent.heartbeat.wishes;
        let phase = match standing {
            Standing { may_shut_down: true, .. } if wishes.shutdown => BrokerPhase::Released,
            Standing { fenced: true, .. } => BrokerPhase::Fenced,
            _ if wishes.shutdown => BrokerPhase::ShuttingDown,
            _ => BrokerPhase::Active,
        };
        let may_lead = matches!(phase, BrokerPhase::Active | BrokerPhase::ShuttingDown);
        let lease_until = may_lead.then(|| sent.at.plus_millis(self.timeout_ms));
        Some(Answered { phase, lease_until })
    }
}

#[cfg(test)]
#[path = "session_test.rs"]
mod tests;
