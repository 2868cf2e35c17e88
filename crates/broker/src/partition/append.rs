//! Appending records of clients and coordinators.

use std::time::Duration;

use bytes::Bytes;
use klamm_log::{AppendError as LogAppendError, AppendInfo, AppendOrigin, Duplicate};
use klamm_replica::{Acknowledged, Acks, AppendError, AppendRequest, AppendTicket, Event};
use klamm_types::{LeaderEpoch, Offset, Timestamp};
use tokio::sync::oneshot;

use super::effects::{Records, StepIo};
use super::{AppendFailure, PartitionHandle};

/// How long after a change of leaders a gap in a producer's sequence is taken to be one that closes, in milliseconds.
/// librdkafka waits for what is under way once it is answered with an error, and so needs no more than one round. Java's may
/// wait longer for a leader that has fallen silent: it is told what Kafka says then, and sends again.
const GAP_CLOSES_MS: i64 = 3_000;

/// How records are appended.
#[derive(Clone, Copy, Debug)]
pub struct AppendOptions {
    /// When the append is answered.
    pub acks: Acks,
    /// How long an append with [`Acks::All`] may wait for the followers; for this replica's own sync it waits up to five
    /// seconds longer.
    pub timeout: Duration,
    /// The leader epoch in which the caller wants to append, if it cares (coordinators do).
    pub leader_epoch: Option<LeaderEpoch>,
    /// Who sends the records: clients' sequences are checked, and they send no control records.
    pub origin: AppendOrigin,
    /// Set if the caller has refused a batch of the producer that comes first, and again.
    pub first_sequence: Option<FirstSequence>,
}

/// What must come before a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FirstSequence {
    /// With this the producer must begin if the log does not know it; it could begin with any otherwise (KIP-360).
    pub sequence: i32,
    /// It was refused a moment ago, and is likely to be on its way.
    pub is_expected: bool,
}

/// An acknowledged append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// The offset of the first record. Of a batch that its producer had sent before: the offset it got then.
    pub base_offset: Offset,
    /// The time that the records got, under `message.timestamp.type=LogAppendTime`; else [`Timestamp::NONE`].
    pub append_time: Timestamp,
    /// The first offset that the log keeps.
    pub log_start_offset: Offset,
}

/// An append that has been written, or refused: its place among others is fixed.
#[derive(Debug)]
#[must_use = "an append with acks is answered by `done`"]
pub struct PendingAppend(Outcome);

#[derive(Debug)]
enum Outcome {
    Known(Result<Appended, AppendFailure>),
    Awaited { answer: oneshot::Receiver<Result<Acknowledged, AppendError>>, written: Written },
}

/// What is known of records that are in the log.
#[derive(Clone, Copy, Debug)]
struct Written {
    append_time: Timestamp,
    duplicate: Option<Duplicate>,
}

/// Who waits for an append to be committed.
#[derive(Debug)]
pub(super) struct Waiting(oneshot::Sender<Result<Acknowledged, AppendError>>);

impl Waiting {
    pub(super) fn answer(self, outcome: Result<Acknowledged, AppendError>) {
        // A client that has gone does not want to know.
        let _ = self.0.send(outcome);
    }
}

impl PendingAppend {
    /// What became of it, if that is known already: it is for all refusals, and with [`Acks::None`] and
    /// [`Acks::Leader`].
    #[must_use]
    pub fn known(&self) -> Option<&Result<Appended, AppendFailure>> {
        match &self.0 {
            Outcome::Known(outcome) => Some(outcome),
            Outcome::Awaited { .. } => None,
        }
    }

    /// Waits until the append is acknowledged or is known to fail; no longer than [`AppendOptions::timeout`] says.
    ///
    /// # Errors
    /// [`AppendFailure`]; some of them leave open whether the records were appended.
    pub async fn done(self) -> Result<Appended, AppendFailure> {
        match self.0 {
            Outcome::Known(outcome) => outcome,
            Outcome::Awaited { answer, written } => {
                let outcome = answer.await.unwrap_or(Err(AppendError::LogFailed { appended: true }));
                written.acknowledged(outcome)
            }
        }
    }
}

impl Written {
    fn of(info: Option<AppendInfo>) -> Self {
        Self {
            append_time: info.map_or(Timestamp::NONE, |info| info.append_time),
            duplicate: info.and_then(|info| info.duplicate),
        }
    }

