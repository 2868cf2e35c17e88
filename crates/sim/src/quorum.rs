//! The metadata quorum, modelled as one ordered log that the real `control` decides upon. Raft itself is tested where
//! it runs; here an entry is committed some time after it was appended, and a failover loses a suffix of what was not.

use klamm_control::{
    AlterPartitionRequest, AlterResource, BrokerStanding, ClusterControl, ConfigOperation, ConfigRefusal,
    ConfigSchema, ConfigurationControl, ControlConfig, ControlResult, ElectionKind, Evidence, FeatureControl,
    HeartbeatRequest, IsrAnswer, IsrRefusal, LeaderBalancer, Liveness, MIN_INSYNC_REPLICAS, NewTopic,
    Reassignment, RegisterRequest, ReplicationControl, Suspicion, check_image,
};
use klamm_metadata::{ConfigResource, MetadataDelta, MetadataImage, MetadataProvenance, MetadataRecord};
use klamm_replica as replica;
use klamm_types::{
    BrokerEpoch, BrokerId, Offset, PartitionId, QuorumId, Timestamp, TopicName, TopicPartition,
};

use crate::chance::Chance;
use crate::message::{Address, Life, Message};
use crate::scenario::Scenario;

/// The one topic of a run.
pub(crate) const TOPIC: &str = "events";

/// An answer that leaves once everything it was read from is committed.
#[derive(Debug)]
struct Parked {
    /// How many entries must be committed.
    until: usize,
    to: Address,
    message: Message,
}

pub(crate) struct Quorum {
    config: ControlConfig,
    /// The image after each entry.
    images: Vec<MetadataImage>,
    committed: usize,
    parked: Vec<Parked>,
    liveness: Liveness,
    balancer: LeaderBalancer,
    term: u64,
    /// Nobody decides while a new controller is elected.
    active: bool,
}

/// A setting is whatever the run says it is.
struct AnySetting;

impl ConfigSchema for AnySetting {
    fn validate(&self, _: &ConfigResource, _: &str, _: &str) -> Result<(), ConfigRefusal> {
        Ok(())
    }

    fn is_list(&self, _: &ConfigResource, _: &str) -> bool {
        false
    }

    fn default_value(&self, _: &ConfigResource, _: &str) -> Option<String> {
        None
    }
}

impl Quorum {
    pub(crate) fn new(scenario: &Scenario, now: Timestamp) -> Self {
        let config = ControlConfig {
            min_insync_replicas: scenario.min_insync_replicas,
            rebalance_settle_ms: 2_000,
            session_timeout_ms: 1_000,
            session_timeout_max_ms: 3_000,
            heartbeat_interval_ms: 200,
            ..ControlConfig::default()
        };
        let liveness = Liveness::take_over(&MetadataImage::empty(), &config, now);
        let mut quorum = Self {
            config,
            images: Vec::new(),
            committed: 0,
            parked: Vec::new(),
            liveness,
            balancer: LeaderBalancer::new(),
            term: 1,
            active: true,
        };
        let bootstrap = FeatureControl::new(&quorum.latest(), &quorum.config).bootstrap(QuorumId([1; 16]));
        quorum.append(bootstrap);
        quorum.committed = quorum.images.len();
        quorum
    }

    /// The image that decisions are made on: it has entries that may yet be lost.
    pub(crate) fn latest(&self) -> MetadataImage {
        self.images.last().cloned().unwrap_or_default()
    }

    /// The image after `entries` entries.
    pub(crate) fn image(&self, entries: usize) -> MetadataImage {
        entries.checked_sub(1).and_then(|last| self.images.get(last)).cloned().unwrap_or_default()
    }

    /// What an entry changed of the partitions, and the settings after it, for the trace.
    pub(crate) fn tell(&self, entry: usize) -> String {
        let (before, after) = (self.image(entry), self.image(entry + 1));
        let changed = after.topics.partitions().filter(|(topic, id, partition)| {
            before.topics.partition(topic.id, *id).is_none_or(|old| old != *partition)
        });
        let partitions: Vec<_> = changed.map(|(_, id, partition)| (id, partition.clone())).collect();
        let minimum =
            after.configs.resource(&ConfigResource::Topic(TopicName::new(TOPIC).expect("a legal name")));
        format!("entry {entry}: {partitions:?}, settings {minimum:?}")
    }

    pub(crate) fn committed(&self) -> usize {
        self.committed
    }

    pub(crate) fn entries(&self) -> usize {
        self.images.len()
    }

    pub(crate) fn term(&self) -> u64 {
        self.term
    }

