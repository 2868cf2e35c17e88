//! What a controller shows of the cluster whose metadata it keeps.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use klamm_metadata::{LeaderRecovery, MetadataImage, MetadataRecord, PartitionChanged};
use klamm_types::BrokerId;
use tokio::sync::watch;

/// Elections of partition leaders that were committed since this controller had caught up. Every controller counts all
/// of them, but for those that it was told in a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Elections {
    /// All of them, planned ones included (`LeaderElectionRateAndTimeMs`).
    pub all: u64,
    /// Those of a replica that was not in sync but still eligible (`ElectionFromEligibleLeaderReplicasPerSec`, KIP-966).
    pub from_eligible: u64,
    /// Those of a replica that may lack committed records (`UncleanLeaderElectionsPerSec`).
    pub unclean: u64,
}

/// The cluster in numbers, as of what is committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClusterGauges {
    /// Topics (`GlobalTopicCount`).
    pub topics: usize,
    /// Partitions of all topics (`GlobalPartitionCount`).
    pub partitions: usize,
    /// Partitions that nobody leads (`OfflinePartitionsCount`).
    pub offline_partitions: usize,
    /// Replicas that brokers cannot serve, as their log directories have failed.
    pub offline_replicas: usize,
    /// Partitions that are not led by the first of their replicas (`PreferredReplicaImbalanceCount`).
    pub not_led_by_preferred: usize,
    /// Brokers that are not fenced (`ActiveBrokerCount`).
    pub active_brokers: usize,
    /// Brokers that are registered and fenced (`FencedBrokerCount`).
    pub fenced_brokers: usize,
}

impl ClusterGauges {
    /// Counts. It looks at every partition, so it is for whoever asks now and then.
    fn of(image: &MetadataImage) -> Self {
        let (topics, partitions) = (image.topics.topic_count(), image.topics.partition_count());
        let mut gauges = Self { topics, partitions, ..Self::default() };
        for (_, _, partition) in image.topics.partitions() {
            gauges.offline_partitions += usize::from(partition.leader.is_none());
            gauges.not_led_by_preferred += usize::from(partition.leader != partition.preferred_leader());
        }
        gauges.offline_replicas = image.offline.len();
        let fenced = image.cluster.brokers().filter(|broker| broker.fenced).count();
        gauges.fenced_brokers = fenced;
        gauges.active_brokers = image.cluster.broker_count() - fenced;
        gauges
    }
}

/// What a controller counts and shows. Clones show the same controller.
#[derive(Clone)]
pub struct ControllerMetrics {
    pub(crate) committed: watch::Receiver<MetadataImage>,
    pub(crate) elections: Arc<ElectionCounter>,
}

impl fmt::Debug for ControllerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControllerMetrics").field("elections", &self.elections()).finish_non_exhaustive()
    }
}

impl ControllerMetrics {
    /// The elections so far.
    #[must_use]
    pub fn elections(&self) -> Elections {
        let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let ElectionCounter { all, from_eligible, unclean, .. } = self.elections.as_ref();
        Elections { all: counted(all), from_eligible: counted(from_eligible), unclean: counted(unclean) }
    }

    /// The cluster as of what is committed here.
    #[must_use]
    pub fn gauges(&self) -> ClusterGauges {
        // A copy shares everything, and counting does not hold up those who commit.
        let image = self.committed.borrow().clone();
        ClusterGauges::of(&image)
    }
}

/// Counts elections in what is committed.
#[derive(Debug, Default)]
pub(crate) struct ElectionCounter {
    has_begun: AtomicBool,
    all: AtomicU64,
    from_eligible: AtomicU64,
    unclean: AtomicU64,
}

impl ElectionCounter {
    /// What comes from now on is new, and not read again after a start.
    pub(crate) fn begin(&self) {
        self.has_begun.store(true, Ordering::Relaxed);
    }

    /// Takes note of committed records that change `before`.
    pub(crate) fn count(&self, before: &MetadataImage, records: &[MetadataRecord]) {
        if !self.has_begun.load(Ordering::Relaxed) {
            return;
        }
        for record in records {
            if let MetadataRecord::PartitionChanged(change) = record
                && let Some(Some(leader)) = change.leader
            {
                self.count_election(before, change, leader);
            }
        }
    }

