//! One replica of one partition: which part it plays, and who handles what.

mod log_position;
mod view;

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

use klamm_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionEpoch, Timestamp};

use crate::effect::{Effect, Effects, FetchBounds};
use crate::event::{AppendRequest, AppendTicket, DeletionRequest, Event, FetchTicket, FetchedRecords};
use crate::event::{FlushToken, FollowerFetch};
use crate::follower::Follower;
use crate::leader::{self, Leader};
use crate::refusal::{Alarm, AppendError, DeletionError, FetchRefusal};
use crate::registration::{BrokerStates, Durability, LeaderRecovery, Registration, ReplicaConfig};

pub use log_position::{LogPosition, LogPositionError};

/// The wait before attempt number `failures` + 1, in milliseconds: 5, 10, 20 ... 200.
pub(crate) fn backoff_ms(failures: u32) -> i64 {
    let doublings = failures.saturating_sub(1).min(6);
    (5_i64 << doublings).min(200)
}

/// The instant of a step, and where its effects go.
pub(crate) struct Step<'a> {
    pub(crate) now: Timestamp,
    pub(crate) effects: &'a mut Effects,
}

impl Step<'_> {
    pub(crate) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }
}

/// A write of the log that the body is doing.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum LogOperation {
    Append(AppendRequest),
    AppendAsFollower(FetchedRecords),
    Truncate(Offset),
    Restart(Offset),
}

/// A source of ids for fetches and proposals. Which number comes next changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Sequence(u64);

impl Hash for Sequence {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// What every role needs to know.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Partition {
    pub(crate) broker: BrokerId,
    pub(crate) broker_epoch: BrokerEpoch,
    pub(crate) config: ReplicaConfig,
    pub(crate) log: LogPosition,
    pub(crate) registration: Option<Registration>,
    pub(crate) brokers: BrokerStates,
    pub(crate) operation: Option<LogOperation>,
    /// The minimum that came with an accepted proposal, until the metadata of its partition epoch is known.
    accepted_minimum: Option<(PartitionEpoch, usize)>,
    sequence: Sequence,
}

impl Partition {
    pub(crate) fn leader_epoch(&self) -> LeaderEpoch {
        self.registration.as_ref().map_or(LeaderEpoch::NONE, |registration| registration.leader_epoch)
    }

    pub(crate) fn leader(&self) -> Option<BrokerId> {
        self.registration.as_ref().and_then(|registration| registration.leader)
    }

    pub(crate) fn required_in_sync(&self) -> usize {
        let required = |known: &Registration| known.effective_min_in_sync_replicas(&self.config);
        let accepted = self.accepted_minimum.map_or(0, |(_, minimum)| minimum);
        self.registration.as_ref().map_or(usize::MAX, required).max(accepted)
    }

    /// Asks for a flush if records only count once they are flushed, and some are not.
    pub(crate) fn request_flush(&self, step: &mut Step<'_>) {
        let pending = self.log.flushed_end_offset < self.log.log_end_offset;
        if self.config.durability == Durability::Flushed && pending {
            step.push(Effect::Flush(self.flush_token()));
        }
    }

    pub(crate) fn flush_token(&self) -> FlushToken {
        FlushToken { end_offset: self.log.log_end_offset, generation: self.log.generation }
    }

    pub(crate) fn next_id(&mut self) -> u64 {
        self.sequence.0 += 1;
        self.sequence.0
    }

    /// Whether the last record known to be committed is of an epoch before an unclean election.
    pub(crate) fn may_lose_committed(&self) -> bool {
        let unclean = self.registration.as_ref().and_then(|registration| registration.last_unclean_epoch);
        unclean.is_some_and(|unclean| unclean > self.log.epoch_before(self.log.high_watermark))
    }

    /// The controller took a proposal: what it changed is known before the metadata comes round.
    pub(crate) fn adopt_accepted(
        &mut self,
        epoch: PartitionEpoch,
        in_sync: &BTreeSet<BrokerId>,
        minimum: usize,
    ) {
        self.accepted_minimum = Some((epoch, minimum));
        let Some(registration) = &mut self.registration else { return };
        registration.partition_epoch.advance_to(epoch);
        registration.in_sync_replicas.clone_from(in_sync);
        registration.recovery = LeaderRecovery::Recovered;
    }

