//! A broker's process: what it knows, and the replicas that it hosts.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use klamm_control::{HeartbeatRequest, MIN_INSYNC_REPLICAS, RecoveryVerdict, RegisterRequest};
use klamm_log::LogDir;
use klamm_metadata::{
    ConfigResource, Endpoint, IncarnationId, MetadataImage, PartitionRegistration, SecurityProtocol,
};
use klamm_replica::{
    BrokerState, BrokerStates, Durability, Event, LeaderRecovery, Registration, ReplicaConfig,
};
use klamm_types::{BrokerEpoch, BrokerId, Offset, PartitionId, Timestamp, TopicId};

use crate::chance::Chance;
use crate::disk::{Disk, topic_partition};
use crate::hosted::{Hosted, Request};
use crate::message::{Life, Post};
use crate::scenario::Scenario;

/// A broker: a disk, and perhaps a process.
pub(crate) struct Broker {
    pub(crate) id: BrokerId,
    pub(crate) life: Life,
    pub(crate) disk: Disk,
    /// The epoch in the mark of a clean shutdown, until the next start takes it.
    pub(crate) clean_mark: Option<BrokerEpoch>,
    pub(crate) process: Option<Process>,
    /// Until when the process stands still.
    pub(crate) paused_until_us: u64,
}

pub(crate) struct Process {
    dir: Arc<LogDir>,
    incarnation: IncarnationId,
    marker: Option<BrokerEpoch>,
    pub(crate) epoch: Option<BrokerEpoch>,
    /// Since when it has that.
    pub(crate) registered_us: u64,
    /// How many entries of the metadata log it has applied.
    pub(crate) applied: usize,
    pub(crate) lease_until: Timestamp,
    pub(crate) wants_shutdown: bool,
    pub(crate) disk_failed: bool,
    pub(crate) replicas: BTreeMap<PartitionId, Hosted>,
    /// How many replicas it has had.
    hosted: u32,
}

impl Broker {
    pub(crate) fn new(id: BrokerId, disk: Disk) -> Self {
        Self { id, life: Life(0), disk, clean_mark: None, process: None, paused_until_us: 0 }
    }

    /// Starts the process.
    pub(crate) fn start(&mut self) {
        assert!(self.process.is_none(), "broker {} is started while it runs", self.id);
        self.life.0 += 1;
        self.paused_until_us = 0;
        let mut incarnation = [0; 16];
        incarnation[..4].copy_from_slice(&self.id.0.to_be_bytes());
        incarnation[12..].copy_from_slice(&self.life.0.to_be_bytes());
        let (dir, _) = self.disk.open();
        self.process = Some(Process {
            dir,
            incarnation: IncarnationId(incarnation),
            marker: self.clean_mark.take(),
            epoch: None,
            registered_us: 0,
            applied: 0,
            lease_until: Timestamp(0),
            wants_shutdown: false,
            disk_failed: false,
            replicas: BTreeMap::new(),
            hosted: 0,
        });
    }

    /// The request with which the process asks to take part.
    pub(crate) fn register_request(&self) -> Option<RegisterRequest> {
        let process = self.process.as_ref()?;
        let endpoint = Endpoint {
            listener: "PLAINTEXT".to_owned(),
            host: format!("broker-{}", self.id),
            port: 9092,
            security_protocol: SecurityProtocol::Plaintext,
        };
        let verdict = match process.marker {
            Some(_) => RecoveryVerdict::Clean,
            None => RecoveryVerdict::CrashedDurable,
        };
        Some(RegisterRequest {
            broker: self.id,
            incarnation: process.incarnation,
            directory: self.disk.directory,
            endpoints: vec![endpoint],
            rack: None,
            features: klamm_control::ControlConfig::default().features,
            cordoned: false,
            marker_epoch: process.marker,
            verdict,
        })
    }

    /// The controller does not know the registration under which a heartbeat was sent: the process asks for another, and
    /// its replicas begin anew under that.
    pub(crate) fn lose_registration(&mut self, sent_us: u64) {
        if let Some(process) = &mut self.process
            && process.epoch.is_some()
            && sent_us >= process.registered_us
        {
            process.epoch = None;
            process.applied = 0;
            process.replicas.clear();
        }
    }

    pub(crate) fn heartbeat_request(&self) -> Option<HeartbeatRequest> {
        let process = self.process.as_ref()?;
        Some(HeartbeatRequest {
            broker: self.id,
            epoch: process.epoch?,
            applied: Offset(process.applied as i64 - 1),
            want_fence: process.disk_failed,
            want_shutdown: process.wants_shutdown,
        })
    }

