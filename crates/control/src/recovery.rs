//! Partitions that lost all their complete replicas come back by the longest log that is left (balanced recovery, KIP-966).
//!
//! ```text
//!   ISR and ELR are empty ──▶ each broker with a replica tells how far its log reaches, again and again
//!                             └─ all have: the longest log of the newest epoch leads
//! ```
//! The last known replicas are waited for without an end, others that are registered for half a minute: they may be starting.
//!
//! What was acknowledged may be lost by then, and nobody can bring it back. Kafka elects the last known leader without
//! looking at its log; it may have been emptied while another replica still had nearly everything.

use std::collections::BTreeMap;

use klamm_metadata::{MetadataRecord, PartitionRegistration};
use klamm_types::{
    BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionId, Timestamp, TopicId, TopicPartition,
};

use crate::election::ElectionError;
use crate::partition_change::Election;
use crate::replication_control::{Located, Standing};
use crate::{ControlResult, LifecycleError, ReplicationControl};

/// How long replicas are waited for that were behind when the last complete ones were lost, in milliseconds.
const PATIENCE_MS: i64 = 30_000;

/// What one broker says about its log of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogReport {
    /// The leader epoch, of nobody, in which it was said: in another one the log may have grown or been cut.
    pub leader_epoch: LeaderEpoch,
    /// The registration under which it was said; a broker that restarted since must say it again.
    pub broker_epoch: BrokerEpoch,
    /// The newest leader epoch that the log knows of; [`LeaderEpoch::NONE`] if it knows of none.
    pub last_epoch: LeaderEpoch,
    /// Its log end.
    pub log_end_offset: Offset,
}

/// What brokers have said about the logs of partitions that nobody can lead. Not durable: they say it again for as long as
/// nobody leads.
#[derive(Clone, Default, Debug)]
pub struct LogReports(BTreeMap<(TopicId, PartitionId), Told>);

/// What was said of one partition in one leader epoch.
#[derive(Clone, Debug)]
struct Told {
    leader_epoch: LeaderEpoch,
    /// When the first spoke.
    since: Timestamp,
    by_broker: BTreeMap<BrokerId, LogReport>,
}

/// What one broker says about its logs of partitions that nobody can lead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LostLogs {
    /// The broker.
    pub broker: BrokerId,
    /// Its registration.
    pub epoch: BrokerEpoch,
    /// Its logs. What it has no replica of, what is not lost, and what was said in another leader epoch is left alone.
    pub logs: Vec<LostLog>,
}

/// One log of a partition that nobody can lead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LostLog {
    /// The topic.
    pub topic: TopicId,
    /// The partition of it.
    pub partition: PartitionId,
    /// The leader epoch in which the broker knows the partition.
    pub leader_epoch: LeaderEpoch,
    /// The newest leader epoch that the log knows of; [`LeaderEpoch::NONE`] if it knows of none.
    pub last_epoch: LeaderEpoch,
    /// The log end.
    pub log_end_offset: Offset,
}

/// A partition that somebody leads again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// Which.
    pub partition: TopicPartition,
    /// Whose log counts from here on.
    pub leader: BrokerId,
    /// Where it ends.
    pub log_end_offset: Offset,
}

