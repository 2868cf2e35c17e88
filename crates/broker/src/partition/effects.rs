//! Carrying out what the replica decided.

use bytes::Bytes;
use klamm_log::{AppendError as LogAppendError, AppendInfo, AppendOrigin, LogError, PreparedAppend};
use klamm_replica::{
    Acknowledged, Acks, Alarm, AppendError, AppendTicket, DeletionError, DeletionTicket, Effect, Event,
    FetchBounds, FetchRefusal,
};
use klamm_types::{LeaderEpoch, Offset, Timestamp};

use super::{Interest, PartitionHandle, State};

/// What a step is given, and what it gives back to its caller at once.
#[derive(Debug, Default)]
pub(super) struct StepIo {
    /// The append that is asked for.
    append: Option<Records>,
    /// The caller's append.
    ticket: Option<AppendTicket>,
    /// The caller's append is acknowledged before it is on disk.
    nobody_waits: bool,
    /// What the log made of it.
    pub(super) appended: Option<AppendInfo>,
    /// Why the log refused it.
    pub(super) refused: Option<LogAppendError>,
    /// The replica's answer to it, if there was one at once.
    pub(super) completed: Option<Result<Acknowledged, AppendError>>,
    /// The caller's deletion.
    deletion: Option<DeletionTicket>,
    /// The replica's answer to it, if there was one at once.
    pub(super) deleted: Option<Result<Offset, DeletionError>>,
    /// The records of the fetch answer.
    fetched: Bytes,
    /// Where the first batch of them starts.
    fetched_base: Option<Offset>,
    /// The answer to a follower's fetch.
    pub(super) follower: Option<Result<FetchBounds, FetchRefusal>>,
}

/// Records to be appended.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) bytes: Bytes,
    pub(super) origin: AppendOrigin,
    /// With which sequence an unknown producer must begin, if not with any.
    pub(super) first_sequence: Option<i32>,
    /// What their check gave, if they have been checked.
    pub(super) prepared: Option<Result<PreparedAppend, LogAppendError>>,
}

impl StepIo {
    pub(super) fn appending(ticket: AppendTicket, acks: Acks, records: Records) -> Self {
        let nobody_waits = acks != Acks::All;
        Self { append: Some(records), ticket: Some(ticket), nobody_waits, ..Self::default() }
    }

    pub(super) fn deleting(ticket: DeletionTicket) -> Self {
        Self { deletion: Some(ticket), ..Self::default() }
    }

    /// Records of a leader, and where the first batch of them starts.
    pub(super) fn following(fetched: Bytes, fetched_base: Option<Offset>) -> Self {
        Self { fetched, fetched_base, ..Self::default() }
    }
}

impl PartitionHandle {
    /// One step and all that follows from it.
    pub(super) fn run(&self, state: &mut State, event: Event, io: &mut StepIo) {
        let now = self.now();
        let mut queue = std::mem::take(&mut state.queue);
        let mut next = Some(event);
        loop {
            if let Some(event) = next.take() {
                let may_change_role = matches!(
                    event,
                    Event::RegistrationChanged { .. } | Event::IsrProposalAnswered { .. } | Event::LogFailed
                );
                state.replica.step(now, event, &mut state.effects);
                queue.extend(state.effects.drain());
                if may_change_role {
                    // Before anybody is told what came of it.
                    self.publish_role(state);
                }
            }
            let Some(effect) = queue.pop_front() else { break };
            next = self.carry_out(state, effect, io);
        }
        state.queue = queue;
    }

    /// Carries out one effect; the event that it must be followed by, if any.
    fn carry_out(&self, state: &mut State, effect: Effect, io: &mut StepIo) -> Option<Event> {
        let waiters = &self.shared.waiters;
        let around = &self.shared.around;
        match effect {
            Effect::Append { ticket, leader_epoch } => {
                return Some(self.append_as_leader(ticket, leader_epoch, io));
            }
            Effect::AppendAsFollower { .. } => return Some(self.append_as_follower(io)),
            Effect::TruncateTo { offset } => return Some(self.truncate_to(offset)),
            Effect::TruncateFullyAndStartAt { offset } => return Some(self.restart_at(offset)),
            Effect::RecordEpochStart(entry) => {
                self.shared.log.assign_epoch_start(entry.epoch);
            }
            Effect::Flush(_) if io.nobody_waits && state.appends.is_empty() => {
                self.shared.flush_queue.request_soon(&self.shared.log);
            }
            Effect::Flush(_) => self.shared.flush_queue.request(&self.shared.log),
            Effect::AdvanceLogStart(offset) => {
                if let Err(error) = self.shared.log.advance_log_start(offset) {
                    return self.judge("move the log start", &error);
                }
                waiters.wake(Interest::Anything);
            }
            Effect::AdvanceLogEnd(_) => waiters.wake(Interest::Anything),
            Effect::AdvanceHighWatermark(offset) => {
                self.shared.log.advance_high_watermark(offset);
                waiters.wake(Interest::Committed);
            }
            // The log lowered its own with the truncation.
            Effect::LowerHighWatermark(_) => waiters.wake(Interest::Committed),
            Effect::CompleteAppend { ticket, outcome } => complete_append(state, ticket, outcome, io),
            Effect::CompleteDeletion { ticket, outcome } => complete_deletion(state, ticket, outcome, io),
            Effect::Fetch { id, leader, fetch } => around.fetches.send(self, id, leader, fetch),
            Effect::CancelFetch(id) => around.fetches.cancel(self, id),
            Effect::AnswerFetch { bounds, .. } => io.follower = Some(Ok(bounds)),
            Effect::RefuseFetch { refusal, .. } => io.follower = Some(Err(refusal)),
            Effect::ProposeIsr(proposal) => around.proposals.propose(self, proposal),
            Effect::RaiseAlarm(alarm) => self.raise(alarm),
        }
        None
    }

