//! Topics and partitions.

use std::cmp::Ordering;
use std::sync::Arc;

use klamm_types::{BrokerId, LeaderEpoch, PartitionEpoch, PartitionId, TopicId, TopicName};

use crate::delta::ReplayError;
use crate::{PartitionChanged, PartitionRegistration, PersistentMap};

/// One topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicImage {
    /// Its identity.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    partitions: PersistentMap<PartitionId, Arc<PartitionRegistration>>,
}

impl TopicImage {
    /// The partition numbered `partition`.
    #[must_use]
    pub fn partition(&self, partition: PartitionId) -> Option<&Arc<PartitionRegistration>> {
        self.partitions.get(&partition)
    }

    /// All partitions, in order, from 0 without gaps.
    pub fn partitions(&self) -> impl DoubleEndedIterator<Item = (PartitionId, &Arc<PartitionRegistration>)> {
        self.partitions.iter().map(|(id, registration)| (*id, registration))
    }

    /// The number of partitions; also the number of the next one.
    #[must_use]
    pub fn partition_count(&self) -> usize {
        self.partitions.len()
    }
}

/// How much one broker carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BrokerLoad {
    /// Partitions that it has a replica of.
    pub replicas: u32,
    /// Partitions that it leads.
    pub leaders: u32,
    /// Partitions whose preferred leader it is.
    pub preferred: u32,
}

/// All topics, found by id and by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TopicsImage {
    by_id: PersistentMap<TopicId, Arc<TopicImage>>,
    ids_by_name: PersistentMap<FoldedName, TopicId>,
    loads: PersistentMap<BrokerId, BrokerLoad>,
    partition_count: usize,
}

/// A name in the order in which `.` and `_` are one character: two names that collide (see
/// [`TopicName::collides_with`]) are one key, so that one look-up finds both the topic and what it would clash with.
#[derive(Clone, Debug)]
struct FoldedName(TopicName);

impl TopicsImage {
    /// The topic with this identity.
    #[must_use]
    pub fn topic(&self, id: TopicId) -> Option<&Arc<TopicImage>> {
        self.by_id.get(&id)
    }

    /// The topic with this name.
    #[must_use]
    pub fn topic_by_name(&self, name: &TopicName) -> Option<&Arc<TopicImage>> {
        self.topic_like(name).filter(|topic| topic.name == *name)
    }

    /// The topic with this name, or one whose name differs only in `.` against `_`: at most one exists.
    #[must_use]
    pub fn topic_like(&self, name: &TopicName) -> Option<&Arc<TopicImage>> {
        self.topic(*self.ids_by_name.get(&FoldedName(name.clone()))?)
    }

    /// One partition.
    #[must_use]
    pub fn partition(&self, topic: TopicId, partition: PartitionId) -> Option<&Arc<PartitionRegistration>> {
        self.topic(topic)?.partition(partition)
    }

    /// All topics, ordered by id.
    pub fn topics(&self) -> impl DoubleEndedIterator<Item = &Arc<TopicImage>> {
        self.by_id.values()
    }

    /// All topics, ordered by name (with `.` and `_` as one character).
    pub fn topics_by_name(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.ids_by_name.values().filter_map(|id| self.topic(*id))
    }

    /// All partitions, ordered by topic id and number.
    pub fn partitions(
        &self,
    ) -> impl Iterator<Item = (&Arc<TopicImage>, PartitionId, &Arc<PartitionRegistration>)> {
        self.topics().flat_map(|topic| topic.partitions().map(move |(id, partition)| (topic, id, partition)))
    }

    /// The number of topics.
    #[must_use]
    pub fn topic_count(&self) -> usize {
        self.by_id.len()
    }

    /// The number of partitions of all topics.
    #[must_use]
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// What `broker` carries.
    #[must_use]
    pub fn load(&self, broker: BrokerId) -> BrokerLoad {
        self.loads.get(&broker).copied().unwrap_or_default()
    }

    pub(crate) fn create_topic(&mut self, id: TopicId, name: &TopicName) -> Result<(), ReplayError> {
        if self.by_id.contains_key(&id) || id == TopicId::ZERO {
            return Err(ReplayError::TopicIdTaken { topic: id });
        }
        if let Some(other) = self.topic_like(name) {
            return Err(ReplayError::TopicNameTaken { name: name.clone(), topic: other.id });
        }
        let topic = TopicImage { id, name: name.clone(), partitions: PersistentMap::new() };
        self.by_id.insert(id, Arc::new(topic));
        self.ids_by_name.insert(FoldedName(name.clone()), id);
        Ok(())
    }

    pub(crate) fn delete_topic(&mut self, id: TopicId) -> Result<Arc<TopicImage>, ReplayError> {
        let topic = self.by_id.remove(&id).ok_or(ReplayError::UnknownTopic { topic: id })?;
        self.ids_by_name.remove(&FoldedName(topic.name.clone()));
        self.partition_count -= topic.partition_count();
        for (_, partition) in topic.partitions() {
            self.account(Some(partition), None);
        }
        Ok(topic)
    }

