//! One replica on broker 1, with events written by hand: the table tests assert its effects and its state.

#![allow(dead_code, reason = "each test file that includes this uses its own part of it")]

use std::collections::BTreeSet;

use klamm_replica::{
    Acknowledged, Acks, AppendRequest, AppendTicket, BrokerState, BrokerStates, Durability, Effect, Effects,
    Event, FetchTicket, FollowerFetch, IsrProposal, LeaderRecovery, LogPosition, Registration, Replica,
    ReplicaConfig,
};
use klamm_types::{
    BrokerEpoch, BrokerId, EpochEntry, LeaderEpoch, LeaderEpochCache, Offset, PartitionEpoch, Timestamp,
};

pub(crate) const FOREVER: Timestamp = Timestamp(i64::MAX);

pub(crate) struct Solo {
    pub(crate) replica: Replica,
    pub(crate) now: i64,
}

pub(crate) fn config() -> ReplicaConfig {
    ReplicaConfig {
        durability: Durability::Flushed,
        min_in_sync_replicas: 2,
        replica_lag_time_max_ms: 10_000,
    }
}

pub(crate) fn set(ids: &[i32]) -> BTreeSet<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

/// Replicas 1, 2, 3.
pub(crate) fn registration(
    leader: i32,
    isr: &[i32],
    leader_epoch: i32,
    partition_epoch: i32,
) -> Registration {
    Registration {
        replicas: vec![BrokerId(1), BrokerId(2), BrokerId(3)],
        leader: (leader > 0).then_some(BrokerId(leader)),
        in_sync_replicas: set(isr),
        leader_epoch: LeaderEpoch(leader_epoch),
        partition_epoch: PartitionEpoch(partition_epoch),
        recovery: LeaderRecovery::Recovered,
        last_unclean_epoch: None,
    }
}

/// Brokers 1, 2, 3 with epochs 11, 12, 13.
pub(crate) fn brokers() -> BrokerStates {
    let state =
        |id: i32| BrokerState { epoch: BrokerEpoch(i64::from(id) + 10), fenced: false, shutting_down: false };
    (1..=3).map(|id| (BrokerId(id), state(id))).collect()
}

pub(crate) fn image(registration: Registration) -> Event {
    Event::RegistrationChanged { config: None, registration, brokers: brokers() }
}

/// An image with other settings.
pub(crate) fn configured(config: ReplicaConfig, registration: Registration) -> Event {
    Event::RegistrationChanged { config: Some(config), registration, brokers: brokers() }
}

pub(crate) fn entry(epoch: i32, start_offset: i64) -> EpochEntry {
    EpochEntry { epoch: LeaderEpoch(epoch), start_offset: Offset(start_offset) }
}

/// A log of `log_start..log_end` with these epochs, all of it on disk.
pub(crate) fn log(log_start: i64, high_watermark: i64, log_end: i64, epochs: &[(i32, i64)]) -> LogPosition {
    let entries = epochs.iter().map(|&(epoch, start)| entry(epoch, start)).collect();
    let epochs = LeaderEpochCache::from_entries(entries).expect("epochs in order");
    LogPosition::recovered(Offset(log_start), Offset(high_watermark), Offset(log_end), epochs)
        .expect("ends in order")
}

impl Solo {
    pub(crate) fn new(config: ReplicaConfig, log: LogPosition) -> Self {
        Self { replica: Replica::new(BrokerId(1), BrokerEpoch(11), config, log), now: 1_000 }
    }

    /// Leads epoch 1 from an empty log.
    pub(crate) fn leading(isr: &[i32]) -> Self {
        let mut solo = Self::new(config(), LogPosition::empty());
        solo.step(image(registration(1, isr, 1, 1)));
        assert!(solo.replica.is_leader());
        solo
    }

    /// Follows broker 2 in epoch 5 with this log, and has asked for more.
    pub(crate) fn following(log: LogPosition) -> Self {
        let mut solo = Self::new(config(), log);
        solo.step(image(registration(2, &[1, 2, 3], 5, 5)));
        solo
    }

    pub(crate) fn step(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Effects::new();
        self.replica.step(Timestamp(self.now), event, &mut effects);
        effects.drain().collect()
    }

