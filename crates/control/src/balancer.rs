//! Moving leaderships back to where they belong.

use std::collections::{BTreeMap, BTreeSet};

use klamm_metadata::{MetadataRecord, PartitionChanged};
use klamm_types::{BrokerId, Timestamp};

use crate::partition_change::Election;
use crate::{ControlConfig, ControlResult, ReplicationControl};

/// Brings preferred leaders back (`auto.leader.rebalance.enable`), slowly.
///
/// A broker must have been in every ISR that it belongs to for a while: a leadership that moves while the broker
/// still loads its coordinators hurts consumers (KAFKA-20075). The state is soft, and a new active controller starts anew.
#[derive(Clone, Debug, Default)]
pub struct LeaderBalancer {
    /// Since when each active broker has been whole, as far as this controller has seen.
    whole_since: BTreeMap<BrokerId, Timestamp>,
    last_run: Option<Timestamp>,
}

impl LeaderBalancer {
    /// A balancer that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves as many leaderships as the time since the last call allows, at most one second's worth. `now` is
    /// monotonic.
    pub fn tick(
        &mut self,
        control: &ReplicationControl<'_>,
        config: &ControlConfig,
        now: Timestamp,
    ) -> ControlResult<usize> {
        self.observe(control, now);
        let elapsed = self.last_run.map_or(0, |last| now.millis_since(last).clamp(0, 1_000));
        let moves = u64::from(config.rebalance_moves_per_second) * elapsed.unsigned_abs() / 1_000;
        if moves == 0 && self.last_run.is_some() {
            return ControlResult::stepwise(Vec::new(), 0);
        }
        self.last_run = Some(now);
        let settled = |broker: BrokerId| {
            let since = self.whole_since.get(&broker);
            since.is_some_and(|since| now.millis_since(*since) >= i64::from(config.rebalance_settle_ms))
        };
        let astray = control.partitions().filter(|located| {
            let partition = located.registration;
            let preferred = partition.preferred_leader();
            partition.leader != preferred && preferred.is_some_and(settled)
        });
        let moved = astray.filter_map(|located| control.hold(located, Election::Preferred));
        let records: Vec<_> = moved.filter(moves_leader).take(usize::try_from(moves).unwrap_or(0)).collect();
        let count = records.len();
        ControlResult::stepwise(records, count)
    }

    fn observe(&mut self, control: &ReplicationControl<'_>, now: Timestamp) {
        let active = control.image.cluster.brokers().filter(|broker| broker.is_active());
        let mut whole: BTreeSet<_> = active.map(|broker| broker.id).collect();
        for (topic, id, partition) in control.image.topics.partitions() {
            // What is known to be offline will not come back before its broker starts anew: nobody waits for it.
            let is_awaited = |replica: &&BrokerId| {
                !partition.isr.contains(replica) && !control.image.offline.contains(**replica, topic.id, id)
            };
            let missing = partition.replicas.iter().filter(is_awaited);
            missing.for_each(|replica| {
                whole.remove(replica);
            });
        }
        self.whole_since.retain(|broker, _| whole.contains(broker));
        for broker in whole {
            self.whole_since.entry(broker).or_insert(now);
        }
    }
}

fn moves_leader(record: &MetadataRecord) -> bool {
    matches!(record, MetadataRecord::PartitionChanged(PartitionChanged { leader: Some(Some(_)), .. }))
}
