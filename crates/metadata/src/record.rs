//! The facts of the metadata log.

use klamm_types::{
    BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, PartitionId, ProducerId, QuorumId, TopicId, TopicName,
};

use crate::{BrokerRegistration, LeaderRecovery, PartitionRegistration};

/// One fact. Replaying facts in the order of the log is the only way in which an image changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MetadataRecord {
    /// A broker registered; it replaces an earlier registration of that id.
    BrokerRegistered(BrokerRegistration),
    /// A registered broker changed its standing.
    BrokerChanged(BrokerChanged),
    /// A broker left for good.
    BrokerUnregistered {
        /// The broker.
        broker: BrokerId,
        /// The registration that ends.
        epoch: BrokerEpoch,
    },
    /// A topic exists, without partitions yet.
    TopicCreated {
        /// Its identity.
        id: TopicId,
        /// Its name, which no other topic has at this time.
        name: TopicName,
    },
    /// A topic is gone, with its partitions and configuration.
    TopicDeleted {
        /// Its identity.
        id: TopicId,
    },
    /// A partition exists.
    PartitionCreated {
        /// The topic.
        topic: TopicId,
        /// The number that follows the topic's last partition.
        partition: PartitionId,
        /// Its state.
        registration: PartitionRegistration,
    },
    /// A partition changed.
    PartitionChanged(PartitionChanged),
    /// A setting has a new value, or none of its own any more.
    ConfigChanged {
        /// Whose setting.
        resource: ConfigResource,
        /// Its name.
        key: String,
        /// The value; `None` removes it.
        value: Option<String>,
    },
    /// The cluster uses a feature at this level; 0 is off.
    FeatureLevelSet {
        /// For example `metadata.version`.
        name: String,
        /// The level.
        level: u16,
    },
    /// All producer ids below `end` have been given away (KIP-730).
    ProducerIdsAllocated {
        /// The broker that got the newest block.
        broker: BrokerId,
        /// Its registration.
        epoch: BrokerEpoch,
        /// Exclusive end.
        end: ProducerId,
    },
    /// A broker cannot serve some of its replicas; from `metadata.version` 4 on.
    ReplicasOffline(ReplicasOffline),
    /// The quorum has an id, once and for all.
    QuorumFounded {
        /// The id.
        id: QuorumId,
    },
}

/// What changed about a registered broker; `None` means "as before".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BrokerChanged {
    /// The broker.
    pub broker: BrokerId,
    /// The registration that changes.
    pub epoch: BrokerEpoch,
    /// Fenced or not.
    pub fenced: Option<bool>,
    /// On its way out or not.
    pub shutting_down: Option<bool>,
    /// Closed for new replicas or not.
    pub cordoned: Option<bool>,
}

impl BrokerChanged {
    /// A change of this registration that changes nothing yet.
    #[must_use]
    pub fn of(registration: &BrokerRegistration) -> Self {
        Self {
            broker: registration.id,
            epoch: registration.epoch,
            fenced: None,
            shutting_down: None,
            cordoned: None,
        }
    }
}

/// Replicas that one incarnation of a broker cannot serve, as their log directory has failed or is missing. They stay
/// so until the broker registers anew, or the partition no longer has a replica there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicasOffline {
    /// The broker.
    pub broker: BrokerId,
    /// Its registration.
    pub epoch: BrokerEpoch,
    /// Partitions that it has a replica of.
    pub replicas: Vec<(TopicId, PartitionId)>,
}

impl ReplicasOffline {
    /// The most replicas that one fact names, so that a thousand facts are still a batch that can be read.
    pub const REPLICAS_MAX: usize = 500;
}

/// What changed about a partition; `None` means "as before". The epochs are those after the change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionChanged {
    /// The topic.
    pub topic: TopicId,
    /// The partition of it.
    pub partition: PartitionId,
    /// See [`PartitionRegistration::replicas`].
    pub replicas: Option<Vec<BrokerId>>,
    /// See [`PartitionRegistration::isr`].
    pub isr: Option<Vec<BrokerId>>,
    /// See [`PartitionRegistration::elr`].
    pub elr: Option<Vec<BrokerId>>,
    /// See [`PartitionRegistration::last_known_elr`].
    pub last_known_elr: Option<Vec<BrokerId>>,
    /// See [`PartitionRegistration::adding`].
    pub adding: Option<Vec<BrokerId>>,
    /// See [`PartitionRegistration::removing`].
    pub removing: Option<Vec<BrokerId>>,
    /// The new leader; `Some(None)` if nobody leads any more.
    pub leader: Option<Option<BrokerId>>,
    /// The leader epoch from now on: as before, or one more.
    pub leader_epoch: LeaderEpoch,
    /// The partition epoch from now on: one more than before.
    pub partition_epoch: PartitionEpoch,
    /// See [`PartitionRegistration::recovery`].
    pub recovery: Option<LeaderRecovery>,
    /// See [`PartitionRegistration::last_unclean_epoch`]; once there is one, there always is.
    pub last_unclean_epoch: Option<LeaderEpoch>,
}

impl PartitionChanged {
    /// What makes `new` of `old`: only fields that differ, and the epochs of `new`.
    #[must_use]
    pub fn between(
        topic: TopicId,
        partition: PartitionId,
        old: &PartitionRegistration,
        new: &PartitionRegistration,
    ) -> Self {
        let changed = |old: &Vec<BrokerId>, new: &Vec<BrokerId>| (old != new).then(|| new.clone());
        Self {
            topic,
            partition,
            replicas: changed(&old.replicas, &new.replicas),
            isr: changed(&old.isr, &new.isr),
            elr: changed(&old.elr, &new.elr),
            last_known_elr: changed(&old.last_known_elr, &new.last_known_elr),
            adding: changed(&old.adding, &new.adding),
            removing: changed(&old.removing, &new.removing),
            leader: (old.leader != new.leader).then_some(new.leader),
            leader_epoch: new.leader_epoch,
            partition_epoch: new.partition_epoch,
            recovery: (old.recovery != new.recovery).then_some(new.recovery),
            last_unclean_epoch: new
                .last_unclean_epoch
                .filter(|_| old.last_unclean_epoch != new.last_unclean_epoch),
        }
    }

    /// The registration that follows `old`; the inverse of [`between`](Self::between).
    #[must_use]
    pub fn merge_into(&self, old: &PartitionRegistration) -> PartitionRegistration {
        let merged = |new: &Option<Vec<BrokerId>>, old: &Vec<BrokerId>| new.as_ref().unwrap_or(old).clone();
        PartitionRegistration {
            replicas: merged(&self.replicas, &old.replicas),
            isr: merged(&self.isr, &old.isr),
            elr: merged(&self.elr, &old.elr),
            last_known_elr: merged(&self.last_known_elr, &old.last_known_elr),
            adding: merged(&self.adding, &old.adding),
            removing: merged(&self.removing, &old.removing),
            leader: self.leader.unwrap_or(old.leader),
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            recovery: self.recovery.unwrap_or(old.recovery),
            last_unclean_epoch: self.last_unclean_epoch.or(old.last_unclean_epoch),
        }
    }
}

/// Whose settings.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ConfigResource {
    /// A topic; its settings go when it is deleted.
    Topic(TopicName),
    /// One broker.
    Broker(BrokerId),
    /// The default of all brokers.
    BrokerDefault,
    /// A consumer, share or streams group; it need not exist (KIP-848).
    Group(String),
    /// A subscription to client metrics (KIP-714).
    ClientMetrics(String),
}
