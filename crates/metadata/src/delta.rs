//! The step from one image to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klamm_types::{BrokerEpoch, BrokerId, PartitionId, ProducerId, QuorumId, TopicId, TopicName};

use crate::image::TopicImage;
use crate::{
    ConfigResource, MetadataImage, MetadataProvenance, MetadataRecord, PartitionError, PartitionRegistration,
    ReplicasOffline,
};

/// A fact that cannot follow the facts before it.
///
/// Only a bug or a damaged log makes one: whoever replays must stop, for what it would serve is not the truth.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReplayError {
    /// The broker is not registered.
    #[error("broker {broker} is not registered")]
    UnknownBroker {
        /// The broker.
        broker: BrokerId,
    },
    /// The fact names a registration that is not the current one, or one that is not newer.
    #[error("broker {broker}: epoch {found} does not fit epoch {known}")]
    BrokerEpoch {
        /// The broker.
        broker: BrokerId,
        /// The epoch in the fact.
        found: BrokerEpoch,
        /// The epoch of the registration.
        known: BrokerEpoch,
    },
    /// A topic has that identity already, or it is the one that no topic has.
    #[error("topic id {topic} is taken")]
    TopicIdTaken {
        /// The identity.
        topic: TopicId,
    },
    /// A topic has that name, or one that differs only in `.` against `_`.
    #[error("topic name {name} is taken by {topic}")]
    TopicNameTaken {
        /// The name.
        name: TopicName,
        /// Who has it.
        topic: TopicId,
    },
    /// There is no such topic.
    #[error("topic {topic} does not exist")]
    UnknownTopic {
        /// The identity.
        topic: TopicId,
    },
    /// Settings of a topic that does not exist.
    #[error("topic {name} does not exist")]
    UnknownTopicName {
        /// The name.
        name: TopicName,
    },
    /// There is no such partition.
    #[error("partition {partition} of topic {topic} does not exist")]
    UnknownPartition {
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: PartitionId,
    },
    /// A new partition does not have the next number.
    #[error("partition {partition} of topic {topic} does not follow its {next} partitions")]
    PartitionGap {
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: PartitionId,
        /// The number that it should have.
        next: usize,
    },
    /// the epochs of a change do not follow those before it.
    #[error("partition {partition} of topic {topic}: epochs {found:?} do not follow {known:?}")]
    PartitionEpochs {
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: PartitionId,
        /// Leader epoch and partition epoch in the fact.
        found: crate::image::EpochPair,
        /// Those before it.
        known: crate::image::EpochPair,
    },
    /// The partition would be in an impossible state.
    #[error("partition {partition} of topic {topic} cannot be so")]
    BadPartition {
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: PartitionId,
        /// Which rule is broken.
        source: PartitionError,
    },
    /// A broker would not serve a replica that it does not have.
    #[error("broker {broker} has no replica of partition {partition} of topic {topic}")]
    NoReplica {
        /// The broker.
        broker: BrokerId,
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: PartitionId,
    },
    /// Producer ids would be given away twice.
    #[error("producer ids up to {found} are given away already, up to {known}")]
    ProducerIds {
        /// The end in the fact.
        found: ProducerId,
        /// The end before it.
        known: ProducerId,
    },
    /// The quorum has an id already.
    #[error("the quorum is {known} and cannot become {found}")]
    QuorumId {
        /// The id in the fact.
        found: QuorumId,
        /// The id before it.
        known: QuorumId,
    },
}

/// An image, the facts that follow it, and what they touched.
///
/// The delta holds the new image as it grows, so that whoever decides several things at once sees each decision's
/// outcome in the next. A refused fact leaves the delta as it was.
#[derive(Clone, Debug)]
pub struct MetadataDelta {
    base: MetadataImage,
    image: MetadataImage,
    partitions: BTreeSet<(TopicId, PartitionId)>,
    created_topics: BTreeSet<TopicId>,
    deleted_topics: BTreeMap<TopicId, Arc<TopicImage>>,
    brokers: BTreeSet<BrokerId>,
    configs: BTreeSet<ConfigResource>,
    features: BTreeSet<String>,
    producer_ids: bool,
}

impl MetadataDelta {
    /// A step from `base` that changes nothing yet.
    #[must_use]
    pub fn new(base: MetadataImage) -> Self {
        Self {
            image: base.clone(),
            base,
            partitions: BTreeSet::new(),
            created_topics: BTreeSet::new(),
            deleted_topics: BTreeMap::new(),
            brokers: BTreeSet::new(),
            configs: BTreeSet::new(),
            features: BTreeSet::new(),
            producer_ids: false,
        }
    }

