//! A cluster that consists of its metadata: every decision is committed as it is made, and checked.

use std::collections::{BTreeMap, BTreeSet};

use klamm_control::*;
use klamm_metadata::*;
use klamm_types::*;

/// The settings that these tests know.
pub struct Schema;

impl ConfigSchema for Schema {
    fn validate(&self, _: &ConfigResource, key: &str, value: &str) -> Result<(), ConfigRefusal> {
        let key = || key.to_owned();
        let bad = |allowed: &str| {
            Err(ConfigRefusal::BadValue { key: key(), value: value.to_owned(), allowed: allowed.to_owned() })
        };
        match key().as_str() {
            MIN_INSYNC_REPLICAS if value.parse::<u16>().is_ok_and(|v| v > 0) => Ok(()),
            MIN_INSYNC_REPLICAS => bad("a number from 1"),
            UNCLEAN_LEADER_ELECTION_ENABLE if ["true", "false"].contains(&value) => Ok(()),
            UNCLEAN_LEADER_ELECTION_ENABLE => bad("true or false"),
            "cleanup.policy" | "retention.ms" | WRITE_CACHING | DEFAULT_WRITE_CACHING => Ok(()),
            _ => Err(ConfigRefusal::Unknown { key: key() }),
        }
    }

    fn validate_together(
        &self,
        _: &ConfigResource,
        settings: &BTreeMap<String, String>,
    ) -> Result<(), ConfigRefusal> {
        match settings.get("retention.ms") {
            // As good as any rule between two settings.
            Some(value) if value == "0" && settings.contains_key(MIN_INSYNC_REPLICAS) => {
                let allowed = "something to keep".to_owned();
                Err(ConfigRefusal::BadValue { key: "retention.ms".to_owned(), value: value.clone(), allowed })
            }
            _ => Ok(()),
        }
    }

    fn is_list(&self, _: &ConfigResource, key: &str) -> bool {
        key == "cleanup.policy"
    }

    fn default_value(&self, _: &ConfigResource, key: &str) -> Option<String> {
        (key == "cleanup.policy").then(|| "delete".to_owned())
    }
}

pub struct Cluster {
    pub image: MetadataImage,
    pub config: ControlConfig,
    pub liveness: Liveness,
    pub now: Timestamp,
    pub chance: SplitMix64,
    pub log: Vec<Vec<MetadataRecord>>,
    incarnations: u8,
    /// Who is known to hold everything that was ever acknowledged, if a write was committed whenever one could be.
    complete: BTreeMap<(TopicId, PartitionId), BTreeSet<BrokerId>>,
    /// Whether a leader stands behind what is committed now: it has seen the members of its ISR catch up.
    vouched: bool,
}

pub fn b(id: i32) -> BrokerId {
    BrokerId(id)
}

pub fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

pub fn name(name: &str) -> TopicName {
    TopicName::new(name).expect("a legal name")
}

pub fn topic_partition(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(name(topic), PartitionId(partition))
}

impl Cluster {
    /// Brokers 1 to `brokers`, registered and active; brokers 1, 4, ... on rack a, 2, 5, ... on b, 3, 6, ... on c.
    pub fn new(brokers: i32) -> Self {
        let mut cluster = Self::empty();
        for id in 1..=brokers {
            cluster.start(id);
        }
        cluster
    }

    pub fn empty() -> Self {
        let config = ControlConfig::default();
        let image = MetadataImage::empty();
        let now = Timestamp(1_000_000);
        let liveness = Liveness::take_over(&image, &config, now);
        let chance = SplitMix64::new(7);
        let (log, complete) = (Vec::new(), BTreeMap::new());
        Self { image, config, liveness, now, chance, log, incarnations: 0, complete, vouched: false }
    }

    pub fn next_offset(&self) -> Offset {
        self.image.provenance.last_offset.next()
    }

