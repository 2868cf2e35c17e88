//! Random histories of a small cluster. After every step the context checks INV2, INV7, INV8 and R-9, record by
//! record; at the end the log is replayed twice and the snapshot read back.

use klamm_control::*;
use klamm_metadata::*;
use klamm_types::*;
use proptest::prelude::*;

use crate::context::*;

const BROKERS: i32 = 5;
const TOPICS: [&str; 3] = ["a", "b.c", "d"];

#[derive(Clone, Debug)]
enum Step {
    Start { id: i32, verdict: RecoveryVerdict, marker: bool },
    Heartbeat { id: i32, fence: bool, shutdown: bool, behind: bool },
    Kill { id: i32 },
    Lose { id: i32, topic: usize, partitions: u8, stale: bool },
    Pass { millis: i64 },
    Failover,
    Create { topic: usize, partitions: i32, factor: i32, min_isr: u16 },
    Delete { topic: usize },
    Grow { topic: usize },
    SetIsr { topic: usize, partition: i32, members: u8, stale: u8 },
    Reassign { topic: usize, partition: i32, replicas: Vec<i32> },
    Cancel { topic: usize, partition: i32 },
    Elect { topic: usize, partition: i32, unclean: bool },
    Minimum { topic: Option<usize>, min_isr: u16 },
    AllowUnclean { topic: usize, allowed: bool },
    ElectLeaderless,
    Recover { topic: usize, partition: i32, ends: [i64; 5] },
    Unregister { id: i32 },
    Balance,
    ProducerIds { id: i32 },
}

fn step() -> impl Strategy<Value = Step> {
    use RecoveryVerdict::{Clean, CrashedDurable, Lossy};
    let id = || 1..=BROKERS;
    let topic = || 0..TOPICS.len();
    let partition = || 0..2i32;
    let verdict = || prop_oneof![3 => Just(Clean), 3 => Just(CrashedDurable), 1 => Just(Lossy)];
    prop_oneof![
        6 => (id(), verdict(), prop::bool::weighted(0.8))
            .prop_map(|(id, verdict, marker)| Step::Start { id, verdict, marker }),
        8 => (id(), prop::bool::weighted(0.1), prop::bool::weighted(0.2), prop::bool::weighted(0.1))
            .prop_map(|(id, fence, shutdown, behind)| Step::Heartbeat { id, fence, shutdown, behind }),
        5 => id().prop_map(|id| Step::Kill { id }),
        5 => (id(), topic(), any::<u8>(), prop::bool::weighted(0.1))
            .prop_map(|(id, topic, partitions, stale)| Step::Lose { id, topic, partitions, stale }),
        2 => (1..5_000i64).prop_map(|millis| Step::Pass { millis }),
        1 => Just(Step::Failover),
        3 => (topic(), 1..3i32, 1..5i32, 1..4u16)
            .prop_map(|(topic, partitions, factor, min_isr)| Step::Create { topic, partitions, factor, min_isr }),
        1 => topic().prop_map(|topic| Step::Delete { topic }),
        1 => topic().prop_map(|topic| Step::Grow { topic }),
        16 => (topic(), partition(), any::<u8>(), 0..12u8)
            .prop_map(|(topic, partition, members, stale)| Step::SetIsr { topic, partition, members, stale }),
        3 => (topic(), partition(), prop::collection::vec(id(), 1..4))
            .prop_map(|(topic, partition, replicas)| Step::Reassign { topic, partition, replicas }),
        1 => (topic(), partition()).prop_map(|(topic, partition)| Step::Cancel { topic, partition }),
        2 => (topic(), partition(), any::<bool>())
            .prop_map(|(topic, partition, unclean)| Step::Elect { topic, partition, unclean }),
        2 => (prop::option::of(topic()), 1..4u16)
            .prop_map(|(topic, min_isr)| Step::Minimum { topic, min_isr }),
        1 => (topic(), prop::bool::weighted(0.3))
            .prop_map(|(topic, allowed)| Step::AllowUnclean { topic, allowed }),
        1 => Just(Step::ElectLeaderless),
        2 => (topic(), partition(), any::<[i64; 5]>())
            .prop_map(|(topic, partition, ends)| Step::Recover { topic, partition, ends }),
        1 => id().prop_map(|id| Step::Unregister { id }),
        1 => Just(Step::Balance),
        1 => id().prop_map(|id| Step::ProducerIds { id }),
    ]
}