    /// The step from `base` to an image that was not reached by replaying on top of it: one from a snapshot.
    #[must_use]
    pub fn between(base: MetadataImage, image: MetadataImage) -> Self {
        let mut delta = Self::new(base);
        delta.find_changed_topics(&image);
        let (old, new) = (&delta.base.cluster, &image.cluster);
        let ids = old.brokers().chain(new.brokers()).map(|broker| broker.id);
        delta.brokers = ids.filter(|id| old.broker(*id) != new.broker(*id)).collect();
        let (old, new) = (&delta.base.configs, &image.configs);
        let resources = old.resources().chain(new.resources()).map(|(resource, _)| resource);
        delta.configs = resources.filter(|r| old.resource(r) != new.resource(r)).cloned().collect();
        let (old, new) = (&delta.base.features, &image.features);
        let names = old.levels().chain(new.levels()).map(|(name, _)| name);
        delta.features = names.filter(|name| old.level(name) != new.level(name)).map(str::to_owned).collect();
        delta.producer_ids = delta.base.producer_ids != image.producer_ids;
        let (old, new) = (&delta.base.offline, &image.offline);
        let differ = old.iter().filter(|&(broker, topic, id)| !new.contains(broker, topic, id));
        let differ = differ.chain(new.iter().filter(|&(broker, topic, id)| !old.contains(broker, topic, id)));
        delta.partitions.extend(differ.map(|(_, topic, partition)| (topic, partition)));
        delta.image = image;
        delta
    }

    fn find_changed_topics(&mut self, image: &MetadataImage) {
        let gone = self.base.topics.topics().filter(|topic| image.topics.topic(topic.id).is_none());
        self.deleted_topics = gone.map(|topic| (topic.id, Arc::clone(topic))).collect();
        for topic in image.topics.topics() {
            let old = self.base.topics.topic(topic.id);
            if old.is_none() {
                self.created_topics.insert(topic.id);
            }
            let changed =
                topic.partitions().filter(|(id, new)| old.and_then(|old| old.partition(*id)) != Some(*new));
            self.partitions.extend(changed.map(|(id, _)| (topic.id, id)));
        }
    }

    /// Adds one fact. This is the only code that changes an image, on controllers and brokers alike.
    ///
    /// # Errors
    /// [`ReplayError`] if the fact cannot follow what is there; nothing has changed then.
    pub fn replay(&mut self, record: &MetadataRecord) -> Result<(), ReplayError> {
        match record {
            MetadataRecord::BrokerRegistered(registration) => {
                self.image.cluster.register(registration)?;
                self.brokers.insert(registration.id);
                self.forget_offline(registration.id);
            }
            MetadataRecord::BrokerChanged(change) => {
                self.image.cluster.change(change)?;
                self.brokers.insert(change.broker);
            }
            MetadataRecord::BrokerUnregistered { broker, epoch } => {
                self.image.cluster.unregister(*broker, *epoch)?;
                self.brokers.insert(*broker);
                self.forget_offline(*broker);
            }
            MetadataRecord::TopicCreated { id, name } => {
                self.image.topics.create_topic(*id, name)?;
                self.created_topics.insert(*id);
            }
            MetadataRecord::TopicDeleted { id } => self.replay_topic_deleted(*id)?,
            MetadataRecord::PartitionCreated { topic, partition, registration } => {
                self.image.topics.create_partition(*topic, *partition, registration)?;
                self.partitions.insert((*topic, *partition));
            }
            MetadataRecord::PartitionChanged(change) => {
                let old = self.image.topics.partition(change.topic, change.partition).cloned();
                self.image.topics.change_partition(change)?;
                self.partitions.insert((change.topic, change.partition));
                if let (Some(old), Some(replicas)) = (old, &change.replicas) {
                    let gone: Vec<_> =
                        old.replicas.iter().copied().filter(|old| !replicas.contains(old)).collect();
                    self.forget_offline_replicas(&gone, change.topic, change.partition);
                }
            }
            MetadataRecord::ReplicasOffline(offline) => self.replay_replicas_offline(offline)?,
            MetadataRecord::ConfigChanged { resource, key, value } => {
                self.replay_config_changed(resource, key, value.as_deref())?;
            }
            MetadataRecord::FeatureLevelSet { name, level } => {
                self.image.features.set(name, *level);
                self.features.insert(name.clone());
            }
            MetadataRecord::ProducerIdsAllocated { broker, epoch, end } => {
                self.image.producer_ids.allocate(*broker, *epoch, *end)?;
                self.producer_ids = true;
            }
            MetadataRecord::QuorumFounded { id } => match self.image.quorum_id {
                Some(known) => return Err(ReplayError::QuorumId { found: *id, known }),
                None => self.image.quorum_id = Some(*id),
            },
        }
        Ok(())
    }

