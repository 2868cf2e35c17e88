//! A whole broker with two log directories in memory, and a controller that does as it is told.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use klamm_log::fs::{FaultKind, FaultRule, MemoryFs, Operation};
use klamm_metadata::{
    BrokerRegistration, DirectoryId, Endpoint, IncarnationId, MetadataRecord, PartitionRegistration,
    SecurityProtocol,
};
use klamm_rpc::{ChannelPool, KnownQuorum};
use klamm_types::{BrokerEpoch, BrokerId, PartitionId, TopicId, TopicName};

use super::*;
use crate::controller_client::fake::{CLUSTER, Call, FakeController, PATIENCE, Script};
use crate::{Broker, BrokerConfig, BrokerOptions, FetcherConfig};

const ME: BrokerId = BrokerId(1);
const TOPIC: TopicId = TopicId([7; 16]);

fn endpoint() -> Endpoint {
    Endpoint {
        listener: "PLAINTEXT".to_owned(),
        host: "b1".to_owned(),
        port: 9092,
        security_protocol: SecurityProtocol::Plaintext,
    }
}

fn level(level: u16) -> MetadataRecord {
    MetadataRecord::FeatureLevelSet { name: METADATA_VERSION.to_owned(), level }
}

fn registered(epoch: i64) -> MetadataRecord {
    MetadataRecord::BrokerRegistered(BrokerRegistration {
        id: ME,
        epoch: BrokerEpoch(epoch),
        incarnation: IncarnationId([1; 16]),
        directory: DirectoryId([2; 16]),
        endpoints: vec![endpoint()],
        rack: None,
        features: Vec::new(),
        fenced: false,
        shutting_down: false,
        cordoned: false,
    })
}

/// A controller whose metadata gives partitions of one topic to the broker, registered under epoch 0.
async fn controller(at_level: u16, partitions: i32) -> FakeController {
    let mut script = Script { broker_epoch: 0, ..Script::default() };
    script.commit(&[level(at_level), registered(0)]);
    let name = TopicName::new("orders").unwrap();
    let mut records = vec![MetadataRecord::TopicCreated { id: TOPIC, name }];
    records.extend((0..partitions).map(|partition| MetadataRecord::PartitionCreated {
        topic: TOPIC,
        partition: PartitionId(partition),
        registration: PartitionRegistration::new(vec![ME], vec![ME]),
    }));
    script.commit(&records);
    FakeController::start(script).await
}

async fn start(controller: &FakeController, disk: &MemoryFs) -> Broker {
    let dirs = ["/one", "/two"].into_iter().map(PathBuf::from).collect();
    let mut config = BrokerConfig::new(ME, CLUSTER, dirs);
    config.flush_threads_per_dir = 2;
    let options = BrokerOptions {
        config,
        quorum: vec![controller.address.clone()],
        known_quorum: KnownQuorum::new(None),
        inter_broker_listener: "PLAINTEXT".to_owned(),
        endpoints: vec![endpoint()],
        rack: None,
        features: Vec::new(),
        cordoned: false,
        incarnation: IncarnationId([1; 16]),
        fetchers: FetcherConfig::default(),
        channels: ChannelPool::default(),
        control: tokio::runtime::Handle::current(),
    };
    Broker::start_on(Arc::new(disk.clone()), options).await.unwrap()
}

/// Waits until the broker has acted on metadata in which `count` of its replicas are offline.
async fn until_marked(broker: &Broker, count: usize) {
    let marked =
        broker.metadata().wait_until(|image| image.offline.len() == count, Deadline::after(PATIENCE));
    marked.await.unwrap();
}

/// Waits until every partition has its log: the metadata may have come before the registration.
async fn until_hosted(broker: &Broker, count: usize) {
    let hosted = async {
        while broker.replicas().partitions().len() < count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, hosted).await.expect("the broker has its replicas");
}

fn partitions_in(broker: &Broker, dir: &str) -> BTreeSet<i32> {
    let all = broker.replicas().partitions();
    let in_it = all.iter().filter(|partition| partition.describe().log_dir == Path::new(dir));
    in_it.map(|partition| partition.partition().partition.0).collect()
}

/// The directory fails.
fn fail(broker: &Broker, dir: &str) {
    let all = broker.replicas().partitions();
    let victim = all.iter().find(|partition| partition.describe().log_dir == Path::new(dir)).unwrap();
    let source = std::io::Error::other("as a disk fails");
    victim.log().log_dir().fail(klamm_log::StorageError { verb: "sync", path: PathBuf::from(dir), source });
}

