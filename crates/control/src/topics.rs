//! Creating, growing and deleting topics.

use std::collections::BTreeSet;

use klamm_metadata::{ConfigResource, MetadataRecord, PartitionRegistration, TopicImage};
use klamm_types::{BrokerId, PartitionId, TopicId, TopicName, TopicNameError};

use crate::configuration_control::ConfigRefusal;
use crate::draft::Draft;
use crate::placement::{PlacementError, ReplicaPlacer};
use crate::{ConfigSchema, ControlResult, Randomness, Refusal, Refused, ReplicationControl};

/// The most records that one request may lead to; the rest of it is refused. As in Kafka.
pub const RECORDS_PER_REQUEST_MAX: usize = 10_000;

/// A topic to create.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NewTopic {
    /// Its name, not checked yet.
    pub name: String,
    /// How many partitions; `None` for the cluster's default, and with `assignments`.
    pub partitions: Option<i32>,
    /// How many replicas each; `None` for the cluster's default, and with `assignments`.
    pub replication_factor: Option<i32>,
    /// The replicas of every partition; empty if the controller shall place them.
    pub assignments: Vec<(PartitionId, Vec<BrokerId>)>,
    /// Settings that differ from the defaults.
    pub configs: Vec<(String, String)>,
}

/// A topic that was created.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreatedTopic {
    /// Its identity.
    pub id: TopicId,
    /// The number of its partitions.
    pub partitions: usize,
    /// The number of replicas of each.
    pub replication_factor: usize,
}

/// A topic by either of its names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TopicReference {
    /// By name.
    Name(TopicName),
    /// By identity.
    Id(TopicId),
}

/// A topic that was deleted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeletedTopic {
    /// Its identity.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
}

/// A topic that shall have more partitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrowTopic {
    /// The topic.
    pub name: TopicName,
    /// The number of partitions afterwards.
    pub partitions: i32,
    /// The replicas of the new partitions in their order; empty if the controller shall place them.
    pub assignments: Vec<Vec<BrokerId>>,
}

/// Why a topic was not created, grown or deleted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TopicError {
    /// `INVALID_TOPIC_EXCEPTION`.
    #[error("no topic can have that name")]
    InvalidName(#[source] TopicNameError),
    /// `INVALID_TOPIC_EXCEPTION`: the names differ only in `.` against `_`.
    #[error("the name collides with topic {other}")]
    NameCollision {
        /// The topic that exists.
        other: TopicName,
    },
    /// `TOPIC_ALREADY_EXISTS`.
    #[error("topic {name} exists")]
    Exists {
        /// Its name.
        name: TopicName,
    },
    /// `INVALID_REQUEST`: named twice in one request.
    #[error("the topic is named twice")]
    NamedTwice,
    /// `UNKNOWN_TOPIC_OR_PARTITION`.
    #[error("the topic does not exist")]
    UnknownName,
    /// `UNKNOWN_TOPIC_ID`.
    #[error("topic {id} does not exist")]
    UnknownId {
        /// The identity.
        id: TopicId,
    },
    /// `TOPIC_DELETION_DISABLED`.
    #[error("delete.topic.enable is false")]
    DeletionDisabled,
    /// `INVALID_PARTITIONS`: not positive, or not more than there are.
    #[error("{partitions} partitions are not more than the {current} there are")]
    InvalidPartitions {
        /// What was asked for.
        partitions: i32,
        /// What the topic has; 0 if it is new.
        current: usize,
    },
    /// `INVALID_REPLICATION_FACTOR`: not positive, or past the brokers that can be used.
    #[error("a replication factor of {replication_factor} is not possible")]
    InvalidReplicationFactor {
        /// What was asked for.
        replication_factor: i32,
    },
    /// `INVALID_REPLICATION_FACTOR`.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// `INVALID_REQUEST`: assignments and numbers at once.
    #[error("assignments exclude a number of partitions and a replication factor")]
    AssignedTwice,
    /// `INVALID_REPLICA_ASSIGNMENT`: partitions must be assigned from the next number on, without gaps.
    #[error("partition {expected} is not assigned in its place")]
    AssignmentGap {
        /// The first number that is missing.
        expected: usize,
    },
    /// `INVALID_REPLICA_ASSIGNMENT`: empty, or of another size than the others.
    #[error("partition {partition} has {replicas} replicas instead of {expected}")]
    AssignmentSize {
        /// The partition.
        partition: usize,
        /// How many it was assigned.
        replicas: usize,
        /// How many it should have; at least 1.
        expected: usize,
    },
    /// `INVALID_REPLICA_ASSIGNMENT`: named twice, not registered, or closed for new replicas.
    #[error("partition {partition} cannot be assigned to broker {broker}")]
    BadReplica {
        /// The partition.
        partition: usize,
        /// The broker.
        broker: BrokerId,
    },
    /// `INVALID_REPLICA_ASSIGNMENT`.
    #[error("all replicas of partition {partition} are fenced or shutting down")]
    NoActiveReplica {
        /// The partition.
        partition: usize,
    },
    /// `INVALID_CONFIG`.
    #[error("a setting is refused")]
    Config(#[source] ConfigRefusal),
    /// `POLICY_VIOLATION`: the request leads to more records than one may.
    #[error("the request leads to more than {RECORDS_PER_REQUEST_MAX} records")]
    TooLarge,
}

impl Refused for TopicError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::InvalidName(_) | Self::NameCollision { .. } => Refusal::InvalidTopicException,
            Self::Exists { .. } => Refusal::TopicAlreadyExists,
            Self::NamedTwice | Self::AssignedTwice => Refusal::InvalidRequest,
            Self::UnknownName => Refusal::UnknownTopicOrPartition,
            Self::UnknownId { .. } => Refusal::UnknownTopicId,
            Self::DeletionDisabled => Refusal::TopicDeletionDisabled,
            Self::InvalidPartitions { .. } => Refusal::InvalidPartitions,
            Self::InvalidReplicationFactor { .. } | Self::Placement(_) => Refusal::InvalidReplicationFactor,
            Self::AssignmentGap { .. }
            | Self::AssignmentSize { .. }
            | Self::BadReplica { .. }
            | Self::NoActiveReplica { .. } => Refusal::InvalidReplicaAssignment,
            Self::Config(_) => Refusal::InvalidConfig,
            Self::TooLarge => Refusal::PolicyViolation,
        }
    }
}