    pub(crate) fn is_active(&self) -> bool {
        self.active
    }

    fn append<T>(&mut self, result: ControlResult<T>) -> T {
        let (entries, response) = result.into_entries();
        for records in entries {
            self.append_entry(&records);
        }
        response
    }

    fn append_entry(&mut self, records: &[MetadataRecord]) {
        let mut delta = MetadataDelta::new(self.latest());
        for record in records {
            delta.replay(record).expect("what was decided on an image can be replayed on it");
        }
        let last_offset = Offset(self.images.len() as i64);
        let last_epoch = i64::try_from(self.term).unwrap_or(i64::MAX);
        let image = delta.apply(MetadataProvenance { last_offset, last_epoch });
        check_image(&image, &self.config);
        self.images.push(image);
    }

    fn park(&mut self, to: Address, message: Message) {
        self.parked.push(Parked { until: self.images.len(), to, message });
    }

    /// So many entries of a term are committed now: the answers that waited for them. Nothing if the term is over.
    pub(crate) fn commit(&mut self, term: u64, entries: usize) -> Vec<(Address, Message)> {
        if term != self.term || !self.active {
            return Vec::new();
        }
        self.committed = self.committed.max(entries.min(self.images.len()));
        let committed = self.committed;
        let (ready, waiting) =
            std::mem::take(&mut self.parked).into_iter().partition(|p| p.until <= committed);
        self.parked = waiting;
        let ready: Vec<Parked> = ready;
        ready.into_iter().map(|parked| (parked.to, parked.message)).collect()
    }

    /// The active controller dies. Of what was not committed a part may survive: the next leader commits it.
    pub(crate) fn fail_over(&mut self, chance: &mut Chance) {
        let survivors = chance.range(self.committed as u64, self.images.len() as u64) as usize;
        self.images.truncate(survivors);
        self.parked.clear();
        self.active = false;
        self.term += 1;
    }

    /// A new controller becomes active: all that its log holds is committed with the first entry of its term.
    pub(crate) fn take_over(&mut self, now: Timestamp) {
        self.active = true;
        self.liveness = Liveness::take_over(&self.latest(), &self.config, now);
        self.balancer = LeaderBalancer::new();
    }

    fn cluster<'a>(&'a self, image: &'a MetadataImage, now: Timestamp) -> ClusterControl<'a> {
        ClusterControl::new(image, &self.config, Offset(self.images.len() as i64), now)
    }

    pub(crate) fn register(&mut self, now: Timestamp, life: Life, request: &RegisterRequest) {
        let image = self.latest();
        let mut liveness = self.liveness.clone();
        let decided = self.cluster(&image, now).register(&mut liveness, request);
        self.liveness = liveness;
        let epoch = decided.ok().map(|result| self.append(result).epoch);
        self.park(Address::Broker(request.broker), Message::Registered { life, epoch });
    }

    /// Takes a heartbeat; the answer is parked.
    pub(crate) fn heartbeat(&mut self, now: Timestamp, request: &HeartbeatRequest) -> Option<BrokerStanding> {
        let image = self.latest();
        let mut liveness = self.liveness.clone();
        let decided = self.cluster(&image, now).heartbeat(&mut liveness, request);
        self.liveness = liveness;
        decided.ok().map(|result| self.append(result))
    }

    pub(crate) fn answer_later(&mut self, to: Address, message: Message) {
        self.park(to, message);
    }

    /// Decides on one proposal.
    pub(crate) fn alter_partition(&mut self, request: &AlterPartitionRequest) -> replica::IsrAnswer {
        let image = self.latest();
        match ReplicationControl::new(&image, &self.config).alter_partition(request) {
            Err(_) => replica::IsrAnswer::Refused(replica::IsrRefusal::StaleBrokerEpoch),
            Ok(result) => {
                let answers = self.append(result);
                answers.first().map_or(replica::IsrAnswer::Lost, isr_answer)
            }
        }
    }