    pub(crate) fn create_partition(
        &mut self,
        topic: TopicId,
        partition: PartitionId,
        registration: &PartitionRegistration,
    ) -> Result<(), ReplayError> {
        let refused = |source| ReplayError::BadPartition { topic, partition, source };
        registration.check().map_err(refused)?;
        let image = self.topic_mut(topic)?;
        let next = image.partition_count();
        if usize::try_from(partition.0) != Ok(next) {
            return Err(ReplayError::PartitionGap { topic, partition, next });
        }
        image.partitions.insert(partition, Arc::new(registration.clone()));
        self.partition_count += 1;
        self.account(None, Some(registration));
        Ok(())
    }

    /// R-9 is enforced here: the partition epoch grows by one, the leader epoch never falls, and a change of
    /// leader or a removal of a replica raises it.
    pub(crate) fn change_partition(&mut self, change: &PartitionChanged) -> Result<(), ReplayError> {
        let &PartitionChanged { topic, partition, partition_epoch, leader_epoch, .. } = change;
        let image = self.topic_mut(topic)?;
        let slot = image.partitions.get_mut(&partition);
        let slot = slot.ok_or(ReplayError::UnknownPartition { topic, partition })?;
        let new = change.merge_into(slot);
        new.check().map_err(|source| ReplayError::BadPartition { topic, partition, source })?;
        let loses_replica = slot.replicas.iter().any(|replica| !new.replicas.contains(replica));
        let raised = slot.leader != new.leader || loses_replica;
        let next = if raised { slot.leader_epoch.next() } else { Some(slot.leader_epoch) };
        if slot.partition_epoch.next() != Some(partition_epoch) || next != Some(leader_epoch) {
            let known = (slot.leader_epoch, slot.partition_epoch);
            return Err(ReplayError::PartitionEpochs {
                topic,
                partition,
                found: (leader_epoch, partition_epoch),
                known,
            });
        }
        let new = Arc::new(new);
        let old = std::mem::replace(slot, Arc::clone(&new));
        self.account(Some(&old), Some(&new));
        Ok(())
    }

    fn topic_mut(&mut self, topic: TopicId) -> Result<&mut TopicImage, ReplayError> {
        self.by_id.get_mut(&topic).map(Arc::make_mut).ok_or(ReplayError::UnknownTopic { topic })
    }

    /// Keeps the loads in step with one partition's change.
    fn account(&mut self, old: Option<&PartitionRegistration>, new: Option<&PartitionRegistration>) {
        let replicas = |r: Option<&PartitionRegistration>| r.map(|r| r.replicas.clone()).unwrap_or_default();
        if old.map(|r| &r.replicas) != new.map(|r| &r.replicas) {
            self.step_loads(replicas(old), replicas(new), |load| &mut load.replicas);
            let preferred =
                |r: Option<&PartitionRegistration>| r.and_then(PartitionRegistration::preferred_leader);
            self.step_loads(preferred(old), preferred(new), |load| &mut load.preferred);
        }
        let leader = |r: Option<&PartitionRegistration>| r.and_then(|r| r.leader);
        if leader(old) != leader(new) {
            self.step_loads(leader(old), leader(new), |load| &mut load.leaders);
        }
    }

    /// One less for everybody in `old`, one more for everybody in `new`.
    fn step_loads(
        &mut self,
        old: impl IntoIterator<Item = BrokerId>,
        new: impl IntoIterator<Item = BrokerId>,
        field: fn(&mut BrokerLoad) -> &mut u32,
    ) {
        old.into_iter().for_each(|broker| self.add_load(broker, -1, field));
        new.into_iter().for_each(|broker| self.add_load(broker, 1, field));
    }

    fn add_load(&mut self, broker: BrokerId, step: i32, field: fn(&mut BrokerLoad) -> &mut u32) {
        let mut load = self.load(broker);
        let counter = field(&mut load);
        *counter = counter.checked_add_signed(step).expect("a broker's load is counted in pairs");
        if load == BrokerLoad::default() {
            self.loads.remove(&broker);
        } else {
            self.loads.insert(broker, load);
        }
    }
}

/// What a change of a partition did not respect, for [`ReplayError::PartitionEpochs`].
pub(crate) type EpochPair = (LeaderEpoch, PartitionEpoch);

fn fold(name: &str) -> impl Iterator<Item = u8> + '_ {
    name.bytes().map(|b| if b == b'.' { b'_' } else { b })
}

impl Ord for FoldedName {
    fn cmp(&self, other: &Self) -> Ordering {
        fold(self.0.as_str()).cmp(fold(other.0.as_str()))
    }
}

impl PartialOrd for FoldedName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for FoldedName {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for FoldedName {}