type Outcome<T> = Result<T, TopicError>;

impl ReplicationControl<'_> {
    /// Creates topics; each is created or refused alone, and all that are created are created at once. `schema` says
    /// which settings there are. Whoever only wants to know whether it would work drops the records.
    pub fn create_topics(
        &self,
        wanted: &[NewTopic],
        schema: &dyn ConfigSchema,
        randomness: &mut dyn Randomness,
    ) -> ControlResult<Vec<Outcome<CreatedTopic>>> {
        let mut draft = Draft::new(self.image);
        let mut placer = ReplicaPlacer::of_image(self.image, randomness);
        let mut named = BTreeSet::new();
        let twice: BTreeSet<_> = wanted.iter().map(|t| &t.name).filter(|name| !named.insert(*name)).collect();
        let mut outcomes = Vec::with_capacity(wanted.len());
        for topic in wanted {
            if twice.contains(&topic.name) {
                outcomes.push(Err(TopicError::NamedTwice));
                continue;
            }
            outcomes.push(self.create_topic(&mut draft, topic, &mut placer, schema, randomness));
        }
        ControlResult::atomic(draft.records, outcomes)
    }

    fn create_topic(
        &self,
        draft: &mut Draft,
        topic: &NewTopic,
        placer: &mut ReplicaPlacer,
        schema: &dyn ConfigSchema,
        randomness: &mut dyn Randomness,
    ) -> Outcome<CreatedTopic> {
        let name = TopicName::new(&topic.name).map_err(TopicError::InvalidName)?;
        match draft.image().topics.topic_like(&name) {
            Some(other) if other.name == name => return Err(TopicError::Exists { name }),
            Some(other) => return Err(TopicError::NameCollision { other: other.name.clone() }),
            None => {}
        }
        let resource = ConfigResource::Topic(name.clone());
        let mut keys = BTreeSet::new();
        for (key, value) in &topic.configs {
            let known = schema.validate(&resource, key, value);
            let once =
                if keys.insert(key) { Ok(()) } else { Err(ConfigRefusal::NamedTwice { key: key.clone() }) };
            known.and(once).map_err(TopicError::Config)?;
        }
        let together = topic.configs.iter().cloned().collect();
        schema.validate_together(&resource, &together).map_err(TopicError::Config)?;
        let room = RECORDS_PER_REQUEST_MAX.saturating_sub(draft.records.len() + 1 + topic.configs.len());
        let partitions = self.new_partitions(topic, placer, room)?;
        let replication_factor = partitions.first().map_or(0, |partition| partition.replicas.len());
        let id = draw_topic_id(draft, randomness);
        let created = CreatedTopic { id, partitions: partitions.len(), replication_factor };
        draft.push(MetadataRecord::TopicCreated { id, name });
        push_partitions(draft, id, 0, partitions);
        for (key, value) in &topic.configs {
            let (key, value) = (key.clone(), Some(value.clone()));
            draft.push(MetadataRecord::ConfigChanged { resource: resource.clone(), key, value });
        }
        Ok(created)
    }

    fn new_partitions(
        &self,
        topic: &NewTopic,
        placer: &mut ReplicaPlacer,
        room: usize,
    ) -> Outcome<Vec<PartitionRegistration>> {
        if topic.assignments.is_empty() {
            let partitions = topic.partitions.unwrap_or_else(|| saturated(self.config.num_partitions));
            let factor = topic.replication_factor;
            let factor = factor.unwrap_or_else(|| i32::from(self.config.default_replication_factor));
            let count = usize::try_from(partitions).ok().filter(|count| *count > 0);
            let count = count.ok_or(TopicError::InvalidPartitions { partitions, current: 0 })?;
            let refused = TopicError::InvalidReplicationFactor { replication_factor: factor };
            let factor = usize::try_from(factor).ok().filter(|factor| *factor > 0).ok_or(refused)?;
            return self.place(placer, count, factor, room);
        }
        if topic.partitions.is_some() || topic.replication_factor.is_some() {
            return Err(TopicError::AssignedTwice);
        }
        let mut assignments: Vec<_> = topic.assignments.iter().collect();
        assignments.sort_by_key(|(partition, _)| *partition);
        let misplaced =
            |(i, (partition, _)): &(usize, &&(PartitionId, _))| usize::try_from(partition.0) != Ok(*i);
        if let Some((expected, _)) = assignments.iter().enumerate().find(misplaced) {
            return Err(TopicError::AssignmentGap { expected });
        }
        let assignments: Vec<_> = assignments.into_iter().map(|(_, replicas)| replicas.clone()).collect();
        let factor = assignments.first().map_or(0, Vec::len);
        self.assign(0, assignments, factor, room)
    }

    fn place(
        &self,
        placer: &mut ReplicaPlacer,
        count: usize,
        factor: usize,
        room: usize,
    ) -> Outcome<Vec<PartitionRegistration>> {
        if count > room {
            return Err(TopicError::TooLarge);
        }
        let mut partitions = Vec::with_capacity(count);
        for _ in 0..count {
            let replicas = placer.place(factor)?.replicas;
            let isr = self.active(&replicas);
            partitions.push(PartitionRegistration::new(replicas, isr));
        }
        Ok(partitions)
    }

    /// Checks assignments that somebody else made. The first of them is for partition `first`.
    fn assign(
        &self,
        first: usize,
        assignments: Vec<Vec<BrokerId>>,
        factor: usize,
        room: usize,
    ) -> Outcome<Vec<PartitionRegistration>> {
        if assignments.len() > room {
            return Err(TopicError::TooLarge);
        }
        let mut partitions = Vec::with_capacity(assignments.len());
        for (i, replicas) in assignments.into_iter().enumerate() {
            let partition = first + i;
            let expected = factor.max(1);
            if replicas.len() != expected {
                return Err(TopicError::AssignmentSize { partition, replicas: replicas.len(), expected });
            }
            if let Some(broker) = self.first_bad_replica(&replicas) {
                return Err(TopicError::BadReplica { partition, broker });
            }
            let isr = self.active(&replicas);
            if isr.is_empty() {
                return Err(TopicError::NoActiveReplica { partition });
            }
            partitions.push(PartitionRegistration::new(replicas, isr));
        }
        Ok(partitions)
    }

    /// A broker that is named twice, not registered, or closed for new replicas.
    pub(crate) fn first_bad_replica(&self, replicas: &[BrokerId]) -> Option<BrokerId> {
        let mut seen = BTreeSet::new();
        let open =
            |broker: &BrokerId| self.image.cluster.broker(*broker).is_some_and(|known| !known.cordoned);
        replicas.iter().copied().find(|broker| !open(broker) || !seen.insert(*broker))
    }

    fn active(&self, replicas: &[BrokerId]) -> Vec<BrokerId> {
        replicas.iter().copied().filter(|broker| self.image.cluster.is_active(*broker)).collect()
    }

    /// Adds partitions to topics; each topic grows or is refused alone.
    pub fn create_partitions(
        &self,
        wanted: &[GrowTopic],
        randomness: &mut dyn Randomness,
    ) -> ControlResult<Vec<Outcome<()>>> {
        let mut draft = Draft::new(self.image);
        let mut placer = ReplicaPlacer::of_image(self.image, randomness);
        let mut named = BTreeSet::new();
        let twice: BTreeSet<_> = wanted.iter().map(|t| &t.name).filter(|name| !named.insert(*name)).collect();
        let mut outcomes = Vec::with_capacity(wanted.len());
        for topic in wanted {
            let outcome = if twice.contains(&topic.name) {
                Err(TopicError::NamedTwice)
            } else {
                self.grow_topic(&mut draft, topic, &mut placer)
            };
            outcomes.push(outcome);
        }
        ControlResult::atomic(draft.records, outcomes)
    }

    fn grow_topic(&self, draft: &mut Draft, wanted: &GrowTopic, placer: &mut ReplicaPlacer) -> Outcome<()> {
        let topic = self.image.topics.topic_by_name(&wanted.name).ok_or(TopicError::UnknownName)?;
        let current = topic.partition_count();
        let refused = TopicError::InvalidPartitions { partitions: wanted.partitions, current };
        let count = usize::try_from(wanted.partitions).ok().and_then(|count| count.checked_sub(current));
        let count = count.filter(|count| *count > 0).ok_or(refused)?;
        let room = RECORDS_PER_REQUEST_MAX.saturating_sub(draft.records.len());
        let factor = replication_factor(topic);
        let partitions = if wanted.assignments.is_empty() {
            self.place(placer, count, factor, room)?
        } else if wanted.assignments.len() != count {
            return Err(TopicError::AssignmentGap {
                expected: current + wanted.assignments.len().min(count),
            });
        } else {
            self.assign(current, wanted.assignments.clone(), factor, room)?
        };
        push_partitions(draft, topic.id, current, partitions);
        Ok(())
    }

    /// Deletes topics; each is deleted or refused alone.
    pub fn delete_topics(&self, wanted: &[TopicReference]) -> ControlResult<Vec<Outcome<DeletedTopic>>> {
        let mut draft = Draft::new(self.image);
        let mut deleted = BTreeSet::new();
        let mut outcomes = Vec::with_capacity(wanted.len());
        for reference in wanted {
            let outcome = self.find_to_delete(reference).and_then(|found| {
                if deleted.insert(found.id) { Ok(found) } else { Err(TopicError::NamedTwice) }
            });
            if let Ok(found) = &outcome {
                draft.push(MetadataRecord::TopicDeleted { id: found.id });
            }
            outcomes.push(outcome);
        }
        ControlResult::atomic(draft.records, outcomes)
    }

    fn find_to_delete(&self, reference: &TopicReference) -> Outcome<DeletedTopic> {
        let topic = match reference {
            TopicReference::Name(name) => {
                self.image.topics.topic_by_name(name).ok_or(TopicError::UnknownName)?
            }
            TopicReference::Id(id) => {
                self.image.topics.topic(*id).ok_or(TopicError::UnknownId { id: *id })?
            }
        };
        if !self.config.delete_topic_enable {
            return Err(TopicError::DeletionDisabled);
        }
        Ok(DeletedTopic { id: topic.id, name: topic.name.clone() })
    }
}