    /// What time alone brings about.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        let image = self.latest();
        let mut liveness = self.liveness.clone();
        let fenced = self.cluster(&image, now).fence_silent(&mut liveness);
        self.liveness = liveness;
        self.append(fenced);
        let image = self.latest();
        let mut balancer = self.balancer.clone();
        let moved = balancer.tick(&ReplicationControl::new(&image, &self.config), &self.config, now);
        self.balancer = balancer;
        self.append(moved);
    }

    /// A broker's process has ended, and its host says so: session stream over, nobody listens.
    pub(crate) fn on_death(&mut self, broker: BrokerId, epoch: BrokerEpoch, now: Timestamp) {
        let image = self.latest();
        let steps = [(Evidence::StreamEnded, 0), (Evidence::ProbeRefused, 0), (Evidence::ProbeRefused, 10)];
        for (evidence, later) in steps {
            let at = now.plus_millis(later);
            if self.liveness.on_evidence(&image, broker, epoch, evidence, at) == Suspicion::Dead {
                let fenced = self.cluster(&image, now).fence(&self.liveness, broker);
                self.append(fenced);
                return;
            }
        }
    }

    pub(crate) fn create_topic(&mut self, scenario: &Scenario, chance: &mut Chance) {
        let image = self.latest();
        let wanted = NewTopic {
            name: TOPIC.to_owned(),
            partitions: Some(scenario.partitions),
            replication_factor: Some(scenario.replication_factor),
            assignments: Vec::new(),
            configs: Vec::new(),
        };
        let control = ReplicationControl::new(&image, &self.config);
        let created = self.append_created(control.create_topics(&[wanted], &AnySetting, chance.source()));
        assert!(created, "the topic of the run is created when all brokers are there");
    }

    fn append_created<T, E>(&mut self, result: ControlResult<Vec<Result<T, E>>>) -> bool {
        self.append(result).iter().all(Result::is_ok)
    }

    /// Asks for other replicas of a partition, or calls off what is under way; refusals change nothing.
    pub(crate) fn reassign(&mut self, partition: PartitionId, replicas: Option<Vec<BrokerId>>) {
        let image = self.latest();
        let wanted = [Reassignment { partition: partition_of(partition), replicas }];
        let result = ReplicationControl::new(&image, &self.config).alter_reassignments(&wanted, false);
        self.append(result);
    }

    /// Has the first replica of a partition lead, if it is in sync.
    pub(crate) fn elect_preferred(&mut self, partition: PartitionId) {
        let image = self.latest();
        let control = ReplicationControl::new(&image, &self.config);
        let result = control.elect_leaders(ElectionKind::Preferred, &[partition_of(partition)]);
        self.append(result);
    }

    /// Changes `min.insync.replicas` of the topic.
    pub(crate) fn set_minimum(&mut self, minimum: u64) {
        let image = self.latest();
        let control = ReplicationControl::new(&image, &self.config);
        let wanted = AlterResource {
            resource: ConfigResource::Topic(TopicName::new(TOPIC).expect("a legal name")),
            operations: vec![(MIN_INSYNC_REPLICAS.to_owned(), ConfigOperation::Set(minimum.to_string()))],
            replace_all: false,
        };
        let result = ConfigurationControl::new(control, &AnySetting).alter_configs(&[wanted]);
        self.append(result);
    }
}

fn partition_of(partition: PartitionId) -> TopicPartition {
    TopicPartition::new(TopicName::new(TOPIC).expect("a legal name"), partition)
}

/// What the broker makes of an answer of the controller.
fn isr_answer(answer: &IsrAnswer) -> replica::IsrAnswer {
    match answer {
        IsrAnswer::Accepted(state) => replica::IsrAnswer::Accepted {
            leader_epoch: state.registration.leader_epoch,
            partition_epoch: state.registration.partition_epoch,
            in_sync_replicas: state.registration.isr.iter().copied().collect(),
            min_in_sync_replicas: state.min_insync_replicas,
        },
        IsrAnswer::NewLeaderElected(_) => replica::IsrAnswer::Refused(replica::IsrRefusal::NewLeaderElected),
        IsrAnswer::Refused(refusal) => replica::IsrAnswer::Refused(isr_refusal(*refusal)),
    }
}

fn isr_refusal(refusal: IsrRefusal) -> replica::IsrRefusal {
    match refusal {
        IsrRefusal::UnknownTopic { .. } | IsrRefusal::UnknownPartition { .. } => {
            replica::IsrRefusal::UnknownTopicOrPartition
        }
        IsrRefusal::FutureEpoch { .. } => replica::IsrRefusal::NotController,
        IsrRefusal::FencedLeaderEpoch { .. } => replica::IsrRefusal::FencedLeaderEpoch,
        IsrRefusal::OldPartitionEpoch { .. } => replica::IsrRefusal::InvalidUpdateVersion,
        IsrRefusal::IneligibleReplica { .. } => replica::IsrRefusal::IneligibleReplica,
        IsrRefusal::NotLeader { .. }
        | IsrRefusal::BadMember { .. }
        | IsrRefusal::LeaderMissing { .. }
        | IsrRefusal::BadRecovery { .. } => replica::IsrRefusal::InvalidRequest,
    }
}
