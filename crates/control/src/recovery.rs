//! Partitions that lost all their complete replicas come back by the longest log that is left (balanced recovery, KIP-966).
//!
//! ```text
//!   ISR and ELR are empty ──▶ each broker with a replica tells how far its log reaches, again and again
//!                             └─ all last known replicas have, and all others that are active
//!                                ──▶ the longest log of the newest epoch leads
//! ```
//! What was acknowledged may be lost by then, and nobody can bring it back. Kafka elects the last known leader without
//! looking at its log; it may have been emptied while another replica still had nearly everything.

use std::collections::BTreeMap;

use klamm_metadata::{MetadataRecord, PartitionRegistration};
use klamm_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionId, TopicId, TopicPartition};

use crate::election::ElectionError;
use crate::partition_change::Election;
use crate::replication_control::{Located, Standing};
use crate::{ControlResult, LifecycleError, ReplicationControl};

/// What one broker says about its log of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogReport {
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
pub struct LogReports(BTreeMap<(TopicId, PartitionId), BTreeMap<BrokerId, LogReport>>);

/// What one broker says about its logs of partitions that nobody can lead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LostLogs {
    /// The broker.
    pub broker: BrokerId,
    /// Its registration.
    pub epoch: BrokerEpoch,
    /// Its logs; the newest leader epoch and the log end of each. What it has no replica of, and what is not lost, is left
    /// alone.
    pub logs: Vec<(TopicId, PartitionId, LeaderEpoch, Offset)>,
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
    /// Takes note of how far logs reach, and elects wherever enough is known. The answer is what was recovered.
    ///
    /// # Errors
    /// [`LifecycleError::StaleEpoch`] and [`LifecycleError::NotRegistered`]; nothing is decided then.
    pub fn logs_reported(
        &self,
        reports: &mut LogReports,
        told: &LostLogs,
    ) -> Result<ControlResult<Vec<Recovered>>, LifecycleError> {
        let LostLogs { broker, epoch: broker_epoch, .. } = *told;
        let known = self.image.cluster.broker(broker).ok_or(LifecycleError::NotRegistered { broker })?;
        if known.epoch != broker_epoch {
            let (found, current) = (broker_epoch, known.epoch);
            return Err(LifecycleError::StaleEpoch { broker, found, current });
        }
        let lost = |topic, partition| {
            self.locate_id(topic, partition).filter(|located| is_lost(located.registration))
        };
        reports.0.retain(|(topic, partition), _| lost(*topic, *partition).is_some());
        let (mut records, mut recovered) = (Vec::new(), BTreeMap::new());
        for &(topic, partition, last_epoch, log_end_offset) in &told.logs {
            let Some(located) = lost(topic, partition) else { continue };
            if !located.registration.replicas.contains(&broker) || recovered.contains_key(&(topic, partition))
            {
                continue;
            }
            let of_partition = reports.0.entry((topic, partition)).or_default();
            of_partition.insert(broker, LogReport { broker_epoch, last_epoch, log_end_offset });
            let wanted = TopicPartition::new(located.topic.name.clone(), partition);
            // Whoever is missing will report as well.
            let Ok(result) = self.recover_partition(&wanted, of_partition) else { continue };
            let (entries, leader) = result.into_entries();
            records.extend(entries.into_iter().flatten());
            let log_end_offset =
                of_partition.get(&leader).map_or(Offset::ZERO, |report| report.log_end_offset);
            recovered.insert((topic, partition), Recovered { partition: wanted, leader, log_end_offset });
        }
        Ok(ControlResult::stepwise(records, recovered.into_values().collect()))
    }

    /// Once *all* last known replicas are active and have reported, and so has every other active replica, the one with
    /// the longest log of the newest epoch leads. The answer is the new leader.
    ///
    /// # Errors
    /// [`ElectionError::EligibleNotAvailable`] while a last known replica is not active, or an active one has not reported
    /// under its current epoch; the other variants if there is nothing to recover.
    pub fn recover_partition(
        &self,
        wanted: &TopicPartition,
        reports: &BTreeMap<BrokerId, LogReport>,
    ) -> Result<ControlResult<BrokerId>, ElectionError> {
        let located = self.locate(&wanted.topic, wanted.partition)?;
        let partition = located.registration;
        if !is_lost(partition) {
            return Err(ElectionError::NotLost);
        }
        let mut best: Option<((LeaderEpoch, Offset), BrokerId)> = None;
        for &broker in &partition.replicas {
            if !partition.last_known_elr.contains(&broker) && !self.may_report(broker, located) {
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

    /// Whether the broker is active and serves its replica.
    fn may_report(&self, broker: BrokerId, located: Located<'_>) -> bool {
        let offline = self.image.offline.contains(broker, located.topic.id, located.partition);
        !offline && self.image.cluster.is_active(broker)
    }

    /// What `broker` said, if it is active, serves its replica, and said it under its current registration.
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
        reports.get(&broker).copied().filter(|report| active && report.broker_epoch == known)
    }
}

fn is_lost(partition: &PartitionRegistration) -> bool {
    partition.leader.is_none() && partition.isr.is_empty() && partition.elr.is_empty()
}
