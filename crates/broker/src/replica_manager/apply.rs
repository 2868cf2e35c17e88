//! What a step of the metadata does to the replicas of this broker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use klamm_log::{Log, LogConfig, ManagerError};
use klamm_metadata::{
    ConfigResource, DeletedReplica, LeaderRecovery, MetadataDelta, MetadataImage, PartitionRegistration,
    ReplicaChange,
};
use klamm_replica::{BrokerState, BrokerStates, LeaderRecovery as Recovery, Registration};
use klamm_types::{BrokerEpoch, TopicPartition};

use super::{Hosted, Key, ReplicaManager};
use crate::partition::{PartitionHandle, Setup};

impl ReplicaManager {
    /// Takes note of a newer image: opens and makes logs, gives replicas their roles and settings, deletes what is no
    /// longer this broker's. Images come in order. The work is done on a thread that may wait for the disk.
    ///
    /// Images from before this incarnation's registration change nothing: what they say of the partitions here may be
    /// long past. The first one from after it is taken as a whole, and logs that it does not know are deleted.
    pub async fn apply(self: &Arc<Self>, delta: Arc<MetadataDelta>, image: Arc<MetadataImage>) {
        let manager = Arc::clone(self);
        in_background(move || manager.apply_blocking(&delta, image)).await;
    }

    /// The broker is registered as the incarnation `epoch`. Replicas that were made for an earlier one start anew.
    pub async fn begin_incarnation(self: &Arc<Self>, epoch: BrokerEpoch) {
        let manager = Arc::clone(self);
        in_background(move || manager.begin_incarnation_blocking(epoch)).await;
    }

    fn begin_incarnation_blocking(&self, epoch: BrokerEpoch) {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        self.broker_epoch.store(epoch.0, Ordering::Release);
        self.dirs.remember();
        for partition in self.partitions() {
            partition.renew(epoch);
        }
        self.forget_reports();
        let image = self.image.load_full();
        self.has_settings.store(false, Ordering::Release);
        self.catch_up(&image);
    }

    fn apply_blocking(&self, delta: &MetadataDelta, image: Arc<MetadataImage>) {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        self.image.store(Arc::clone(&image));
        if self.has_settings.load(Ordering::Acquire) {
            self.step(delta, &image, false);
            if delta.changed_features().next().is_some() {
                self.look_for_offline();
            }
        } else {
            self.catch_up(&image);
        }
    }

    /// Takes `image` as a whole, if it is from after the registration of this incarnation.
    fn catch_up(&self, image: &MetadataImage) {
        let epoch = self.broker_epoch();
        if epoch == BrokerEpoch::NONE || image.provenance.last_offset.0 < epoch.0 {
            return;
        }
        self.give_up_unassigned(image);
        self.step(&MetadataDelta::between(MetadataImage::empty(), image.clone()), image, true);
        self.set_strays_aside(image);
        self.has_settings.store(true, Ordering::Release);
        self.look_for_offline();
    }

    fn step(&self, delta: &MetadataDelta, image: &MetadataImage, is_first: bool) {
        let changes = delta.local_changes(self.config.node_id);
        for deleted in &changes.deletes {
            self.delete(deleted, image);
        }
        let defaults = self.topic_defaults(image);
        let mut touched: BTreeSet<Key> = self.touched_by_settings(delta, image, &defaults);
        for change in changes.leaders.iter().chain(&changes.followers) {
            // Where a directory is missing, a replica that may have its log there must not start with an empty one.
            let had_replica = |old: &Arc<PartitionRegistration>| old.replicas.contains(&self.config.node_id);
            let may_have_log = is_first || change.old.as_ref().is_some_and(had_replica);
            let may_create = !may_have_log || self.dirs.is_complete();
            let config = Self::log_config(image, &change.name, &defaults);
            self.host(change, config, may_create);
            touched.insert((change.topic, change.partition));
        }
        touched.extend(self.touched_by_brokers(delta, image));
        for key in touched {
            self.tell(key, image);
        }
    }