    pub(crate) fn fetch_bounds(&self, offset: Offset) -> FetchBounds {
        let log = &self.log;
        FetchBounds {
            offset,
            log_end_offset: log.log_end_offset,
            high_watermark: log.high_watermark,
            log_start_offset: log.log_start_offset,
        }
    }
}

/// The part that a replica plays.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Role {
    /// The metadata assigns it nothing (yet, or no longer).
    Unassigned,
    /// It takes the writes of a leader epoch.
    Leader(Box<Leader>),
    /// It copies a leader's log.
    Follower(Follower),
    /// Its log is out of service.
    Failed,
}

/// One replica of one partition. See the crate's documentation for the contract of [`step`](Self::step).
///
/// | event \ role | unassigned | follower | leader | failed |
/// |---|---|---|---|---|
/// | `RegistrationChanged`, higher leader epoch | takes its role | cancels its fetch, takes its role | answers `LeadershipLost` unless it leads again | stays |
/// | `RegistrationChanged`, same leader epoch | takes its role | asks again if it backed off | settles or keeps its proposal | stays |
/// | `AppendRequested` | refuses | refuses | `Append`, or refuses | refuses |
/// | `FollowerFetched` | refuses | refuses | answers or refuses | refuses |
/// | `FetchAnswered` | ignores | appends, truncates or waits | ignores | ignores |
/// | `IsrProposalAnswered` | ignores | ignores | settles, keeps or resends | ignores |
/// | `Flushed` | notes | notes, fetches | notes, may advance | ignores |
/// | `Tick` | - | asks again | expires, resends, shrinks | - |
/// | `LogFailed` | failed | failed | answers `LogFailed`, failed | - |
///
/// Replicas that hash alike behave alike but for the pace of their retries: the ids of fetches and proposals and
/// the back-off are left out of the hash, so that a search of the states a replica may be in comes to an end.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Replica {
    pub(crate) partition: Partition,
    pub(crate) role: Role,
}

impl Replica {
    /// The replica on this incarnation of this broker, with its log as recovered. It has no role before its first
    /// [`Event::RegistrationChanged`].
    #[must_use]
    pub fn new(broker: BrokerId, broker_epoch: BrokerEpoch, config: ReplicaConfig, log: LogPosition) -> Self {
        let partition = Partition {
            broker,
            broker_epoch,
            config,
            log,
            registration: None,
            brokers: BrokerStates::new(),
            operation: None,
            accepted_minimum: None,
            sequence: Sequence::default(),
        };
        Self { partition, role: Role::Unassigned }
    }