/// New partitions have as many replicas as the first one has when no reassignment is under way.
fn replication_factor(topic: &TopicImage) -> usize {
    topic.partition(PartitionId(0)).map_or(1, |first| first.target_replicas().len())
}

fn push_partitions(draft: &mut Draft, topic: TopicId, first: usize, partitions: Vec<PartitionRegistration>) {
    for (i, registration) in partitions.into_iter().enumerate() {
        let partition =
            PartitionId(i32::try_from(first + i).expect("a request adds at most 10,000 partitions"));
        draft.push(MetadataRecord::PartitionCreated { topic, partition, registration });
    }
}

/// An identity that no topic has, whose text does not look like a command-line option.
fn draw_topic_id(draft: &Draft, randomness: &mut dyn Randomness) -> TopicId {
    let drawn = u128::from(randomness.next_u64()) << 64 | u128::from(randomness.next_u64());
    // A bad draw moves on by a generator that visits all 2^128 values (Knuth's form, odd increment), so that even a
    // source of randomness that repeats itself ends this.
    let mut bits = drawn;
    loop {
        let id = TopicId(bits.to_be_bytes());
        // Ids below 2^64 are reserved: the zero id and Kafka's well-known ones are among them.
        let reserved = bits >> 64 == 0 || id.to_string().starts_with('-');
        if !reserved && draft.image().topics.topic(id).is_none() {
            return id;
        }
        bits = bits.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(1);
    }
}

fn saturated(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