    /// Ends the replicas that the image does not give to this broker; their logs are set aside as strays.
    fn give_up_unassigned(&self, image: &MetadataImage) {
        let node = self.config.node_id;
        let is_mine = |key: &Key| {
            let partition = image.topics.partition(key.0, key.1);
            partition.is_some_and(|partition| partition.replicas.contains(&node))
        };
        let mut hosted = self.hosted.write().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<_> = hosted.keys().filter(|key| !is_mine(key)).copied().collect();
        let gone: Vec<_> = gone.into_iter().filter_map(|key| Some((key, hosted.remove(&key)?))).collect();
        drop(hosted);
        for (key, replica) in gone {
            if let Hosted::Online(partition) = replica {
                partition.close(image.topics.partition(key.0, key.1).map(|new| registration(new)));
            }
        }
    }

    /// Gives a replica up, and deletes its log.
    fn delete(&self, deleted: &DeletedReplica, image: &MetadataImage) {
        let key = (deleted.topic, deleted.partition);
        let hosted = self.hosted.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
        if let Some(Hosted::Online(partition)) = hosted {
            partition.close(image.topics.partition(key.0, key.1).map(|new| registration(new)));
        }
        let partition = TopicPartition::new(deleted.name.clone(), deleted.partition);
        let is_its = |log: &Arc<Log>| log.topic_id().is_none_or(|id| id == deleted.topic);
        if self.logs().get(&partition).filter(is_its).is_some() {
            self.delete_log(&partition);
        }
    }

    fn delete_log(&self, partition: &TopicPartition) {
        match self.logs().delete(partition, self.around.clock.wall()) {
            Ok(()) => tracing::info!(%partition, "deleted the log"),
            Err(error) => tracing::error!(%partition, %error, "cannot delete the log"),
        }
    }

    /// Sets aside the logs that the image gives to nobody here: they were deleted or moved while the broker was away, or
    /// the metadata was lost and they are all that is left.
    fn set_strays_aside(&self, image: &MetadataImage) {
        for log in self.logs().logs() {
            let name = log.partition();
            let topic = image.topics.topic_by_name(&name.topic);
            let key = topic.map(|topic| (topic.id, name.partition));
            let hosted = self.hosted.read().unwrap_or_else(PoisonError::into_inner);
            let is_stray = key.is_none_or(|key| !hosted.contains_key(&key));
            drop(hosted);
            if is_stray {
                match self.logs().set_aside(name) {
                    Ok(place) => tracing::warn!(
                        partition = %name,
                        kept = %place.display(),
                        "a log belongs to no replica of this broker: remove it if the partition was deleted or moved"
                    ),
                    Err(error) => tracing::error!(partition = %name, %error, "cannot set a stray log aside"),
                }
            }
        }
    }

    /// Has a replica for `change`, if there is none yet and it is not given up.
    fn host(&self, change: &ReplicaChange, config: Arc<LogConfig>, may_create: bool) {
        let key = (change.topic, change.partition);
        let hosted = self.hosted.read().unwrap_or_else(PoisonError::into_inner);
        let is_settled =
            matches!(hosted.get(&key), Some(Hosted::Online(_) | Hosted::Offline { is_reported: true }));
        drop(hosted);
        if is_settled {
            return;
        }
        let replica = match self.open(change, config, may_create) {
            Ok(partition) => Hosted::Online(partition),
            Err(reason) => {
                let partition = TopicPartition::new(change.name.clone(), change.partition);
                tracing::error!(%partition, %reason, "the replica is offline");
                Hosted::Offline { is_reported: false }
            }
        };
        let is_offline = matches!(replica, Hosted::Offline { .. });
        self.hosted.write().unwrap_or_else(PoisonError::into_inner).insert(key, replica);
        if is_offline {
            self.look_for_offline();
        }
    }

    fn open(
        &self,
        change: &ReplicaChange,
        config: Arc<LogConfig>,
        may_create: bool,
    ) -> Result<PartitionHandle, String> {
        let partition = TopicPartition::new(change.name.clone(), change.partition);
        let now = self.around.clock.wall();
        let log = self.existing_log(change, &partition);
        let log = match log {
            Some(log) => log,
            None if !may_create => {
                return Err("its log may be in a directory that is not in service".to_owned());
            }
            None => {
                let made = self.logs().create(&partition, change.topic, Arc::clone(&config), now);
                made.map_err(|error: ManagerError| error.to_string())?
            }
        };
        log.set_config(Arc::clone(&config));
        let flush_queue = self.logs().flush_queue(&log).ok_or("its directory is out of service")?.clone();
        let setup = Setup {
            around: self.around.clone(),
            wakeups: self.wakeups.clone(),
            broker_epoch: self.broker_epoch(),
            config: self.replica_config(&config),
        };
        PartitionHandle::open(change.topic, log, flush_queue, setup).map_err(|error| error.to_string())
    }