    fn append_as_leader(&self, ticket: AppendTicket, epoch: LeaderEpoch, io: &mut StepIo) -> Event {
        let Some(Records { bytes, origin, first_sequence, prepared }) = io.append.take() else {
            io.refused = Some(LogAppendError::Empty);
            return Event::AppendDropped { ticket };
        };
        let log = &self.shared.log;
        let prepared = prepared.unwrap_or_else(|| log.prepare(&bytes, origin, self.wall()));
        let prepared = prepared.map(|prepared| prepared.beginning_at(first_sequence));
        match prepared.and_then(|prepared| log.append_prepared(prepared, &bytes, epoch)) {
            Ok(info) => {
                io.appended = Some(info);
                Event::Appended {
                    ticket,
                    base_offset: info.first_offset,
                    end_offset: info.last_offset.next(),
                }
            }
            Err(error @ (LogAppendError::Storage(_) | LogAppendError::Offline(_))) => {
                tracing::error!(partition = %self.shared.partition, %error, "an append failed");
                Event::LogFailed
            }
            Err(error) => {
                if matches!(error, LogAppendError::Full(_)) {
                    self.lack_room();
                }
                io.refused = Some(error);
                Event::AppendDropped { ticket }
            }
        }
    }

    fn append_as_follower(&self, io: &mut StepIo) -> Event {
        let records = std::mem::take(&mut io.fetched);
        let log = &self.shared.log;
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        let within = io.fetched_base.filter(|base| *base < end && start == end);
        // A log that starts within a batch has all of it, as its leader's has.
        if let Some(base) = within
            && let Err(error) = log.truncate_fully_and_start_at(base, self.wall())
        {
            return self.fail("start within a batch", &error);
        }
        let appended = log.append_as_follower(&records, self.wall());
        if within.is_some() {
            let restored = match &appended {
                Ok(_) => {
                    log.advance_high_watermark(start);
                    log.advance_log_start(start).map(|_| ())
                }
                Err(_) => log.truncate_fully_and_start_at(start, self.wall()),
            };
            if let Err(error) = restored {
                return self.fail("start within a batch", &error);
            }
        }
        match appended {
            Ok(info) => {
                self.shared.around.metrics.replication_bytes_in.add(records.len() as u64);
                Event::AppendedAsFollower { log_end_offset: info.last_offset.next() }
            }
            Err(error @ (LogAppendError::Storage(_) | LogAppendError::Offline(_))) => {
                tracing::error!(partition = %self.shared.partition, %error, "a follower's append failed");
                Event::LogFailed
            }
            Err(error) => {
                let is_known = matches!(error, LogAppendError::Full(_)) && self.lack_room();
                if !is_known {
                    tracing::warn!(partition = %self.shared.partition, %error, "a follower's append was refused");
                }
                Event::FollowerAppendDropped
            }
        }
    }

    pub(super) fn wall(&self) -> Timestamp {
        self.shared.around.clock.wall()
    }

    fn truncate_to(&self, offset: Offset) -> Event {
        let before = self.shared.log.log_end_offset();
        match self.shared.log.truncate_to(offset, self.wall()) {
            Ok(log_end_offset) => {
                // It may be only an epoch without records that goes.
                if log_end_offset < before {
                    tracing::info!(partition = %self.shared.partition, %before, %log_end_offset, "truncated");
                }
                Event::Truncated { log_end_offset }
            }
            Err(error) => self.fail("truncate", &error),
        }
    }

    fn restart_at(&self, offset: Offset) -> Event {
        match self.shared.log.truncate_fully_and_start_at(offset, self.wall()) {
            Ok(()) => {
                tracing::info!(partition = %self.shared.partition, %offset, "started anew");
                Event::Truncated { log_end_offset: offset }
            }
            Err(error) => self.fail("start anew", &error),
        }
    }

    fn fail(&self, verb: &str, error: &LogError) -> Event {
        tracing::error!(partition = %self.shared.partition, %error, "cannot {verb}");
        Event::LogFailed
    }

    /// What an error means for the replica that the log may survive.
    fn judge(&self, verb: &str, error: &LogError) -> Option<Event> {
        match error {
            LogError::Storage(_) | LogError::Offline(_) => Some(self.fail(verb, error)),
            error => {
                tracing::warn!(partition = %self.shared.partition, %error, "cannot {verb}");
                None
            }
        }
    }

    fn raise(&self, alarm: Alarm) {
        self.shared.around.metrics.alarms.add(1);
        tracing::error!(partition = %self.shared.partition, %alarm, "replication alarm");
    }
}

fn complete_append(
    state: &mut State,
    ticket: AppendTicket,
    outcome: Result<Acknowledged, AppendError>,
    io: &mut StepIo,
) {
    if io.ticket == Some(ticket) {
        io.completed = Some(outcome);
    } else if let Some(waiting) = state.appends.remove(&ticket) {
        waiting.answer(outcome);
    }
}

fn complete_deletion(
    state: &mut State,
    ticket: DeletionTicket,
    outcome: Result<Offset, DeletionError>,
    io: &mut StepIo,
) {
    if io.deletion == Some(ticket) {
        io.deleted = Some(outcome);
    } else if let Some(waiting) = state.deletions.remove(&ticket) {
        waiting.answer(outcome);
    }
}