    /// Applies the metadata up to an entry count.
    pub(crate) fn apply(
        &mut self,
        now: Timestamp,
        (committed, image): (usize, &MetadataImage),
        scenario: &Scenario,
        out: &mut Vec<Request>,
    ) {
        let Some(process) = &mut self.process else { return };
        let Some(epoch) = process.epoch else { return };
        if committed <= process.applied || process.disk_failed {
            return;
        }
        process.applied = committed;
        let who = (self.id, epoch, self.life);
        for topic in image.topics.topics() {
            for (partition, registration) in topic.partitions() {
                if registration.replicas.contains(&self.id) {
                    let disk = &self.disk;
                    let config = replica_config(image, scenario);
                    let Some(hosted) = process.host(partition, (disk, topic.id, who, config), now) else {
                        out.push(Request::DiskFailed);
                        continue;
                    };
                    let known = (registration_of(registration), brokers_of(image, registration));
                    hosted.on_image(now, config, known, out);
                    hosted.tell_waiting(now, out);
                } else if let Some(mut hosted) = process.replicas.remove(&partition) {
                    let brokers = brokers_of(image, registration);
                    let registration = registration_of(registration);
                    hosted.feed(now, Event::RegistrationChanged { config: None, registration, brokers }, out);
                    // The replica was moved away: its records go, also for a later life of it.
                    if hosted.log.truncate_fully_and_start_at(Offset::ZERO, now).is_err() {
                        out.push(Request::DiskFailed);
                    }
                    self.disk.high_watermarks.remove(&partition);
                }
            }
        }
    }

    /// Writes down how far a partition is flushed and committed, as the log manager does from time to time.
    pub(crate) fn checkpoint(&mut self, partition: PartitionId, out: &mut Vec<Request>) {
        let Some(process) = &self.process else { return };
        let Some(hosted) = process.replicas.get(&partition) else { return };
        let stored = hosted
            .log
            .checkpoint()
            .and_then(|point| process.dir.store_recovery_points([(topic_partition(partition), Some(point))]));
        match stored {
            Ok(()) => {
                self.disk.high_watermarks.insert(partition, hosted.log.high_watermark());
            }
            Err(_) => out.push(Request::DiskFailed),
        }
    }

    /// Ends the process after it was told that it may go: everything is on disk, and the mark says so.
    pub(crate) fn shut_down(&mut self, chance: &mut Chance, out: &mut Vec<Request>) {
        let partitions: Vec<_> =
            self.process.iter().flat_map(|process| process.replicas.keys().copied()).collect();
        for partition in partitions {
            self.checkpoint(partition, out);
        }
        let Some(process) = self.process.take() else { return };
        let flushed = process.replicas.values().all(|hosted| hosted.log.flush().is_ok());
        if flushed && !process.disk_failed {
            self.clean_mark = process.epoch;
        }
        drop(process);
        self.disk.kill_process(chance);
    }
}

impl Process {
    /// The replica of a partition; `None` if its log cannot be opened, which only a failing disk explains.
    fn host(
        &mut self,
        partition: PartitionId,
        (disk, topic, who, config): (&Disk, TopicId, (BrokerId, BrokerEpoch, Life), ReplicaConfig),
        now: Timestamp,
    ) -> Option<&mut Hosted> {
        match self.replicas.entry(partition) {
            Entry::Occupied(hosted) => Some(hosted.into_mut()),
            Entry::Vacant(place) => {
                let opened = disk.open_log(&self.dir, topic, partition, now);
                assert!(opened.is_ok() || disk.is_failing(), "a log does not open: {opened:?}");
                self.hosted += 1;
                let (broker, epoch, life) = who;
                let who = (broker, epoch, Post { life, number: self.hosted });
                Some(place.insert(Hosted::new(who, partition, opened.ok()?, config)))
            }
        }
    }
}

/// `min.insync.replicas` of the topic, if it was changed.
pub(crate) fn topic_minimum(image: &MetadataImage) -> Option<usize> {
    let topic = image.topics.topics().next()?;
    image.configs.resource(&ConfigResource::Topic(topic.name.clone()))?.get(MIN_INSYNC_REPLICAS)?.parse().ok()
}

fn replica_config(image: &MetadataImage, scenario: &Scenario) -> ReplicaConfig {
    let configured = usize::from(scenario.min_insync_replicas);
    ReplicaConfig {
        durability: Durability::Flushed,
        min_in_sync_replicas: topic_minimum(image).unwrap_or(configured),
        replica_lag_time_max_ms: scenario.replica_lag_time_max_ms,
    }
}

fn brokers_of(image: &MetadataImage, registration: &PartitionRegistration) -> BrokerStates {
    let known = registration.replicas.iter().filter_map(|id| image.cluster.broker(*id));
    let state = |broker: &Arc<klamm_metadata::BrokerRegistration>| BrokerState {
        epoch: broker.epoch,
        fenced: broker.fenced,
        shutting_down: broker.shutting_down,
    };
    known.map(|broker| (broker.id, state(broker))).collect()
}

fn registration_of(registration: &PartitionRegistration) -> Registration {
    Registration {
        replicas: registration.replicas.clone(),
        leader: registration.leader,
        in_sync_replicas: registration.isr.iter().copied().collect(),
        leader_epoch: registration.leader_epoch,
        partition_epoch: registration.partition_epoch,
        recovery: match registration.recovery {
            klamm_metadata::LeaderRecovery::Recovered => LeaderRecovery::Recovered,
            klamm_metadata::LeaderRecovery::Recovering => LeaderRecovery::Recovering,
        },
        last_unclean_epoch: registration.last_unclean_epoch,
    }
}