    pub(crate) fn request(&self, ticket: u64, acks: Acks) -> AppendRequest {
        let ticket = AppendTicket(ticket);
        AppendRequest {
            ticket,
            acks,
            leader_epoch: None,
            deadline: Timestamp(self.now + 30_000),
            lease_until: FOREVER,
        }
    }

    /// Appends `count` records with acks=all; gives the effects of the write.
    pub(crate) fn append(&mut self, ticket: u64, count: i64) -> Vec<Effect> {
        let base = self.replica.log().log_end_offset();
        self.append_at(ticket, base.0, base.0 + count)
    }

    pub(crate) fn append_at(&mut self, ticket: u64, base: i64, end: i64) -> Vec<Effect> {
        let request = self.request(ticket, Acks::All);
        let leader_epoch = self.replica.leader_epoch();
        let effects = self.step(Event::AppendRequested(request));
        assert_eq!(effects, [Effect::Append { ticket: AppendTicket(ticket), leader_epoch }]);
        self.step(Event::Appended {
            ticket: AppendTicket(ticket),
            base_offset: Offset(base),
            end_offset: Offset(end),
        })
    }

    /// All that is written gets on disk.
    pub(crate) fn flush(&mut self) -> Vec<Effect> {
        let token = self.replica.flush_token();
        self.step(Event::Flushed(token))
    }

    /// A follower that holds everything before `offset`, the last of it from `last_epoch`, asks for more.
    pub(crate) fn fetch(&mut self, broker: i32, offset: i64, last_epoch: i32) -> Vec<Effect> {
        let fetch = self.fetch_of(broker, offset, last_epoch);
        self.step(Event::FollowerFetched { ticket: FetchTicket(7), fetch })
    }

    pub(crate) fn fetch_of(&self, broker: i32, offset: i64, last_epoch: i32) -> FollowerFetch {
        FollowerFetch {
            broker: BrokerId(broker),
            broker_epoch: BrokerEpoch(i64::from(broker) + 10),
            leader_epoch: self.replica.leader_epoch(),
            offset: Offset(offset),
            last_epoch: LeaderEpoch(last_epoch),
            log_start_offset: Offset::ZERO,
            high_watermark: Offset::ZERO,
        }
    }

    pub(crate) fn high_watermark(&self) -> i64 {
        self.replica.log().high_watermark().0
    }

    pub(crate) fn log_end(&self) -> i64 {
        self.replica.log().log_end_offset().0
    }

    pub(crate) fn committed_isr(&self) -> BTreeSet<BrokerId> {
        self.replica.isr().expect("leads").committed().clone()
    }

    pub(crate) fn maximal_isr(&self) -> BTreeSet<BrokerId> {
        self.replica.isr().expect("leads").maximal().clone()
    }

    pub(crate) fn epochs(&self) -> Vec<(i32, i64)> {
        let entries = self.replica.log().epochs().entries();
        entries.iter().map(|entry| (entry.epoch.0, entry.start_offset.0)).collect()
    }
}

/// The only proposal among the effects.
pub(crate) fn proposal(effects: &[Effect]) -> IsrProposal {
    let mut proposals = effects.iter().filter_map(|effect| match effect {
        Effect::ProposeIsr(proposal) => Some(proposal.clone()),
        _ => None,
    });
    let only = proposals.next().unwrap_or_else(|| panic!("no proposal among {effects:?}"));
    assert!(proposals.next().is_none(), "more than one proposal: {effects:?}");
    only
}

/// The members of a proposal with their broker epochs.
pub(crate) fn members(proposal: &IsrProposal) -> Vec<(i32, i64)> {
    proposal.members.iter().map(|member| (member.broker.0, member.broker_epoch.0)).collect()
}

pub(crate) fn acknowledged(ticket: u64, base_offset: i64) -> Effect {
    let acknowledged = Acknowledged { base_offset: Offset(base_offset), log_start_offset: Offset::ZERO };
    Effect::CompleteAppend { ticket: AppendTicket(ticket), outcome: Ok(acknowledged) }
}

pub(crate) fn advances(offset: i64) -> Effect {
    Effect::AdvanceHighWatermark(Offset(offset))
}