    fn acknowledged(self, outcome: Result<Acknowledged, AppendError>) -> Result<Appended, AppendFailure> {
        let Acknowledged { base_offset, log_start_offset } = outcome?;
        match self.duplicate {
            Some(Duplicate::Forgotten) => Err(AppendFailure::Forgotten),
            Some(Duplicate::Known) | None => {
                Ok(Appended { base_offset, append_time: self.append_time, log_start_offset })
            }
        }
    }
}

impl PartitionHandle {
    /// Appends `records`: checks them, gives them offsets and writes them, before it returns. What the returned
    /// [`PendingAppend`] waits for is the acknowledgement. Nothing is awaited here, and no sync of the disk.
    ///
    /// The order of calls is the order of the records.
    pub fn append(&self, records: Bytes, options: &AppendOptions) -> PendingAppend {
        let bytes = records.len() as u64;
        let outcome = self.try_append(records, options);
        let metrics = &self.shared.around.metrics;
        match &outcome {
            Outcome::Known(Ok(_) | Err(AppendFailure::Forgotten)) | Outcome::Awaited { .. } => {
                metrics.bytes_in.add(bytes);
            }
            Outcome::Known(Err(_)) => metrics.failed_appends.add(1),
        }
        PendingAppend(outcome)
    }

    fn try_append(&self, records: Bytes, options: &AppendOptions) -> Outcome {
        let failed = AppendError::LogFailed { appended: false };
        // Before the lock is taken: others need not wait for a decompression. Who does not lead will refuse anyway.
        let is_leader = self.shared.role.load().is_leader;
        let prepared = is_leader.then(|| self.shared.log.prepare(&records, options.origin, self.wall()));
        let AppendOptions { origin, first_sequence, .. } = *options;
        let first = first_sequence.map(|first| first.sequence);
        let records = Records { bytes: records, origin, first_sequence: first, prepared };
        let Ok(mut state) = self.enter() else { return Outcome::Known(Err(failed.into())) };
        state.ticket += 1;
        let ticket = AppendTicket(state.ticket);
        let request = AppendRequest {
            ticket,
            acks: options.acks,
            leader_epoch: options.leader_epoch,
            deadline: self.shared.around.clock.after(options.timeout),
            lease_until: self.shared.around.lease.until(),
        };
        let mut io = StepIo::appending(ticket, options.acks, records);
        self.run(&mut state, Event::AppendRequested(request), &mut io);
        let written = Written::of(io.appended);
        let outcome = match (io.refused, io.completed) {
            (Some(refusal), _) => Outcome::Known(Err(
                self.refused(refusal, first_sequence.is_some_and(|first| first.is_expected))
            )),
            (None, Some(outcome)) => Outcome::Known(written.acknowledged(outcome)),
            (None, None) => {
                let (sender, answer) = oneshot::channel();
                state.appends.insert(ticket, Waiting(sender));
                Outcome::Awaited { answer, written }
            }
        };
        if let Some(info) = io.appended.filter(|info| info.duplicate.is_none()) {
            let records = info.first_offset.distance_to(info.last_offset) + 1;
            self.shared.around.metrics.records_in.add(records);
        }
        self.leave(state);
        outcome
    }

    /// What the producer is told of a batch that the log has refused.
    ///
    /// Producers send batches before earlier ones are answered. Those that were sent to another leader, or that this one
    /// refused for a reason that passes, come again, and first: until then there is a gap in front of later ones, which
    /// closes. `OUT_OF_ORDER_SEQUENCE_NUMBER` says that it does not, and has librdkafka send whatever is not acknowledged
    /// once more under a new epoch: what was appended all the same is there twice then.
    fn refused(&self, refusal: LogAppendError, first_is_expected: bool) -> AppendFailure {
        match refusal {
            LogAppendError::Producer(gap) if gap.is_gap() && (first_is_expected || self.is_new_leader()) => {
                AppendFailure::Early(gap)
            }
            _ => refusal.into(),
        }
    }

    /// Whether producers may have batches under way to the leader before this one.
    fn is_new_leader(&self) -> bool {
        let role = self.shared.role.load();
        role.leader_epoch > LeaderEpoch(0) && self.now().millis_since(role.since) < GAP_CLOSES_MS
    }
}
