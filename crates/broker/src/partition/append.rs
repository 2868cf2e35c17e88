//! Appending records of clients and coordinators.

use std::time::Duration;

use bytes::Bytes;
use klamm_log::{AppendInfo, AppendOrigin};
use klamm_replica::{Acknowledged, Acks, AppendError, AppendRequest, AppendTicket, Event};
use klamm_types::{LeaderEpoch, Offset, Timestamp};
use tokio::sync::oneshot;

use super::effects::{Records, StepIo};
use super::{AppendFailure, PartitionHandle};

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
    /// With which sequence the producer must begin if the log does not know it, because the caller knows of a batch that
    /// comes first; `None` lets it begin with any (KIP-360).
    pub first_sequence: Option<i32>,
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
    Awaited { answer: oneshot::Receiver<Result<Acknowledged, AppendError>>, append_time: Timestamp },
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
            Outcome::Awaited { answer, append_time } => {
                let outcome = answer.await.unwrap_or(Err(AppendError::LogFailed { appended: true }));
                Ok(appended(outcome?, append_time))
            }
        }
    }
}

fn appended(acknowledged: Acknowledged, append_time: Timestamp) -> Appended {
    let Acknowledged { base_offset, log_start_offset } = acknowledged;
    Appended { base_offset, append_time, log_start_offset }
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
            Outcome::Known(Err(_)) => metrics.failed_appends.add(1),
            Outcome::Known(Ok(_)) | Outcome::Awaited { .. } => metrics.bytes_in.add(bytes),
        }
        PendingAppend(outcome)
    }

    fn try_append(&self, records: Bytes, options: &AppendOptions) -> Outcome {
        let failed = AppendError::LogFailed { appended: false };
        // Before the lock is taken: others need not wait for a decompression. Who does not lead will refuse anyway.
        let is_leader = self.shared.role.load().is_leader;
        let prepared = is_leader.then(|| self.shared.log.prepare(&records, options.origin, self.wall()));
        let AppendOptions { origin, first_sequence, .. } = *options;
        let records = Records { bytes: records, origin, first_sequence, prepared };
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
        let append_time = io.appended.map_or(Timestamp::NONE, |info: AppendInfo| info.append_time);
        let outcome = match (io.refused, io.completed) {
            (Some(refusal), _) => Outcome::Known(Err(refusal.into())),
            (None, Some(outcome)) => {
                Outcome::Known(outcome.map(|acked| appended(acked, append_time)).map_err(Into::into))
            }
            (None, None) => {
                let (sender, answer) = oneshot::channel();
                state.appends.insert(ticket, Waiting(sender));
                Outcome::Awaited { answer, append_time }
            }
        };
        if let Some(info) = io.appended.filter(|info| !info.duplicate) {
            let records = info.first_offset.distance_to(info.last_offset) + 1;
            self.shared.around.metrics.records_in.add(records);
        }
        self.leave(state);
        outcome
    }
}