    fn count_election(&self, before: &MetadataImage, change: &PartitionChanged, leader: BrokerId) {
        self.all.fetch_add(1, Ordering::Relaxed);
        // Below metadata.version 2 only the recovery tells.
        if change.last_unclean_epoch.is_some() || change.recovery == Some(LeaderRecovery::Recovering) {
            self.unclean.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // A partition that is as new as the change has no eligible replicas out of sync.
        let known = before.topics.partition(change.topic, change.partition);
        if known.is_some_and(|known| known.elr.contains(&leader) && !known.isr.contains(&leader)) {
            self.from_eligible.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use klamm_metadata::{
        BrokerRegistration, DirectoryId, IncarnationId, MetadataDelta, MetadataProvenance,
        PartitionRegistration, ReplicasOffline,
    };
    use klamm_types::{BrokerEpoch, LeaderEpoch, PartitionId, TopicId, TopicName};

    use super::*;

    const TOPIC: TopicId = TopicId([7; 16]);

    fn ids(ids: &[i32]) -> Vec<BrokerId> {
        ids.iter().map(|id| BrokerId(*id)).collect()
    }

    fn broker(id: i32, fenced: bool) -> MetadataRecord {
        MetadataRecord::BrokerRegistered(BrokerRegistration {
            id: BrokerId(id),
            epoch: BrokerEpoch(i64::from(id)),
            incarnation: IncarnationId([id.to_be_bytes()[3]; 16]),
            directory: DirectoryId([1; 16]),
            endpoints: Vec::new(),
            rack: None,
            features: Vec::new(),
            fenced,
            shutting_down: false,
            cordoned: false,
        })
    }

    fn replayed(image: &MetadataImage, records: &[MetadataRecord]) -> MetadataImage {
        let mut delta = MetadataDelta::new(image.clone());
        records.iter().for_each(|record| delta.replay(record).unwrap());
        delta.apply(MetadataProvenance::default())
    }

    /// Three brokers, of which the last is fenced, and a topic with two partitions that broker 1 leads.
    fn image() -> MetadataImage {
        let partition = |number: i32, replicas: &[i32]| MetadataRecord::PartitionCreated {
            topic: TOPIC,
            partition: PartitionId(number),
            registration: PartitionRegistration::new(ids(replicas), ids(&[1, 2])),
        };
        let topic = MetadataRecord::TopicCreated { id: TOPIC, name: TopicName::new("t").unwrap() };
        let records = [
            broker(1, false),
            broker(2, false),
            broker(3, true),
            topic,
            partition(0, &[1, 2, 3]),
            partition(1, &[2, 1, 3]),
        ];
        replayed(&MetadataImage::empty(), &records)
    }

    fn changed(
        image: &MetadataImage,
        partition: i32,
        change: impl FnOnce(&mut PartitionRegistration),
    ) -> MetadataRecord {
        let partition = PartitionId(partition);
        let old = image.topics.partition(TOPIC, partition).unwrap();
        let mut new = PartitionRegistration::clone(old);
        change(&mut new);
        new.partition_epoch = old.partition_epoch.next().unwrap();
        if new.leader != old.leader {
            new.leader_epoch = old.leader_epoch.next().unwrap();
        }
        if new.last_unclean_epoch.is_some() {
            new.last_unclean_epoch = Some(new.leader_epoch);
        }
        MetadataRecord::PartitionChanged(PartitionChanged::between(TOPIC, partition, old, &new))
    }

    #[test]
    fn the_cluster_is_counted() {
        let image = image();
        let gauges = ClusterGauges::of(&image);
        let expected = ClusterGauges {
            topics: 1,
            partitions: 2,
            offline_partitions: 0,
            offline_replicas: 0,
            not_led_by_preferred: 1,
            active_brokers: 2,
            fenced_brokers: 1,
        };
        assert_eq!(gauges, expected);
        let leaderless = changed(&image, 0, |partition| partition.leader = None);
        let gauges = ClusterGauges::of(&replayed(&image, &[leaderless]));
        assert_eq!((gauges.offline_partitions, gauges.not_led_by_preferred), (1, 2));
        let replicas = vec![(TOPIC, PartitionId(0)), (TOPIC, PartitionId(1))];
        let offline = ReplicasOffline { broker: BrokerId(2), epoch: BrokerEpoch(2), replicas };
        let gauges = ClusterGauges::of(&replayed(&image, &[MetadataRecord::ReplicasOffline(offline)]));
        assert_eq!((gauges.offline_replicas, gauges.active_brokers), (2, 2));
    }

    #[test]
    fn elections_are_counted_by_kind_from_the_beginning_on() {
        let metrics = {
            let (_, committed) = watch::channel(MetadataImage::empty());
            ControllerMetrics { committed, elections: Arc::default() }
        };
        let mut image = image();
        let mut commit = |records: &[MetadataRecord]| {
            metrics.elections.count(&image, records);
            image = replayed(&image, records);
            image.clone()
        };
        let before = commit(&[]);
        let before = commit(&[changed(&before, 1, |partition| partition.leader = Some(BrokerId(2)))]);
        assert_eq!(metrics.elections(), Elections::default());
        metrics.elections.begin();
        let before = commit(&[
            changed(&before, 0, |partition| partition.leader = Some(BrokerId(2))),
            changed(&before, 1, |partition| partition.isr = ids(&[2])),
        ]);
        assert_eq!(metrics.elections(), Elections { all: 1, ..Elections::default() });
        let before = commit(&[changed(&before, 0, |partition| {
            (partition.leader, partition.isr, partition.elr) = (None, Vec::new(), ids(&[1]));
        })]);
        assert_eq!(metrics.elections().all, 1, "to lead nobody is no election");
        let before = commit(&[changed(&before, 0, |partition| {
            (partition.leader, partition.isr, partition.elr) = (Some(BrokerId(1)), ids(&[1]), Vec::new());
        })]);
        assert_eq!(metrics.elections(), Elections { all: 2, from_eligible: 1, unclean: 0 });
        commit(&[changed(&before, 1, |partition| {
            (partition.leader, partition.isr) = (Some(BrokerId(3)), ids(&[3]));
            partition.last_unclean_epoch = Some(LeaderEpoch(0));
        })]);
        assert_eq!(metrics.elections(), Elections { all: 3, from_eligible: 1, unclean: 1 });
    }
}
