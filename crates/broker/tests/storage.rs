//! One broker and its disk: what survives, what is given up, what is refused.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod cluster;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cluster::{Cluster, TOPIC, ZERO, batch, options, read_request, setting, topic, until};
use klamm_broker::partition::{Acks, AppendError, AppendFailure, NotServing, ReadFailure};
use klamm_broker::{BrokerConfig, LogDirs, PartitionUnavailable, RecoveryVerdict, ReplicaManager};
use klamm_log::fs::{FaultKind, FaultRule, MemoryFs, Operation};
use klamm_metadata::{MetadataDelta, MetadataImage, MetadataRecord, PartitionRegistration};
use klamm_types::{BrokerId, Offset, PartitionId, TopicId, TopicName};

fn open_dirs(disk: &MemoryFs, dirs: &[&str]) -> LogDirs {
    let dirs = dirs.iter().map(Into::into).collect();
    let config = BrokerConfig::new(BrokerId(1), "test-cluster", dirs);
    let now = klamm_broker::Clock::start().wall();
    LogDirs::open(Arc::new(disk.clone()), &config, now).expect("the directories open")
}

fn log_failed(error: &AppendFailure) -> bool {
    matches!(error, AppendFailure::Replica(AppendError::LogFailed { .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_survives_a_power_cut() {
    let mut cluster = Cluster::of(&[1]).await;
    cluster.create_topic(&[1], &[]).await;
    let mut pending = Vec::new();
    for i in 0..50 {
        pending.push(cluster.partition(1).append(batch(&[&format!("v{i}")]), &options(Acks::All)));
    }
    for (i, pending) in (0..).zip(pending) {
        assert_eq!(pending.done().await.unwrap().base_offset, Offset(i));
    }
    cluster.crash(1).await;
    cluster.start(1).await;
    cluster.elect(1, &[1]).await;
    let expected: Vec<_> = (0..50).map(|i| format!("v{i}")).collect();
    assert_eq!(cluster.read_all(1), expected[..]);
    cluster.append(1, Acks::All, &["after"]).await.unwrap();
    assert_eq!(cluster.read_all(1).len(), 51);
}

#[tokio::test(flavor = "multi_thread")]
async fn write_caching_waits_for_no_disk() {
    let cluster = Cluster::of(&[1]).await;
    cluster.create_topic(&[1], &[("write.caching", "true")]).await;
    let syncs = cluster.disks[&1].calls(Operation::SyncData);
    cluster.append(1, Acks::All, &["a"]).await.unwrap();
    assert_eq!(cluster.read_all(1), ["a"]);
    assert_eq!(cluster.disks[&1].calls(Operation::SyncData), syncs);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_a_session_serves_nobody() {
    let cluster = Cluster::of(&[1]).await;
    cluster.create_topic(&[1], &[]).await;
    cluster.append(1, Acks::All, &["a"]).await.unwrap();
    let node = &cluster.nodes[&1];
    node.lease.end();
    node.lease.extend(node.clock.now());
    let error = cluster.append(1, Acks::Leader, &["b"]).await.unwrap_err();
    assert!(matches!(error, AppendFailure::Replica(AppendError::LeaseExpired)), "{error}");
    let error = cluster.partition(1).read(&read_request(Offset::ZERO)).unwrap_err();
    assert!(matches!(error, ReadFailure::NotServing(NotServing::LeaseExpired)), "{error}");
    node.lease.extend(node.clock.after(Duration::from_secs(60)));
    cluster.append(1, Acks::Leader, &["b"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_takes_its_partitions_along_and_no_others() {
    let other_id = TopicId([8; 16]);
    let cluster = Cluster::with_dirs(&[1], &["/one", "/two"]).await;
    cluster.create_topic(&[1], &[]).await;
    let other = TopicName::new("others").unwrap();
    let registration = PartitionRegistration::new(vec![BrokerId(1)], vec![BrokerId(1)]);
    let created = MetadataRecord::PartitionCreated { topic: other_id, partition: ZERO, registration };
    cluster.publish(vec![MetadataRecord::TopicCreated { id: other_id, name: other }, created]).await;
    let manager = &cluster.nodes[&1].manager;
    let (first, second) = (cluster.partition(1), manager.partition(other_id, ZERO).unwrap());
    let (lost, kept) = (first.describe().log_dir, second.describe().log_dir);
    assert_ne!(lost, kept, "partitions are spread over the directories");
    let fault = FaultRule::always(Operation::SyncData, FaultKind::Io);
    cluster.disks[&1].add_fault(fault.on_paths_with(lost.to_str().unwrap()));
    let error = cluster.append(1, Acks::All, &["a"]).await.unwrap_err();
    assert!(log_failed(&error), "{error}");
    assert!(!error.is_definite(), "it was written, and may have come to the disk");
    let error = cluster.append(1, Acks::Leader, &["b"]).await.unwrap_err();
    assert!(log_failed(&error) && error.is_definite(), "{error}");
    second.append(batch(&["x"]), &options(Acks::All)).done().await.unwrap();
    assert_eq!(cluster::read_from(&second, Offset::ZERO), ["x"]);
    let statuses = manager.log_dirs().statuses();
    let failed: Vec<_> = statuses.iter().filter(|dir| dir.failure.is_some()).map(|dir| &dir.path).collect();
    assert_eq!(failed, [&lost]);
    assert_eq!(manager.gauges().offline, 1);
}

/// Somebody who writes to one partition, wherever it is led, and keeps what was acknowledged.
#[derive(Clone)]
struct Writer {
    managers: BTreeMap<i32, Arc<ReplicaManager>>,
    partition: PartitionId,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
}

impl Writer {
    async fn run(self) -> Vec<String> {
        let mut kept = Vec::new();
        for number in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let value = format!("{}-{number}", self.partition);
            // Broker 2 hears of everything.
            let leader = self.managers[&2].partition(TOPIC, self.partition).unwrap().role().leader;
            let leader =
                leader.and_then(|leader| self.managers[&leader.0].partition(TOPIC, self.partition).ok());
            let Some(leader) = leader else { continue };
            match leader.append(batch(&[&value]), &options(Acks::All)).done().await {
                Ok(_) => {
                    kept.push(value);
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => tokio::task::yield_now().await,
            }
        }
        kept
    }

    /// Waits until more of what it writes is acknowledged.
    async fn until_served(&self) {
        let before = self.acknowledged.load(Ordering::Relaxed);
        let is_served = || (self.acknowledged.load(Ordering::Relaxed) > before + 20).then_some(());
        until("the partition is written to", is_served).await;
    }
}

/// Six partitions on brokers 1 and 2: four of them are led by 1, two by 2.
async fn create_six(cluster: &Cluster) -> Vec<PartitionId> {
    cluster.create_topic(&[1, 2], &[]).await;
    let all: Vec<_> = (0..6).map(PartitionId).collect();
    let created = all.iter().skip(1).map(|partition| {
        let order: &[i32] = if partition.0 < 4 { &[1, 2] } else { &[2, 1] };
        let replicas: Vec<_> = order.iter().copied().map(BrokerId).collect();
        let registration = PartitionRegistration::new(replicas.clone(), replicas);
        MetadataRecord::PartitionCreated { topic: TOPIC, partition: *partition, registration }
    });
    cluster.publish(created.collect()).await;
    all
}

fn state_of(cluster: &Cluster, partitions: &[PartitionId]) -> Vec<PartitionRegistration> {
    let image = cluster.image();
    partitions.iter().map(|id| image.topics.partition(TOPIC, *id).unwrap().as_ref().clone()).collect()
}

/// Every replica has what was acknowledged, in order.
fn assert_kept(cluster: &Cluster, partition: PartitionId, acknowledged: &[String]) {
    for node in cluster.nodes.values() {
        let partition = node.manager.partition(TOPIC, partition).unwrap();
        let found = cluster::read_from(&partition, Offset::ZERO);
        let mut found = found.iter();
        let missing = acknowledged.iter().find(|value| !found.any(|other| other == *value));
        assert_eq!(missing, None, "{partition:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_loses_a_directory_leads_and_follows_on_in_the_other() {
    let mut cluster = Cluster::with_dirs(&[1, 2], &["/one", "/two"]).await;
    let all = create_six(&cluster).await;
    let managers: BTreeMap<_, _> =
        cluster.nodes.iter().map(|(id, node)| (*id, Arc::clone(&node.manager))).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = all
        .iter()
        .map(|partition| Writer {
            managers: managers.clone(),
            partition: *partition,
            stop: Arc::clone(&stop),
            acknowledged: Arc::default(),
        })
        .collect();
    let writing: Vec<_> = writers.iter().map(|writer| tokio::spawn(writer.clone().run())).collect();
    for writer in &writers {
        writer.until_served().await;
    }
    let in_two = |partition: &&PartitionId| {
        let partition = managers[&1].partition(TOPIC, **partition).unwrap();
        partition.describe().log_dir.ends_with("two")
    };
    let (lost, kept): (Vec<PartitionId>, Vec<PartitionId>) = all.iter().partition(in_two);
    assert_eq!((lost.len(), kept.len()), (3, 3));
    let before = state_of(&cluster, &kept);
    cluster.disks[&1].add_fault(FaultRule::always(Operation::SyncData, FaultKind::Io).on_paths_with("/two"));
    until("the directory has failed", || {
        managers[&1].log_dirs().statuses().iter().any(|dir| dir.failure.is_some()).then_some(())
    })
    .await;
    cluster.lose(1, &lost).await;
    for writer in &writers {
        writer.until_served().await;
    }
    assert_eq!(state_of(&cluster, &kept), before, "in its other directory nothing is different");
    for partition in state_of(&cluster, &lost) {
        assert_eq!((partition.leader, &partition.isr[..]), (Some(BrokerId(2)), &[BrokerId(2)][..]));
    }
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for writing in writing {
        acknowledged.push(writing.await.unwrap());
    }
    drop((writers, managers));
    // A start of the process with the directory as it should be.
    cluster.crash(1).await;
    cluster.take_over(1, &kept).await;
    cluster.start(1).await;
    assert!(cluster.image().offline.is_empty(), "of the new incarnation nothing is known");
    until("everything is in sync again", || {
        state_of(&cluster, &all).iter().all(|partition| partition.isr.len() == 2).then_some(())
    })
    .await;
    for (partition, acknowledged) in all.iter().zip(acknowledged) {
        assert_kept(&cluster, *partition, &acknowledged);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_known_to_have_lost_its_replica_is_not_proposed() {
    let cluster = Cluster::of(&[1, 2]).await;
    cluster.create_topic(&[2, 1], &[]).await;
    cluster.append(2, Acks::All, &["a"]).await.unwrap();
    cluster.until_isr(&[1, 2]).await;
    // It fetches on, and only the metadata says that it cannot be counted on.
    cluster.change(|partition| partition.isr = vec![BrokerId(2)]).await;
    cluster.until_isr(&[1, 2]).await;
    let epoch = cluster.image().cluster.broker(BrokerId(1)).unwrap().epoch;
    let offline =
        klamm_metadata::ReplicasOffline { broker: BrokerId(1), epoch, replicas: vec![(TOPIC, ZERO)] };
    let old = cluster.registration();
    let mut new = old.clone();
    new.isr = vec![BrokerId(2)];
    new.partition_epoch = old.partition_epoch.next().unwrap();
    let change = klamm_metadata::PartitionChanged::between(TOPIC, ZERO, &old, &new);
    cluster
        .publish(vec![MetadataRecord::PartitionChanged(change), MetadataRecord::ReplicasOffline(offline)])
        .await;
    let refused = cluster.network.refused_proposals();
    for i in 0..20 {
        let end = cluster.append(2, Acks::All, &["b"]).await.unwrap().base_offset;
        assert_eq!(end, Offset(1 + i));
    }
    assert_eq!(cluster.registration(), new);
    assert_eq!(cluster.network.refused_proposals(), refused, "nobody asked for what would be refused");
    assert_eq!(cluster.partition(2).role().in_sync_replicas, [BrokerId(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_shutdown_says_so_and_takes_no_more_records() {
    let mut cluster = Cluster::of(&[1]).await;
    cluster.create_topic(&[1], &[]).await;
    cluster.append(1, Acks::All, &["a"]).await.unwrap();
    let epoch = cluster.nodes[&1].manager.broker_epoch();
    let partition = cluster.partition(1);
    cluster.shut_down(1).await;
    let late = partition.append(batch(&["b"]), &options(Acks::Leader)).done().await.unwrap_err();
    assert!(matches!(late, AppendFailure::Replica(AppendError::NotLeader { .. })), "{late}");
    let dirs = open_dirs(&cluster.disks[&1], &["/data"]);
    assert_eq!(dirs.previous_broker_epoch(), Some(epoch));
    assert_eq!(dirs.recovery_verdict(), RecoveryVerdict::Clean);
    let disk = cluster.disks[&1].crash_point().process_kill();
    let dirs = open_dirs(&disk, &["/data"]);
    assert_eq!(dirs.previous_broker_epoch(), None, "the mark holds for one start");
    assert_eq!(dirs.recovery_verdict(), RecoveryVerdict::CrashedDurable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_goes_takes_its_log_and_tells_who_waits() {
    let mut cluster = Cluster::of(&[1, 2]).await;
    cluster.create_topic(&[1, 2], &[("min.insync.replicas", "2")]).await;
    cluster.append(1, Acks::All, &["a"]).await.unwrap();
    cluster.network.cut(2);
    let partition = cluster.partition(1);
    let waiting = partition.append(batch(&["b"]), &options(Acks::All));
    cluster.publish(vec![MetadataRecord::TopicDeleted { id: TOPIC }]).await;
    let error = waiting.done().await.unwrap_err();
    assert!(matches!(error, AppendFailure::Replica(AppendError::LeadershipLost { .. })), "{error}");
    assert!(!partition.role().is_assigned);
    assert!(partition.read(&read_request(Offset::ZERO)).is_err());
    let manager = &cluster.nodes[&1].manager;
    assert_eq!(manager.partition(TOPIC, ZERO).unwrap_err(), PartitionUnavailable::UnknownTopicId);
    cluster.network.heal(2);
    // Another topic of the same name has nothing of it.
    let again = TopicId([9; 16]);
    let registration = PartitionRegistration::new(vec![BrokerId(1)], vec![BrokerId(1)]);
    let created = MetadataRecord::PartitionCreated { topic: again, partition: ZERO, registration };
    cluster.publish(vec![MetadataRecord::TopicCreated { id: again, name: topic() }, created]).await;
    let partition = cluster.nodes[&1].manager.partition_by_name(&topic(), ZERO).unwrap();
    assert_eq!((partition.topic_id(), partition.bounds().log_end_offset), (again, Offset::ZERO));
    // It is so after a crash as well, also if the topic goes while the broker is away.
    partition.append(batch(&["c"]), &options(Acks::All)).done().await.unwrap();
    cluster.crash(1).await;
    cluster.publish(vec![MetadataRecord::TopicDeleted { id: again }]).await;
    cluster.start(1).await;
    let disk = cluster.disks[&1].clone();
    until("the log is gone", || {
        let gone = disk.crash_point().process_kill();
        klamm_log::fs::LogFs::stat(&gone, &cluster::path("/data", "")).unwrap().is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_metadata_said_before_the_registration_is_not_acted_upon() {
    let mut cluster = Cluster::of(&[1]).await;
    let before = cluster.image();
    cluster.create_topic(&[1], &[]).await;
    cluster.append(1, Acks::All, &["a"]).await.unwrap();
    cluster.crash(1).await;
    let now = cluster.image();
    cluster.start(1).await;
    // An image that does not have the topic yet would let its log go.
    let manager = &cluster.nodes[&1].manager;
    let epoch = klamm_types::BrokerEpoch(now.provenance.last_offset.0 + 100);
    manager.begin_incarnation(epoch).await;
    for image in [before, now] {
        let delta = MetadataDelta::between(MetadataImage::empty(), image.as_ref().clone());
        manager.apply(Arc::new(delta), image).await;
    }
    let disk = cluster.disks[&1].crash_point().process_kill();
    assert_eq!(open_dirs(&disk, &["/data"]).recovery_verdict(), RecoveryVerdict::CrashedDurable);
    let log = cluster::path("/data", "00000000000000000000.log");
    assert!(klamm_log::fs::LogFs::stat(&disk, &log).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_registration_ends_what_the_old_one_led() {
    let cluster = Cluster::of(&[1, 2]).await;
    cluster.create_topic(&[1, 2], &[("min.insync.replicas", "2")]).await;
    cluster.network.cut(2);
    let waiting = cluster.partition(1).append(batch(&["a"]), &options(Acks::All));
    let epoch = cluster.register_again(1).await;
    let error = waiting.done().await.unwrap_err();
    assert!(matches!(error, AppendFailure::Replica(AppendError::LeadershipLost { .. })), "{error}");
    let refused = cluster.append(1, Acks::Leader, &["b"]).await.unwrap_err();
    assert!(matches!(refused, AppendFailure::Replica(AppendError::NotLeader { .. })), "{refused}");
    cluster.network.heal(2);
    cluster.elect(1, &[1, 2]).await;
    cluster.append(1, Acks::All, &["b"]).await.unwrap();
    cluster.until_committed(&[1, 2], 2).await;
    assert_eq!(cluster.read_all(2), ["a", "b"]);
    assert_eq!(cluster.nodes[&1].manager.broker_epoch(), epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_goes_while_the_broker_registers_anew_goes_here_too() {
    let cluster = Cluster::of(&[1]).await;
    cluster.create_topic(&[1], &[]).await;
    cluster.append(1, Acks::All, &["a"]).await.unwrap();
    let manager = &cluster.nodes[&1].manager;
    let partition = cluster.partition(1);
    // The registration comes after the deletion, which is not acted upon by itself.
    let registered = cluster.image().provenance.last_offset.0 + 2;
    manager.begin_incarnation(klamm_types::BrokerEpoch(registered)).await;
    cluster.publish(vec![MetadataRecord::TopicDeleted { id: TOPIC }]).await;
    assert_eq!(partition.bounds().log_end_offset, Offset(1));
    cluster.publish(vec![cluster::registration_of(1, registered)]).await;
    assert_eq!(manager.partition(TOPIC, ZERO).unwrap_err(), PartitionUnavailable::UnknownTopicId);
    let error = partition.append(batch(&["b"]), &options(Acks::Leader)).done().await.unwrap_err();
    assert!(matches!(error, AppendFailure::Replica(AppendError::NotLeader { .. })), "{error}");
    let disk = cluster.disks[&1].crash_point().process_kill();
    let dir = cluster::path("/data", "");
    assert!(klamm_log::fs::LogFs::stat(&disk, &dir).unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_directory_is_missing_does_not_start_empty() {
    let mut cluster = Cluster::with_dirs(&[1], &["/one", "/two"]).await;
    cluster.create_topic(&[1], &[]).await;
    cluster.append(1, Acks::All, &["a"]).await.unwrap();
    let dir = cluster.partition(1).describe().log_dir;
    cluster.crash(1).await;
    let fault = FaultRule::always(Operation::List, FaultKind::Io).on_paths_with(dir.to_str().unwrap());
    cluster.disks[&1].add_fault(fault);
    cluster.start(1).await;
    let manager = &cluster.nodes[&1].manager;
    assert_eq!(manager.partition(TOPIC, ZERO).unwrap_err(), PartitionUnavailable::Offline);
    assert_eq!(manager.log_dirs().recovery_verdict(), RecoveryVerdict::Lossy);
    assert_eq!(manager.gauges().offline, 1);
}

/// An empty disk in the place of one that has failed is no crash that lost nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_was_replaced_counts_as_a_loss_until_the_broker_is_registered() {
    let mut cluster = Cluster::with_dirs(&[1], &["/one", "/two"]).await;
    let verdict = |cluster: &Cluster| cluster.nodes[&1].manager.log_dirs().recovery_verdict();
    cluster.crash(1).await;
    let identity = std::path::Path::new("/two/meta.properties");
    klamm_log::fs::LogFs::remove_file(&cluster.disks[&1], identity).unwrap();
    klamm_log::fs::LogFs::sync_dir(&cluster.disks[&1], std::path::Path::new("/two")).unwrap();
    cluster.start(1).await;
    assert_eq!(verdict(&cluster), RecoveryVerdict::Lossy);
    cluster.crash(1).await;
    cluster.start(1).await;
    assert_eq!(verdict(&cluster), RecoveryVerdict::CrashedDurable);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_in_force_from_the_next_append_on() {
    let cluster = Cluster::of(&[1]).await;
    cluster.create_topic(&[1], &[]).await;
    let large = "x".repeat(2_000);
    cluster.append(1, Acks::All, &[&large]).await.unwrap();
    cluster.set("max.message.bytes", "1000").await;
    let error = cluster.append(1, Acks::All, &[&large]).await.unwrap_err();
    let too_large = matches!(error, AppendFailure::Log(klamm_log::AppendError::TooLarge { max: 1000, .. }));
    assert!(too_large && error.is_definite(), "{error}");
    cluster.publish(vec![setting("message.timestamp.type", "LogAppendTime")]).await;
    let appended = cluster.append(1, Acks::All, &["small"]).await.unwrap();
    assert!(appended.append_time.0 > 0);
    assert_eq!(cluster.read_all(1), [large.as_str(), "small"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_is_not_committed_in_time_is_told_so() {
    let cluster = Cluster::of(&[1, 2]).await;
    cluster.create_topic(&[1, 2], &[("min.insync.replicas", "2")]).await;
    cluster.network.cut(2);
    let options =
        klamm_broker::partition::AppendOptions { timeout: Duration::from_millis(50), ..options(Acks::All) };
    let error = cluster.partition(1).append(batch(&["a"]), &options).done().await.unwrap_err();
    assert!(matches!(error, AppendFailure::Replica(AppendError::TimedOut)), "{error}");
    assert!(!error.is_definite());
}