    fn replay_topic_deleted(&mut self, id: TopicId) -> Result<(), ReplayError> {
        let topic = self.image.topics.delete_topic(id)?;
        if self.image.configs.remove_topic(&topic.name) {
            self.configs.insert(ConfigResource::Topic(topic.name.clone()));
        }
        let everywhere = (id, PartitionId(i32::MIN))..=(id, PartitionId(i32::MAX));
        let touched: Vec<_> = self.partitions.range(everywhere).copied().collect();
        for partition in touched {
            self.partitions.remove(&partition);
        }
        self.created_topics.remove(&id);
        if !self.image.offline.is_empty() {
            for (partition, registration) in topic.partitions() {
                self.forget_offline_replicas(&registration.replicas, id, partition);
            }
        }
        if let Some(before) = self.base.topics.topic(id) {
            self.deleted_topics.insert(id, Arc::clone(before));
        }
        Ok(())
    }

    fn replay_replicas_offline(&mut self, fact: &ReplicasOffline) -> Result<(), ReplayError> {
        let ReplicasOffline { broker, epoch, ref replicas } = *fact;
        self.image.cluster.check_epoch(broker, epoch)?;
        for &(topic, partition) in replicas {
            let registration = self.image.topics.partition(topic, partition);
            if registration.is_none_or(|registration| !registration.replicas.contains(&broker)) {
                return Err(ReplayError::NoReplica { broker, topic, partition });
            }
        }
        for &(topic, partition) in replicas {
            self.image.offline.mark(broker, topic, partition);
            self.partitions.insert((topic, partition));
        }
        Ok(())
    }

    /// A broker that registers anew, or leaves, has said nothing about its replicas yet.
    fn forget_offline(&mut self, broker: BrokerId) {
        self.partitions.extend(self.image.offline.clear_broker(broker));
    }

    /// What was known of replicas goes with them.
    fn forget_offline_replicas(&mut self, brokers: &[BrokerId], topic: TopicId, partition: PartitionId) {
        for broker in brokers {
            self.image.offline.clear(*broker, topic, partition);
        }
    }

    fn replay_config_changed(
        &mut self,
        resource: &ConfigResource,
        key: &str,
        value: Option<&str>,
    ) -> Result<(), ReplayError> {
        if let ConfigResource::Topic(name) = resource
            && self.image.topics.topic_by_name(name).is_none()
        {
            return Err(ReplayError::UnknownTopicName { name: name.clone() });
        }
        self.image.configs.set(resource, key, value);
        self.configs.insert(resource.clone());
        Ok(())
    }

    /// The image that the step started from.
    #[must_use]
    pub fn base(&self) -> &MetadataImage {
        &self.base
    }

    /// The image as it is so far, with the provenance of the base.
    #[must_use]
    pub fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// Ends the step: the facts reached up to `provenance`.
    #[must_use]
    pub fn apply(mut self, provenance: MetadataProvenance) -> MetadataImage {
        self.image.provenance = provenance;
        self.image
    }

    /// The partitions that were created or changed and still exist, with their state before and after. One of which
    /// only a replica has gone offline, or no longer counts as that, is as it was.
    pub fn changed_partitions(&self) -> impl Iterator<Item = PartitionStep<'_>> {
        self.partitions.iter().filter_map(|&(topic, partition)| {
            let image = self.image.topics.topic(topic)?;
            let new = image.partition(partition)?;
            let old = self.base.topics.partition(topic, partition);
            Some(PartitionStep { topic: image, partition, old, new })
        })
    }

    /// Topics that the base does not have and the image has.
    pub fn created_topics(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.created_topics.iter().filter_map(|id| self.image.topics.topic(*id))
    }

    /// Topics that the base has and the image has not, as they were in the base.
    pub fn deleted_topics(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.deleted_topics.values()
    }

    /// Brokers whose registration was touched; look them up in [`image`](Self::image).
    pub fn changed_brokers(&self) -> impl Iterator<Item = BrokerId> {
        self.brokers.iter().copied()
    }

    /// Resources whose settings were touched.
    pub fn changed_configs(&self) -> impl Iterator<Item = &ConfigResource> {
        self.configs.iter()
    }

    /// Features whose level was touched.
    pub fn changed_features(&self) -> impl Iterator<Item = &str> {
        self.features.iter().map(String::as_str)
    }

    /// Whether producer ids were given away.
    #[must_use]
    pub fn producer_ids_changed(&self) -> bool {
        self.producer_ids
    }
}

/// A partition before and after a step.
#[derive(Clone, Copy, Debug)]
pub struct PartitionStep<'a> {
    /// The topic as it is after the step.
    pub topic: &'a Arc<TopicImage>,
    /// The partition.
    pub partition: PartitionId,
    /// Its state in the base; `None` if it is new.
    pub old: Option<&'a Arc<PartitionRegistration>>,
    /// Its state after the step.
    pub new: &'a Arc<PartitionRegistration>,
}

#[cfg(test)]
#[path = "delta_test.rs"]
mod tests;