struct History {
    cluster: Cluster,
    balancer: LeaderBalancer,
}

impl History {
    fn topic(&self, topic: usize) -> Option<TopicName> {
        let name = name(TOPICS[topic]);
        self.cluster.image.topics.topic_by_name(&name).map(|topic| topic.name.clone())
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Start { id, verdict, marker } => self.start(id, verdict, marker),
            Step::Heartbeat { id, fence, shutdown, behind } => self.heartbeat(id, fence, shutdown, behind),
            Step::Kill { id } => self.cluster.die(id),
            Step::Lose { id, topic, partitions, stale } => self.lose(id, topic, partitions, stale),
            Step::Pass { millis } => self.pass(millis),
            Step::Failover => {
                let Cluster { image, config, now, .. } = &self.cluster;
                self.cluster.liveness = Liveness::take_over(image, config, *now);
            }
            Step::Create { topic, partitions, factor, min_isr } => {
                self.create(topic, partitions, factor, min_isr);
            }
            Step::Delete { topic } => {
                let wanted = [TopicReference::Name(name(TOPICS[topic]))];
                let result = self.cluster.replication().delete_topics(&wanted);
                self.cluster.commit(result);
            }
            Step::Grow { topic } => {
                let wanted = GrowTopic { name: name(TOPICS[topic]), partitions: 3, assignments: Vec::new() };
                let mut chance = self.cluster.chance.clone();
                let result = self.cluster.replication().create_partitions(&[wanted], &mut chance);
                self.cluster.chance = chance;
                self.cluster.commit(result);
            }
            Step::SetIsr { topic, partition, members, stale } => {
                self.set_isr(topic, partition, members, stale);
            }
            Step::Reassign { topic, partition, replicas } => self.reassign(topic, partition, Some(&replicas)),
            Step::Cancel { topic, partition } => self.reassign(topic, partition, None),
            Step::Elect { topic, partition, unclean } => {
                let kind = if unclean { ElectionKind::Unclean } else { ElectionKind::Preferred };
                let wanted = [topic_partition(TOPICS[topic], partition)];
                let result = self.cluster.replication().elect_leaders(kind, &wanted);
                self.cluster.commit(result);
            }
            Step::Minimum { topic, min_isr } => {
                let topic = topic.map(|topic| ConfigResource::Topic(name(TOPICS[topic])));
                let resource = topic.unwrap_or(ConfigResource::BrokerDefault);
                // Unknown topics are refused; nothing is to be seen of that but that nothing changes.
                let _ = self.cluster.set_config(resource, MIN_INSYNC_REPLICAS, &min_isr.to_string());
            }
            Step::AllowUnclean { topic, allowed } => {
                let resource = ConfigResource::Topic(name(TOPICS[topic]));
                let _ =
                    self.cluster.set_config(resource, UNCLEAN_LEADER_ELECTION_ENABLE, &allowed.to_string());
            }
            Step::ElectLeaderless => {
                let result = self.cluster.replication().elect_leaderless();
                self.cluster.commit(result);
            }
            Step::Recover { topic, partition, ends } => self.recover(topic, partition, ends),
            Step::Unregister { id } => self.unregister(id),
            Step::Balance => {
                let control = ReplicationControl::new(&self.cluster.image, &self.cluster.config);
                let result = self.balancer.tick(&control, &self.cluster.config, self.cluster.now);
                self.cluster.commit(result);
            }
            Step::ProducerIds { id } => {
                let Some(known) = self.cluster.image.cluster.broker(b(id)) else { return };
                let result = ProducerIdControl::new(&self.cluster.image).allocate(b(id), known.epoch);
                self.cluster.commit(result.expect("it is registered"));
            }
        }
    }

    fn start(&mut self, id: i32, verdict: RecoveryVerdict, marker: bool) {
        let mut request = self.cluster.register_request(id, verdict);
        if !marker {
            request.marker_epoch = None;
        }
        if verdict == RecoveryVerdict::Clean && !marker && self.cluster.image.cluster.broker(b(id)).is_some()
        {
            // The controller does not believe it, and the log may well be damaged.
            request.verdict = RecoveryVerdict::Lossy;
        }
        if self.cluster.register(&request).is_ok() {
            self.heartbeat(id, false, false, false);
        }
    }

    fn heartbeat(&mut self, id: i32, want_fence: bool, want_shutdown: bool, behind: bool) {
        let Some(epoch) = self.cluster.image.cluster.broker(b(id)).map(|known| known.epoch) else { return };
        let last = self.cluster.image.provenance.last_offset;
        let applied = if behind { Offset(epoch.0 - 1) } else { last };
        let request = HeartbeatRequest { broker: b(id), epoch, applied, want_fence, want_shutdown };
        let standing = self.cluster.send_heartbeat(&request).expect("it is registered");
        assert!(!standing.may_shut_down || standing.fenced);
        if standing.may_shut_down {
            let topics = &self.cluster.image.topics;
            assert_eq!(topics.load(b(id)).leaders, 0, "a broker that may go leads nothing");
        }
    }

    /// A broker cannot serve its replicas of some of a topic's partitions; it may name others', too.
    fn lose(&mut self, id: i32, topic: usize, partitions: u8, stale: bool) {
        let image = &self.cluster.image;
        let known = image.cluster.broker(b(id)).map(|known| known.epoch);
        let (Some(known), Some(name)) = (known, self.topic(topic)) else { return };
        let topic = image.topics.topic_by_name(&name).expect("it exists");
        let chosen = topic.partitions().filter(|(partition, _)| partitions >> partition.0 & 1 == 1);
        let replicas = chosen.map(|(partition, registration)| OfflineReplica {
            topic: topic.id,
            partition,
            leader_epoch: LeaderEpoch(registration.leader_epoch.0 - i32::from(stale)),
        });
        let report =
            OfflineReport { broker: b(id), epoch: known, replicas: replicas.collect(), full: Vec::new() };
        let is_news = |replica: &OfflineReplica| {
            let partition = topic.partition(replica.partition).expect("it exists");
            !stale
                && partition.replicas.contains(&b(id))
                && !image.offline.contains(b(id), replica.topic, replica.partition)
        };
        let expected = report.replicas.iter().filter(|replica| is_news(replica)).count();
        let result = self.cluster.replication().replicas_offline(&report, &[]).expect("it is registered");
        assert_eq!(self.cluster.commit(result), expected, "{report:?}");
        let again = self.cluster.replication().replicas_offline(&report, &[]).expect("it is registered");
        assert!(again.records.is_empty(), "what is known changes nothing: {again:?}");
        for replica in report.replicas.iter().filter(|_| !stale) {
            let partition = self.cluster.image.topics.partition(replica.topic, replica.partition);
            let leader = partition.expect("it exists").leader;
            assert_ne!(leader, Some(b(id)), "it cannot serve: {report:?}");
        }
    }

    fn pass(&mut self, millis: i64) {
        let cluster = &mut self.cluster;
        cluster.now = cluster.now.plus_millis(millis);
        let control =
            ClusterControl::new(&cluster.image, &cluster.config, cluster.next_offset(), cluster.now);
        let result = control.fence_silent(&mut cluster.liveness);
        cluster.commit(result);
    }

    fn create(&mut self, topic: usize, partitions: i32, factor: i32, min_isr: u16) {
        let new = NewTopic {
            name: TOPICS[topic].to_owned(),
            partitions: Some(partitions),
            replication_factor: Some(factor),
            configs: vec![(MIN_INSYNC_REPLICAS.to_owned(), min_isr.to_string())],
            ..NewTopic::default()
        };
        let existed = self.topic(topic).is_some();
        match self.cluster.create(new) {
            Ok(created) => assert!(!existed && self.cluster.image.topics.topic(created.id).is_some()),
            Err(TopicError::Exists { .. }) => assert!(existed),
            Err(error) => assert!(matches!(error, TopicError::Placement(_)), "{error:?}"),
        }
    }

    /// A leader proposes any subset of the replicas with itself, sometimes under epochs that are not current.
    fn set_isr(&mut self, topic: usize, partition: i32, members: u8, stale: u8) {
        let Some(image) = self.topic(topic).and_then(|name| self.cluster.image.topics.topic_by_name(&name))
        else {
            return;
        };
        let Some(current) = image.partition(PartitionId(partition)) else { return };
        let Some(leader) = current.leader else { return };
        let epoch =
            |broker| self.cluster.image.cluster.broker(broker).map_or(BrokerEpoch(0), |known| known.epoch);
        let chosen = current.replicas.iter().enumerate();
        let chosen = chosen.filter(|(i, broker)| **broker == leader || members >> i & 1 == 1);
        let isr = chosen.map(|(_, broker)| IsrMember { broker: *broker, epoch: epoch(*broker) });
        let mut proposal = IsrProposal {
            topic: image.id,
            partition: PartitionId(partition),
            leader_epoch: current.leader_epoch,
            partition_epoch: current.partition_epoch,
            isr: isr.collect(),
            recovery: LeaderRecovery::Recovered,
        };
        match stale {
            0 => proposal.leader_epoch = LeaderEpoch(current.leader_epoch.0 - 1),
            1 => proposal.partition_epoch = PartitionEpoch(current.partition_epoch.0 - 1),
            2 => proposal.partition_epoch = PartitionEpoch(current.partition_epoch.0 + 1),
            3 => proposal.isr.iter_mut().for_each(|member| member.epoch = BrokerEpoch(member.epoch.0 - 1)),
            _ => {}
        }
        let request =
            AlterPartitionRequest { broker: leader, broker_epoch: epoch(leader), proposals: vec![proposal] };
        let answer = self.cluster.alter(&request);
        assert!(stale > 3 || matches!(answer, IsrAnswer::Refused(_)), "{request:?}: {answer:?}");
    }

    fn reassign(&mut self, topic: usize, partition: i32, replicas: Option<&[i32]>) {
        let wanted = Reassignment {
            partition: topic_partition(TOPICS[topic], partition),
            replicas: replicas.map(ids),
        };
        let result = self.cluster.replication().alter_reassignments(&[wanted], true);
        self.cluster.commit(result);
    }

    fn recover(&mut self, topic: usize, partition: i32, ends: [i64; 5]) {
        let wanted = topic_partition(TOPICS[topic], partition);
        let known = self.cluster.image.topics.topic_by_name(&wanted.topic);
        let known = known.and_then(|known| known.partition(wanted.partition));
        let leader_epoch = known.map_or(LeaderEpoch::NONE, |known| known.leader_epoch);
        let reports = self.cluster.image.cluster.brokers().map(|broker| {
            let end = ends[broker.id.0 as usize % ends.len()];
            let (last_epoch, log_end_offset) = (LeaderEpoch(0), Offset(end));
            (broker.id, LogReport { leader_epoch, broker_epoch: broker.epoch, last_epoch, log_end_offset })
        });
        let reports = reports.collect();
        if let Ok(result) = self.cluster.replication().recover_partition(&wanted, &reports, false) {
            let leader = self.cluster.commit(result);
            assert!(self.cluster.image.cluster.is_active(leader));
        }
    }

    fn unregister(&mut self, id: i32) {
        let cluster = &mut self.cluster;
        let control =
            ClusterControl::new(&cluster.image, &cluster.config, cluster.next_offset(), cluster.now);
        if let Ok(result) = control.unregister(&mut cluster.liveness, b(id)) {
            cluster.commit(result);
        }
    }

    /// the log alone decides, by whatever way it is replayed.
    fn check_replay(&self) {
        let mut entry_by_entry = MetadataImage::empty();
        let mut at_once = MetadataDelta::new(MetadataImage::empty());
        for entry in &self.cluster.log {
            let mut delta = MetadataDelta::new(entry_by_entry.clone());
            for record in entry {
                delta.replay(record).expect("it was replayed before");
                at_once.replay(record).expect("it was replayed before");
            }
            let last_offset = entry_by_entry.provenance.last_offset.next();
            entry_by_entry = delta.apply(MetadataProvenance { last_offset, last_epoch: 1 });
        }
        assert_eq!(entry_by_entry, self.cluster.image);
        assert_eq!(at_once.apply(entry_by_entry.provenance), self.cluster.image);
        let mut reader = SnapshotReader::new();
        let parts: Vec<_> = SnapshotWriter::new(&self.cluster.image).parts().collect();
        let read =
            parts.iter().filter_map(|part| reader.push(part.clone()).expect("it was just written")).last();
        let read = read.expect("the trailer completes it");
        assert_eq!(read, self.cluster.image);
        assert!(SnapshotWriter::new(&read).parts().eq(parts), "equal images have equal bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_the_invariants(steps in prop::collection::vec(step(), 1..150)) {
        let mut history = History { cluster: Cluster::new(BROKERS - 1), balancer: LeaderBalancer::new() };
        history.cluster.set_level(OFFLINE_REPLICAS_LEVEL);
        for step in steps {
            history.take(step);
        }
        history.check_replay();
    }
}