fn reported(report: &pb::ReportOfflineReplicasRequest) -> BTreeSet<i32> {
    report.replicas.iter().map(|replica| replica.partition_id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_fails_is_reported_until_that_is_answered_and_the_broker_goes_on() {
    let controller = controller(4, 6).await;
    let disk = MemoryFs::new();
    let broker = start(&controller, &disk).await;
    until_hosted(&broker, 6).await;
    let (lost, kept) = (partitions_in(&broker, "/two"), partitions_in(&broker, "/one"));
    assert_eq!((lost.len(), kept.len()), (3, 3));
    controller.tell(|script| script.refusal = Some(pb::RefusalCode::UnknownServerError));
    fail(&broker, "/two");
    let refused = controller.wait_for(|script| script.offline_reports().count() >= 3).await;
    for report in refused.offline_reports() {
        assert_eq!((reported(report), report.broker_epoch), (lost.clone(), 0));
        assert!(report.replicas.iter().all(|replica| replica.leader_epoch == 0));
    }
    controller.tell(|script| script.refusal = None);
    until_marked(&broker, 3).await;
    let last = controller.script().heartbeats().next_back().unwrap().sequence;
    let script = controller.wait_for(|script| script.heartbeats().any(|sent| sent.sequence > last)).await;
    assert!(script.heartbeats().all(|sent| !sent.want_fence), "its other directory serves on");
    assert_eq!(reported(script.offline_reports().next_back().unwrap()), lost);
    let offline: BTreeSet<_> =
        broker.metadata().image().offline.of_broker(ME).map(|(_, partition)| partition.0).collect();
    assert_eq!(offline, lost);
    assert_eq!(broker.replicas().gauges().offline, 3);
}

/// It would be elected for what it cannot serve, or worse, be taken for one that holds nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_misses_a_directory_stays_fenced_until_it_has_said_so() {
    let controller = controller(4, 4).await;
    let disk = MemoryFs::new();
    let broker = start(&controller, &disk).await;
    until_hosted(&broker, 4).await;
    let lost = partitions_in(&broker, "/two");
    broker.shut_down(Deadline::after(Duration::ZERO)).await.unwrap_err();
    drop(broker);
    let disk = disk.crash_point().process_kill();
    disk.add_fault(FaultRule::always(Operation::List, FaultKind::Io).on_paths_with("/two"));
    controller.tell(|script| {
        script.calls.clear();
        script.commit(&[registered(2)]);
        script.broker_epoch = 2;
    });
    let broker = start(&controller, &disk).await;
    until_marked(&broker, 2).await;
    let script = controller
        .wait_for(|script| script.heartbeats().next_back().is_some_and(|sent| !sent.want_fence))
        .await;
    let is_report = |call: &Call| matches!(call, Call::ReportOffline(_));
    let report = script.calls.iter().position(is_report).unwrap();
    let early = script.calls.iter().take(report).filter_map(|call| match call {
        Call::Heartbeat(sent) => Some(sent.want_fence),
        _ => None,
    });
    assert!(early.clone().all(|fence| fence), "it was fenced before");
    assert_eq!(reported(script.offline_reports().next().unwrap()), lost);
    assert!(script.offline_reports().all(|report| report.broker_epoch == 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn below_level_4_the_broker_is_fenced_as_a_whole_until_the_level_is_raised() {
    let controller = controller(3, 4).await;
    let broker = start(&controller, &MemoryFs::new()).await;
    until_hosted(&broker, 4).await;
    let lost = partitions_in(&broker, "/two");
    controller.wait_for(|script| script.heartbeats().next_back().is_some_and(|sent| !sent.want_fence)).await;
    fail(&broker, "/two");
    let fenced = controller.wait_for(|script| script.heartbeats().any(|sent| sent.want_fence)).await;
    assert_eq!(fenced.offline_reports().count(), 0, "nobody would understand it");
    controller.tell(|script| script.commit(&[level(4)]));
    until_marked(&broker, 2).await;
    let wants_none = |script: &Script| script.heartbeats().next_back().is_some_and(|sent| !sent.want_fence);
    let script = controller.wait_for(wants_none).await;
    assert_eq!(reported(script.offline_reports().next().unwrap()), lost);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_registration_is_told_anew_before_it_serves() {
    let controller = controller(4, 4).await;
    let broker = start(&controller, &MemoryFs::new()).await;
    until_hosted(&broker, 4).await;
    let lost = partitions_in(&broker, "/two");
    fail(&broker, "/two");
    until_marked(&broker, 2).await;
    controller.tell(|script| {
        script.calls.clear();
        script.heartbeat_refusal = Some(pb::RefusalCode::StaleBrokerEpoch);
    });
    controller.wait_for(|script| script.registrations().count() > 0).await;
    let next = controller.script().entries.last().unwrap().offset + 1;
    controller.tell(|script| {
        script.calls.clear();
        script.heartbeat_refusal = None;
        script.commit(&[registered(next)]);
        script.broker_epoch = next;
        script.heartbeat_refusal = Some(pb::RefusalCode::StaleBrokerEpoch);
    });
    controller.wait_for(|script| script.registrations().count() > 0).await;
    controller.tell(|script| script.heartbeat_refusal = None);
    let is_new = |report: &pb::ReportOfflineReplicasRequest| report.broker_epoch == next;
    let script = controller.wait_for(|script| script.offline_reports().any(is_new)).await;
    assert_eq!(reported(script.offline_reports().find(|report| is_new(report)).unwrap()), lost);
    until_marked(&broker, 2).await;
    let serves = |script: &Script| {
        script.heartbeats().next_back().is_some_and(|sent| sent.broker_epoch == next && !sent.want_fence)
    };
    let script = controller.wait_for(serves).await;
    let report = script.calls.iter().position(|call| matches!(call, Call::ReportOffline(r) if is_new(r)));
    let is_early_service =
        |call: &Call| matches!(call, Call::Heartbeat(sent) if sent.broker_epoch == next && !sent.want_fence);
    assert!(script.calls.iter().position(is_early_service) > report, "it was fenced before");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_replicas_are_reported_in_parts() {
    let controller = controller(4, 2_100).await;
    let broker = start(&controller, &MemoryFs::new()).await;
    until_hosted(&broker, 2_100).await;
    let lost = partitions_in(&broker, "/two");
    assert_eq!(lost.len(), 1_050);
    fail(&broker, "/two");
    until_marked(&broker, lost.len()).await;
    let script = controller.script();
    let parts: Vec<_> = script.offline_reports().map(|report| report.replicas.len()).collect();
    assert_eq!(parts, [1_000, 50]);
    assert_eq!(script.offline_reports().flat_map(reported).collect::<BTreeSet<_>>(), lost);
}