    /// The log that is there already, if it is this topic's. Another topic's of the same name goes, and so does one
    /// that does not say whose it is: it was never flushed, so that nothing in it was acknowledged.
    fn existing_log(&self, change: &ReplicaChange, partition: &TopicPartition) -> Option<Arc<Log>> {
        let log = self.logs().get(partition)?;
        if log.topic_id() == Some(change.topic) {
            return Some(log);
        }
        tracing::warn!(%partition, found = ?log.topic_id(), expected = %change.topic, "a log of another topic goes");
        self.delete_log(partition);
        None
    }

    /// Puts changed settings in force; the replicas whose settings those are.
    fn touched_by_settings(
        &self,
        delta: &MetadataDelta,
        image: &MetadataImage,
        defaults: &LogConfig,
    ) -> BTreeSet<Key> {
        let mut all = false;
        let mut names = BTreeSet::new();
        for resource in delta.changed_configs() {
            match resource {
                ConfigResource::Topic(name) => _ = names.insert(name.clone()),
                ConfigResource::BrokerDefault => all = true,
                ConfigResource::Broker(broker) => all |= *broker == self.config.node_id,
                ConfigResource::Group(_) | ConfigResource::ClientMetrics(_) => {}
            }
        }
        let mut touched = BTreeSet::new();
        if !all && names.is_empty() {
            return touched;
        }
        for partition in self.partitions() {
            let name = &partition.partition().topic;
            if all || names.contains(name) {
                partition.log().set_config(Self::log_config(image, name, defaults));
                touched.insert((partition.topic_id(), partition.partition().partition));
            }
        }
        touched
    }

    /// The replicas here of partitions that have replicas on brokers that changed.
    fn touched_by_brokers(&self, delta: &MetadataDelta, image: &MetadataImage) -> BTreeSet<Key> {
        let changed: BTreeSet<_> = delta.changed_brokers().collect();
        if changed.is_empty() {
            return BTreeSet::new();
        }
        let hosted = self.hosted.read().unwrap_or_else(PoisonError::into_inner);
        let is_touched = |key: &&Key| {
            let partition = image.topics.partition(key.0, key.1);
            partition.is_some_and(|partition| partition.replicas.iter().any(|r| changed.contains(r)))
        };
        hosted.keys().filter(is_touched).copied().collect()
    }

    /// Tells a replica what the image says of it.
    fn tell(&self, key: Key, image: &MetadataImage) {
        let (Ok(partition), Some(new)) = (self.partition(key.0, key.1), image.topics.partition(key.0, key.1))
        else {
            return;
        };
        let config = self.replica_config(&partition.log().config());
        partition.on_image(config, registration(new), broker_states(key, new, image));
    }
}

/// Runs `work` on a thread that may wait for the disk. A panic goes on in the caller.
async fn in_background(work: impl FnOnce() + Send + 'static) {
    if let Err(failure) = tokio::task::spawn_blocking(work).await {
        match failure.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down: nothing is left to tell.
            Err(error) => tracing::warn!(%error, "the metadata was not applied"),
        }
    }
}

fn registration(from: &PartitionRegistration) -> Registration {
    Registration {
        replicas: from.replicas.clone(),
        leader: from.leader,
        in_sync_replicas: from.isr.iter().copied().collect(),
        leader_epoch: from.leader_epoch,
        partition_epoch: from.partition_epoch,
        recovery: match from.recovery {
            LeaderRecovery::Recovered => Recovery::Recovered,
            LeaderRecovery::Recovering => Recovery::Recovering,
        },
        last_unclean_epoch: from.last_unclean_epoch,
    }
}

/// A replica that is known to be offline counts as one on a fenced broker.
fn broker_states(key: Key, partition: &PartitionRegistration, image: &MetadataImage) -> BrokerStates {
    let registered = partition.replicas.iter().filter_map(|&id| image.cluster.broker(id));
    let state = |broker: &Arc<klamm_metadata::BrokerRegistration>| {
        let fenced = broker.fenced || image.offline.contains(broker.id, key.0, key.1);
        let state = BrokerState { epoch: broker.epoch, fenced, shutting_down: broker.shutting_down };
        (broker.id, state)
    };
    registered.map(state).collect::<BTreeMap<_, _>>()
}