    pub fn replication(&self) -> ReplicationControl<'_> {
        ReplicationControl::new(&self.image, &self.config)
    }

    /// Appends and replays a decision: over its bytes, record by record, with all invariants checked wherever the
    /// controller may fail.
    pub fn commit<T>(&mut self, result: ControlResult<T>) -> T {
        let atomic = result.atomic;
        let (entries, response) = result.into_entries();
        for entry in entries {
            let entry = decode_batch(encode_batch(&entry)).expect("what was written can be read");
            let before = self.image.clone();
            let mut delta = MetadataDelta::new(before.clone());
            for record in &entry {
                let old = delta.image().clone();
                delta.replay(record).expect("a decision follows from its image");
                self.note_loss(record, &old, delta.image());
                if !atomic {
                    check_image(delta.image(), &self.config);
                }
            }
            let last_offset = self.next_offset();
            self.image = delta.apply(MetadataProvenance { last_offset, last_epoch: 1 });
            check_image(&self.image, &self.config);
            check_epochs(&before, &self.image);
            self.log.push(entry);
            self.commit_writes();
        }
        response
    }

    /// Commits what leaders proposed.
    pub fn commit_vouched<T>(&mut self, result: ControlResult<T>) -> T {
        self.vouched = true;
        let response = self.commit(result);
        self.vouched = false;
        response
    }

    /// A new log is complete everywhere; an unclean election declares its leader's log to be the truth.
    fn note_loss(&mut self, record: &MetadataRecord, old: &MetadataImage, new: &MetadataImage) {
        match record {
            MetadataRecord::PartitionCreated { topic, partition, registration } => {
                let everybody = registration.replicas.iter().copied().collect();
                self.complete.insert((*topic, *partition), everybody);
            }
            MetadataRecord::PartitionChanged(change) => {
                let find = |image: &MetadataImage| {
                    image.topics.partition(change.topic, change.partition).expect("it was replayed").clone()
                };
                let (old, partition) = (find(old), find(new));
                let complete = self.complete.entry((change.topic, change.partition)).or_default();
                let stranger = |leader: &BrokerId| !old.isr.contains(leader) && !old.elr.contains(leader);
                let unclean = partition
                    .leader
                    .filter(stranger)
                    .filter(|_| partition.recovery == LeaderRecovery::Recovering);
                if let Some(leader) = unclean {
                    *complete = [leader].into();
                }
                if self.vouched {
                    complete.extend(change.isr.iter().flatten());
                }
                let eligible = partition.isr.iter().chain(&partition.elr);
                for member in eligible {
                    assert!(
                        complete.contains(member),
                        "INV2: {member} is eligible and incomplete: {partition:?}"
                    );
                }
            }
            _ => {}
        }
    }

    /// Whoever may be elected cleanly holds everything acknowledged (INV2). A leader whose ISR is large enough commits
    /// another record at once, which nobody outside the ISR has.
    fn commit_writes(&mut self) {
        for (topic, id, partition) in self.image.topics.partitions() {
            let complete = self.complete.entry((topic.id, id)).or_default();
            let isr: BTreeSet<_> = partition.isr.iter().copied().collect();
            let min =
                self.image.configs.value(&ConfigResource::Topic(topic.name.clone()), MIN_INSYNC_REPLICAS);
            let min =
                min.or_else(|| self.image.configs.value(&ConfigResource::BrokerDefault, MIN_INSYNC_REPLICAS));
            let min = min.map_or(1, |min| min.parse().expect("a number"));
            if partition.leader.is_some() && isr.len() >= partition.effective_min_isr(min) {
                *complete = isr;
            }
        }
    }

    /// A request by a new process of broker `id`, whose disk is as it was.
    pub fn register_request(&mut self, id: i32, verdict: RecoveryVerdict) -> RegisterRequest {
        self.incarnations += 1;
        let endpoint = Endpoint {
            listener: "PLAINTEXT".to_owned(),
            host: format!("broker-{id}"),
            port: 9092,
            security_protocol: SecurityProtocol::Plaintext,
        };
        RegisterRequest {
            broker: b(id),
            incarnation: IncarnationId([self.incarnations; 16]),
            directory: DirectoryId([u8::try_from(id).expect("a small id"); 16]),
            endpoints: vec![endpoint],
            rack: ["c", "a", "b"].get(id as usize % 3).map(|rack| (*rack).to_owned()),
            features: self.config.features.clone(),
            cordoned: false,
            marker_epoch: self.image.cluster.broker(b(id)).map(|known| known.epoch),
            verdict,
        }
    }

    pub fn register(&mut self, request: &RegisterRequest) -> Result<BrokerEpoch, LifecycleError> {
        let control = ClusterControl::new(&self.image, &self.config, self.next_offset(), self.now);
        let result = control.register(&mut self.liveness, request)?;
        if request.verdict == RecoveryVerdict::Lossy {
            self.complete.values_mut().for_each(|complete| {
                complete.remove(&request.broker);
            });
        }
        let registered = self.commit(result);
        let known = self.image.cluster.broker(request.broker).expect("it is registered");
        assert_eq!(known.epoch, registered.epoch);
        Ok(registered.epoch)
    }

    pub fn heartbeat_as(
        &mut self,
        id: i32,
        epoch: BrokerEpoch,
        want_fence: bool,
        want_shutdown: bool,
    ) -> Result<BrokerStanding, LifecycleError> {
        let applied = self.image.provenance.last_offset;
        let request = HeartbeatRequest { broker: b(id), epoch, applied, want_fence, want_shutdown };
        self.send_heartbeat(&request)
    }

    pub fn send_heartbeat(&mut self, request: &HeartbeatRequest) -> Result<BrokerStanding, LifecycleError> {
        let control = ClusterControl::new(&self.image, &self.config, self.next_offset(), self.now);
        let result = control.heartbeat(&mut self.liveness, request)?;
        Ok(self.commit(result))
    }

    pub fn heartbeat(&mut self, id: i32) -> BrokerStanding {
        self.heartbeat_as(id, self.epoch(id), false, false).expect("the broker is registered")
    }

    pub fn epoch(&self, id: i32) -> BrokerEpoch {
        self.image.cluster.broker(b(id)).expect("the broker is registered").epoch
    }

    /// Starts broker `id` and brings it into service.
    pub fn start(&mut self, id: i32) {
        self.restart(id, RecoveryVerdict::Clean);
    }

    pub fn restart(&mut self, id: i32, verdict: RecoveryVerdict) {
        self.die(id);
        let request = self.register_request(id, verdict);
        self.register(&request).expect("nobody else has this id");
        let standing = self.heartbeat(id);
        assert!(standing.caught_up && !standing.fenced);
    }

    /// The streams of a process to the controller and to a peer end, and nobody listens any more.
    pub fn find_dead(&mut self, id: i32, epoch: BrokerEpoch) -> Suspicion {
        let mut tell = |evidence| self.liveness.on_evidence(&self.image, b(id), epoch, evidence, self.now);
        let _ = tell(Evidence::StreamEnded);
        let _ = tell(Evidence::PeerStreamEnded);
        tell(Evidence::ProbeRefused)
    }

    /// The process of broker `id` ends, and that shows.
    pub fn die(&mut self, id: i32) {
        let Some(epoch) = self.image.cluster.broker(b(id)).map(|known| known.epoch) else { return };
        if self.find_dead(id, epoch) == Suspicion::Dead {
            self.fence(id);
        }
        self.now = self.now.plus_millis(1_000);
    }

    pub fn fence(&mut self, id: i32) {
        let result = ClusterControl::new(&self.image, &self.config, self.next_offset(), self.now)
            .fence(&self.liveness, b(id));
        self.commit(result);
    }

    /// Everybody uses this level of `metadata.version` from now on.
    pub fn set_level(&mut self, level: u16) {
        let level = MetadataRecord::FeatureLevelSet { name: METADATA_VERSION.to_owned(), level };
        self.commit(ControlResult::atomic(vec![level], ()));
    }

    /// What broker `id` reports of its replicas of these partitions.
    pub fn offline_report(&self, id: i32, partitions: &[(&str, i32)]) -> OfflineReport {
        let replica = |(topic, partition): &(&str, i32)| OfflineReplica {
            topic: self.image.topics.topic_by_name(&name(topic)).expect("the topic exists").id,
            partition: PartitionId(*partition),
            leader_epoch: self.partition(topic, *partition).leader_epoch,
        };
        let replicas = partitions.iter().map(replica).collect();
        OfflineReport { broker: b(id), epoch: self.epoch(id), replicas, full: Vec::new() }
    }

    /// Broker `id` cannot serve its replicas of these partitions any more; how many of them is news.
    pub fn lose(&mut self, id: i32, partitions: &[(&str, i32)]) -> usize {
        let report = self.offline_report(id, partitions);
        let result = self.replication().replicas_offline(&report, &[]).expect("the broker is registered");
        self.commit(result)
    }

    pub fn create(&mut self, topic: NewTopic) -> Result<CreatedTopic, TopicError> {
        let mut chance = self.chance.clone();
        let result = self.replication().create_topics(&[topic], &Schema, &mut chance);
        self.chance = chance;
        self.commit(result).pop().expect("one answer")
    }

    /// A topic with these replicas for each partition, and this minimum.
    pub fn topic(&mut self, topic: &str, min_isr: u16, assignments: &[&[i32]]) -> TopicId {
        let numbered = (0..).map(PartitionId).zip(assignments.iter().map(|replicas| ids(replicas)));
        let new = NewTopic {
            name: topic.to_owned(),
            assignments: numbered.collect(),
            configs: vec![(MIN_INSYNC_REPLICAS.to_owned(), min_isr.to_string())],
            ..NewTopic::default()
        };
        self.create(new).expect("the topic can be created").id
    }

    pub fn partition(&self, topic: &str, partition: i32) -> PartitionRegistration {
        let topic = self.image.topics.topic_by_name(&name(topic)).expect("the topic exists");
        topic.partition(PartitionId(partition)).expect("the partition exists").as_ref().clone()
    }

    /// What the leader of a partition would send to have this ISR.
    pub fn proposal(&self, topic: &str, isr: &[i32]) -> AlterPartitionRequest {
        let image = self.image.topics.topic_by_name(&name(topic)).expect("the topic exists");
        let partition = self.partition(topic, 0);
        let broker = partition.leader.expect("there is a leader");
        let epoch = |id: i32| self.image.cluster.broker(b(id)).map_or(BrokerEpoch(0), |known| known.epoch);
        let proposal = IsrProposal {
            topic: image.id,
            partition: PartitionId(0),
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            isr: isr.iter().map(|id| IsrMember { broker: b(*id), epoch: epoch(*id) }).collect(),
            recovery: LeaderRecovery::Recovered,
        };
        AlterPartitionRequest { broker, broker_epoch: self.epoch(broker.0), proposals: vec![proposal] }
    }

    pub fn alter(&mut self, request: &AlterPartitionRequest) -> IsrAnswer {
        let result = self.replication().alter_partition(request).expect("the sender is registered");
        self.commit_vouched(result).pop().expect("one answer")
    }

    pub fn set_isr(&mut self, topic: &str, isr: &[i32]) {
        let request = self.proposal(topic, isr);
        let answer = self.alter(&request);
        assert!(matches!(answer, IsrAnswer::Accepted(_)), "{answer:?}");
    }

    pub fn set_config(
        &mut self,
        resource: ConfigResource,
        key: &str,
        value: &str,
    ) -> Result<(), ConfigError> {
        let operations = vec![(key.to_owned(), ConfigOperation::Set(value.to_owned()))];
        self.alter_config(AlterResource { resource, operations, replace_all: false })
    }

    pub fn alter_config(&mut self, alter: AlterResource) -> Result<(), ConfigError> {
        let result = ConfigurationControl::new(self.replication(), &Schema).alter_configs(&[alter]);
        self.commit(result).pop().expect("one answer")
    }

    pub fn elect(&mut self, kind: ElectionKind, topic: &str) -> Result<(), ElectionError> {
        let result = self.replication().elect_leaders(kind, &[topic_partition(topic, 0)]);
        self.commit(result).pop().expect("one answer").1
    }

    pub fn reassign(&mut self, topic: &str, replicas: Option<&[i32]>) -> Result<(), ReassignmentError> {
        let wanted = Reassignment { partition: topic_partition(topic, 0), replicas: replicas.map(ids) };
        let result = self.replication().alter_reassignments(&[wanted], true);
        self.commit(result).pop().expect("one answer")
    }
}

/// R-9 between any two images.
pub fn check_epochs(before: &MetadataImage, after: &MetadataImage) {
    for (topic, id, new) in after.topics.partitions() {
        let Some(old) = before.topics.partition(topic.id, id) else { continue };
        assert!(new.leader_epoch >= old.leader_epoch, "R-9: {old:?} {new:?}");
        assert!(new.partition_epoch >= old.partition_epoch, "R-9: {old:?} {new:?}");
        assert_eq!(new.partition_epoch == old.partition_epoch, new == old, "R-9: {old:?} {new:?}");
        if new.leader != old.leader {
            assert!(new.leader_epoch > old.leader_epoch, "R-9, C2: {old:?} {new:?}");
        }
    }
}

/// One line per partition, for tables: leader, ISR, ELR, last known ELR.
pub fn state(partition: &PartitionRegistration) -> (Option<i32>, Vec<i32>, Vec<i32>, Vec<i32>) {
    let numbers = |brokers: &[BrokerId]| brokers.iter().map(|broker| broker.0).collect();
    let PartitionRegistration { isr, elr, last_known_elr, .. } = partition;
    (partition.leader.map(|leader| leader.0), numbers(isr), numbers(elr), numbers(last_known_elr))
}