    /// Takes note of `event` at `now` (milliseconds on any clock that does not jump) and adds to `effects` what
    /// has to be done about it, in order.
    ///
    /// # Panics
    /// If an invariant of the protocol is broken, or the body breaks the order that [`Event`] asks for: to go
    /// on would put acknowledged records at risk.
    pub fn step(&mut self, now: Timestamp, event: Event, effects: &mut Effects) {
        let high_watermark = self.partition.log.high_watermark;
        let step = &mut Step { now, effects };
        match event {
            Event::RegistrationChanged { config, registration, brokers } => {
                if let Some(config) = config {
                    self.adopt_config(config, step);
                    // B48: they count for the registration before, too.
                    if cfg!(mutant = "B48") {
                        self.on_brokers_changed(step);
                    }
                }
                self.on_registration_changed(registration, brokers, step);
            }
            Event::AppendRequested(request) => self.on_append_requested(request, step),
            Event::Appended { ticket, base_offset, end_offset } => {
                self.on_appended(ticket, base_offset..end_offset, step);
            }
            Event::AppendDropped { ticket } => {
                self.take_append(ticket);
            }
            Event::AppendedAsFollower { log_end_offset } => {
                self.on_appended_as_follower(log_end_offset, step);
            }
            Event::FollowerAppendDropped => self.on_follower_append_dropped(step),
            Event::Truncated { log_end_offset } => self.on_truncated(log_end_offset, step),
            Event::Flushed(token) => self.on_flushed(token, step),
            Event::FollowerFetched { ticket, fetch } => self.on_follower_fetched(ticket, &fetch, step),
            Event::FetchAnswered { fetch, answer } => {
                if let Role::Follower(follower) = &mut self.role {
                    follower.on_fetch_answered(fetch, answer, &mut self.partition, step);
                }
            }
            Event::IsrProposalAnswered { proposal, answer } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.on_proposal_answered(proposal, answer, &mut self.partition, step);
                }
            }
            Event::DeletionRequested(request) => self.on_deletion_requested(request, step),
            Event::Tick => match &mut self.role {
                Role::Leader(leader) => leader.on_tick(&mut self.partition, step),
                Role::Follower(follower) => follower.on_tick(&mut self.partition, step),
                Role::Unassigned | Role::Failed => {}
            },
            Event::LogFailed => self.on_log_failed(step),
        }
        self.check_invariants(high_watermark);
    }

    fn on_registration_changed(
        &mut self,
        registration: Registration,
        brokers: BrokerStates,
        step: &mut Step<'_>,
    ) {
        self.expect_no_operation();
        if matches!(self.role, Role::Failed) {
            return;
        }
        // Images come in order, so the brokers are news even when an answer of the controller overtook the rest.
        self.partition.brokers = brokers;
        let known = self.partition.registration.as_ref();
        let (mut epoch_is_new, mut is_new) = (true, true);
        if let Some(known) = known {
            if registration.partition_epoch < known.partition_epoch {
                return self.on_brokers_changed(step);
            }
            if registration.leader_epoch < known.leader_epoch {
                let (known, received) = (known.leader_epoch, registration.leader_epoch);
                step.push(Effect::RaiseAlarm(Alarm::LeaderEpochWentBack { known, received }));
                return self.on_brokers_changed(step);
            }
            epoch_is_new = registration.leader_epoch > known.leader_epoch;
            is_new = registration.partition_epoch > known.partition_epoch;
        }
        if self.partition.accepted_minimum.is_some_and(|(epoch, _)| epoch <= registration.partition_epoch) {
            self.partition.accepted_minimum = None;
        }
        self.partition.registration = Some(registration.clone());
        if !registration.replicas.contains(&self.partition.broker) {
            return self.leave_role(Role::Unassigned, step);
        }
        if epoch_is_new || matches!(self.role, Role::Unassigned) {
            return self.take_role(&registration, step);
        }
        match &mut self.role {
            Role::Leader(leader) => {
                leader.on_registration_changed(&registration, is_new, &mut self.partition, step);
            }
            Role::Follower(follower) => follower.on_metadata(&mut self.partition, step),
            Role::Unassigned | Role::Failed => {}
        }
    }

    fn on_brokers_changed(&mut self, step: &mut Step<'_>) {
        match &mut self.role {
            Role::Leader(leader) => leader.on_brokers_changed(&mut self.partition, step),
            Role::Follower(follower) => follower.on_metadata(&mut self.partition, step),
            Role::Unassigned | Role::Failed => {}
        }
    }

    fn take_role(&mut self, registration: &Registration, step: &mut Step<'_>) {
        let me = self.partition.broker;
        if self.may_lead(registration, step) {
            let previous = match std::mem::replace(&mut self.role, Role::Unassigned) {
                Role::Leader(leader) => Some(*leader),
                Role::Follower(follower) => {
                    follower.stop(step);
                    None
                }
                Role::Unassigned | Role::Failed => None,
            };
            let leader = Leader::elected(registration, previous, &mut self.partition, step);
            self.role = Role::Leader(Box::new(leader));
        } else {
            self.leave_role(Role::Unassigned, step);
            let leader = registration.leader.filter(|&leader| leader != me);
            let follower = Follower::following(leader, registration, &mut self.partition, step);
            self.role = Role::Follower(follower);
        }
    }

    /// Whether the metadata elects this very incarnation. An image from before its registration may still name
    /// the broker as leader, of an epoch in which its log may since have lost what it had given out.
    fn may_lead(&self, registration: &Registration, step: &mut Step<'_>) -> bool {
        let partition = &self.partition;
        let me = partition.broker;
        let is_known = partition.brokers.get(&me).is_some_and(|state| state.epoch == partition.broker_epoch);
        if registration.leader != Some(me) || !is_known {
            return false;
        }
        let epoch = registration.leader_epoch;
        let unused = partition.log.epochs.latest().is_none_or(|latest| latest.epoch < epoch);
        if !unused {
            step.push(Effect::RaiseAlarm(Alarm::EpochReused { epoch }));
        }
        unused
    }

    fn leave_role(&mut self, next: Role, step: &mut Step<'_>) {
        let leader_epoch = self.partition.leader_epoch();
        let append = AppendError::LeadershipLost { leader: self.partition.leader(), leader_epoch };
        match std::mem::replace(&mut self.role, next) {
            Role::Leader(leader) => leader.resign(append, DeletionError::NotLeader, step),
            Role::Follower(follower) => follower.stop(step),
            Role::Unassigned | Role::Failed => {}
        }
    }

    /// Takes the settings over; what follows for the high watermark and for those who wait is decided with the registration
    /// of the same image.
    fn adopt_config(&mut self, config: ReplicaConfig, step: &mut Step<'_>) {
        let is_new_mode = config.durability != self.partition.config.durability;
        self.partition.config = config;
        if is_new_mode && !matches!(self.role, Role::Failed) {
            self.partition.request_flush(step);
        }
    }

    fn on_append_requested(&mut self, request: AppendRequest, step: &mut Step<'_>) {
        self.expect_no_operation();
        match self.try_admit(&request, step.now) {
            Ok(()) => leader::begin_append(request, &mut self.partition, step),
            Err(refusal) => {
                step.push(Effect::CompleteAppend { ticket: request.ticket, outcome: Err(refusal) });
            }
        }
    }

    fn try_admit(&self, request: &AppendRequest, now: Timestamp) -> Result<(), AppendError> {
        let current = self.partition.leader_epoch();
        if let Role::Failed = self.role {
            return Err(AppendError::LogFailed { appended: false });
        }
        match request.leader_epoch {
            Some(requested) if requested < current => {
                return Err(AppendError::FencedLeaderEpoch { requested, current });
            }
            Some(requested) if requested > current => {
                return Err(AppendError::UnknownLeaderEpoch { requested, current });
            }
            _ => {}
        }
        match &self.role {
            Role::Leader(leader) => leader.admit(request, &self.partition, now),
            Role::Unassigned | Role::Follower(_) | Role::Failed => {
                Err(AppendError::NotLeader { leader: self.partition.leader(), leader_epoch: current })
            }
        }
    }

    fn take_append(&mut self, ticket: AppendTicket) -> AppendRequest {
        match self.partition.operation.take() {
            Some(LogOperation::Append(request)) if request.ticket == ticket => request,
            other => panic!("append {ticket:?} ends while {other:?} is under way"),
        }
    }

    fn on_appended(&mut self, ticket: AppendTicket, records: std::ops::Range<Offset>, step: &mut Step<'_>) {
        let request = self.take_append(ticket);
        let Role::Leader(leader) = &mut self.role else {
            panic!("R-1: append {ticket:?} ends on a replica that does not lead");
        };
        leader.on_appended(request, records, &mut self.partition, step);
    }

    fn on_appended_as_follower(&mut self, log_end_offset: Offset, step: &mut Step<'_>) {
        let operation = self.partition.operation.take();
        let (Some(LogOperation::AppendAsFollower(records)), Role::Follower(follower)) =
            (&operation, &mut self.role)
        else {
            panic!("a follower's append ends while {operation:?} is under way");
        };
        assert_eq!(records.end_offset, log_end_offset, "the log took other records than the leader sent");
        follower.on_appended(records, &mut self.partition, step);
    }

    fn on_follower_append_dropped(&mut self, step: &mut Step<'_>) {
        let operation = self.partition.operation.take();
        let (Some(LogOperation::AppendAsFollower(_)), Role::Follower(follower)) =
            (&operation, &mut self.role)
        else {
            panic!("a follower's append is dropped while {operation:?} is under way");
        };
        follower.back_off(step);
    }

    fn on_truncated(&mut self, log_end_offset: Offset, step: &mut Step<'_>) {
        let log = &mut self.partition.log;
        let old_high_watermark = log.high_watermark;
        match self.partition.operation.take() {
            Some(LogOperation::Truncate(target)) => {
                assert!(log_end_offset <= target, "truncated to {log_end_offset}, not to {target}");
                log.truncate_to(log_end_offset);
            }
            Some(LogOperation::Restart(offset)) => {
                assert_eq!(log_end_offset, offset, "the log starts anew at another offset");
                log.restart_at(offset);
            }
            other => panic!("a truncation ends while {other:?} is under way"),
        }
        step.push(Effect::AdvanceLogEnd(log_end_offset));
        if let Role::Follower(follower) = &mut self.role {
            follower.on_truncated(old_high_watermark, &mut self.partition, step);
        }
    }

    fn on_flushed(&mut self, token: FlushToken, step: &mut Step<'_>) {
        let log = &mut self.partition.log;
        if token.generation != log.generation {
            // It began before a truncation: what it covered may have gone and come anew.
            return;
        }
        assert!(token.end_offset <= log.log_end_offset, "INV9: flushed up to {token:?}, past {log:?}");
        if !log.flushed_end_offset.advance_to(token.end_offset) {
            return;
        }
        match &mut self.role {
            Role::Leader(leader) => leader.on_flushed(&mut self.partition, step),
            Role::Follower(follower) => follower.on_flushed(&mut self.partition, step),
            Role::Unassigned | Role::Failed => {}
        }
    }

    fn on_follower_fetched(&mut self, ticket: FetchTicket, fetch: &FollowerFetch, step: &mut Step<'_>) {
        let checked = self.check_fetch(fetch);
        if let Role::Leader(leader) = &mut self.role {
            // KAFKA-8400: a fetch that fails a check says nothing about what the follower holds.
            if checked.is_ok() || cfg!(mutant = "B20") {
                leader.on_follower_fetched(fetch, &mut self.partition, step);
            }
        }
        match checked {
            Ok(_) => leader::answer_fetch(ticket, fetch.offset, &self.partition, step),
            Err(refusal) => step.push(Effect::RefuseFetch { ticket, refusal }),
        }
    }

    /// Checks a follower's fetch, newest knowledge first, without taking note of it: for a fetch whose answer was
    /// held back, when there is something to read.
    ///
    /// # Errors
    /// [`FetchRefusal`] with the first check that fails.
    pub fn check_fetch(&self, fetch: &FollowerFetch) -> Result<FetchBounds, FetchRefusal> {
        let partition = &self.partition;
        let current = partition.leader_epoch();
        // B03: serves whoever asks, whatever it believes (KIP-320).
        if cfg!(not(mutant = "B03")) {
            if fetch.leader_epoch < current {
                return Err(FetchRefusal::FencedLeaderEpoch { current });
            }
            if fetch.leader_epoch > current {
                return Err(FetchRefusal::UnknownLeaderEpoch { current });
            }
        }
        match &self.role {
            Role::Failed => return Err(FetchRefusal::LogFailed),
            Role::Unassigned | Role::Follower(_) => return Err(FetchRefusal::NotLeader),
            Role::Leader(leader) if !leader.followers.contains_key(&fetch.broker) => {
                return Err(FetchRefusal::NotReplica);
            }
            Role::Leader(_) => {}
        }
        // A newer incarnation than the metadata here knows may read; it may not join yet.
        if let Some(state) = partition.brokers.get(&fetch.broker)
            && fetch.broker_epoch < state.epoch
            && cfg!(not(mutant = "B10"))
        {
            return Err(FetchRefusal::StaleBrokerEpoch { current: state.epoch });
        }
        leader::check_offset(fetch, partition)?;
        Ok(partition.fetch_bounds(fetch.offset))
    }

    fn on_deletion_requested(&mut self, request: DeletionRequest, step: &mut Step<'_>) {
        self.expect_no_operation();
        let refusal = match &mut self.role {
            Role::Leader(leader) => {
                return leader.on_deletion_requested(request, &mut self.partition, step);
            }
            Role::Failed => DeletionError::LogFailed,
            Role::Unassigned | Role::Follower(_) => DeletionError::NotLeader,
        };
        if let Some(ticket) = request.ticket {
            step.push(Effect::CompleteDeletion { ticket, outcome: Err(refusal) });
        }
    }

    fn on_log_failed(&mut self, step: &mut Step<'_>) {
        if let Some(LogOperation::Append(request)) = self.partition.operation.take() {
            let outcome = Err(AppendError::LogFailed { appended: true });
            step.push(Effect::CompleteAppend { ticket: request.ticket, outcome });
        }
        match std::mem::replace(&mut self.role, Role::Failed) {
            Role::Leader(leader) => {
                leader.resign(AppendError::LogFailed { appended: true }, DeletionError::LogFailed, step);
            }
            Role::Follower(follower) => follower.stop(step),
            Role::Unassigned | Role::Failed => {}
        }
    }

    fn expect_no_operation(&self) {
        let operation = &self.partition.operation;
        assert!(operation.is_none(), "the body has not finished {operation:?}");
    }
}