impl ReplicationControl<'_> {
    /// Takes note at `now` (monotonic) of how far logs reach, and elects wherever enough is known. The answer is what was
    /// recovered.
    ///
    /// # Errors
    /// [`LifecycleError::StaleEpoch`] and [`LifecycleError::NotRegistered`]; nothing is decided then.
    pub fn logs_reported(
        &self,
        reports: &mut LogReports,
        told: &LostLogs,
        now: Timestamp,
    ) -> Result<ControlResult<Vec<Recovered>>, LifecycleError> {
        let LostLogs { broker, epoch: broker_epoch, .. } = *told;
        let known = self.image.cluster.broker(broker).ok_or(LifecycleError::NotRegistered { broker })?;
        if known.epoch != broker_epoch {
            let (found, current) = (broker_epoch, known.epoch);
            return Err(LifecycleError::StaleEpoch { broker, found, current });
        }
        let lost = |topic, partition| {
            self.locate_id(topic, partition).filter(|located| located.registration.is_lost())
        };
        reports.0.retain(|(topic, partition), told| {
            lost(*topic, *partition)
                .is_some_and(|located| located.registration.leader_epoch == told.leader_epoch)
        });
        let (mut records, mut recovered) = (Vec::new(), BTreeMap::new());
        for log in &told.logs {
            let key = (log.topic, log.partition);
            let Some(located) = lost(log.topic, log.partition) else { continue };
            if recovered.contains_key(&key) || !may_count(log, broker, located.registration) {
                continue;
            }
            let LostLog { leader_epoch, last_epoch, log_end_offset, .. } = *log;
            let new = || Told { leader_epoch, since: now, by_broker: BTreeMap::new() };
            let of_partition = reports.0.entry(key).or_insert_with(new);
            let report = LogReport { leader_epoch, broker_epoch, last_epoch, log_end_offset };
            of_partition.by_broker.insert(broker, report);
            let wanted = TopicPartition::new(located.topic.name.clone(), log.partition);
            let is_patient = now.millis_since(of_partition.since) < PATIENCE_MS;
            // Whoever is missing will report as well.
            let Ok(result) = self.recover_partition(&wanted, &of_partition.by_broker, is_patient) else {
                continue;
            };
            let (entries, leader) = result.into_entries();
            records.extend(entries.into_iter().flatten());
            let log_end_offset =
                of_partition.by_broker.get(&leader).map_or(Offset::ZERO, |report| report.log_end_offset);
            recovered.insert(key, Recovered { partition: wanted, leader, log_end_offset });
        }
        Ok(ControlResult::stepwise(records, recovered.into_values().collect()))
    }

    /// Once *all* last known replicas are active and have reported, and so has every other active replica, the one with
    /// the longest log of the newest epoch leads. Who `is_patient` waits for registered replicas that are not active, too. The
    /// answer is the new leader.
    ///
    /// # Errors
    /// [`ElectionError::EligibleNotAvailable`] while a last known replica is not active, or an active one has not reported
    /// under its current epoch; the other variants if there is nothing to recover.
    pub fn recover_partition(
        &self,
        wanted: &TopicPartition,
        reports: &BTreeMap<BrokerId, LogReport>,
        is_patient: bool,
    ) -> Result<ControlResult<BrokerId>, ElectionError> {
        let located = self.locate(&wanted.topic, wanted.partition)?;
        let partition = located.registration;
        if !partition.is_lost() {
            return Err(ElectionError::NotLost);
        }
        let mut best: Option<((LeaderEpoch, Offset), BrokerId)> = None;
        for &broker in &partition.replicas {
            let may_come = is_patient && self.serves(broker, located);
            if !partition.last_known_elr.contains(&broker) && !may_come && !self.may_report(broker, located) {
                continue;
            }
            let report =
                self.current_report(broker, located, reports).ok_or(ElectionError::EligibleNotAvailable)?;
            let length = (report.last_epoch, report.log_end_offset);
            if best.is_none_or(|(longest, _)| length > longest) {
                best = Some((length, broker));
            }
        }
        let (_, leader) = best.ok_or(ElectionError::EligibleNotAvailable)?;
        let (may_lead, may_stay) = (|broker| broker == leader, |_| false);
        let mut builder = self.builder(located, &Standing { may_lead: &may_lead, may_stay: &may_stay });
        builder.election = Election::Unclean;
        let record: MetadataRecord = builder.build().ok_or(ElectionError::EligibleNotAvailable)?;
        Ok(ControlResult::atomic(vec![record], leader))
    }

    /// Whether the broker is registered, and can serve its replica as far as is known.
    fn serves(&self, broker: BrokerId, located: Located<'_>) -> bool {
        let offline = self.image.offline.contains(broker, located.topic.id, located.partition);
        !offline && self.image.cluster.broker(broker).is_some()
    }

    /// Whether the broker is active and serves its replica.
    fn may_report(&self, broker: BrokerId, located: Located<'_>) -> bool {
        self.serves(broker, located) && self.image.cluster.is_active(broker)
    }

    /// What `broker` said, if it is active, serves its replica, and said it under its current registration and in the
    /// current leader epoch.
    fn current_report(
        &self,
        broker: BrokerId,
        located: Located<'_>,
        reports: &BTreeMap<BrokerId, LogReport>,
    ) -> Option<LogReport> {
        let active = self.may_report(broker, located);
        #[cfg(mutant = "B18")]
        let active = !active;
        let known = self.image.cluster.broker(broker)?.epoch;
        let is_current = |report: &LogReport| {
            report.broker_epoch == known && report.leader_epoch == located.registration.leader_epoch
        };
        reports.get(&broker).copied().filter(|report| active && is_current(report))
    }
}

/// Whether the broker has a replica, speaks of the present epoch, and says what can be.
fn may_count(log: &LostLog, broker: BrokerId, registration: &PartitionRegistration) -> bool {
    let epochs = LeaderEpoch::NONE..=registration.leader_epoch;
    registration.replicas.contains(&broker)
        && log.leader_epoch == registration.leader_epoch
        && epochs.contains(&log.last_epoch)
        && log.log_end_offset >= Offset::ZERO
}
