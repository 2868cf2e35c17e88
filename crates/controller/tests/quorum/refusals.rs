//! What a controller does not put up with: strangers, nonsense, damaged disks.

use std::path::Path;

use bytes::Bytes;
use klamm_controller::StartError;
use klamm_controller::raft::{LogStoreError, SnapshotStoreError};
use klamm_log::fs::LogFs;
use klamm_metadata::MetadataImage;
use klamm_pb::controller::v1 as pb;
use klamm_pb::raft::v1 as raft;
use klamm_rpc::RpcError;
use klamm_rpc::stubs::controller::v1::admin_client::AdminClient;
use klamm_rpc::stubs::controller::v1::broker_lifecycle_client::BrokerLifecycleClient;
use klamm_rpc::stubs::metadata::v1::metadata_feed_client::MetadataFeedClient;
use klamm_rpc::stubs::raft::v1::raft_client::RaftClient;
use tonic::Code;

use crate::fixture::*;

#[test]
fn another_cluster_is_refused_whatever_it_asks() {
    let cluster = Cluster::start(1);
    cluster.active();
    let stranger = pb::Caller { cluster_id: "another".to_owned(), node_id: 1, ..pb::Caller::default() };
    let header = raft::RaftHeader {
        cluster_id: "another".to_owned(),
        from_node: 2,
        to_node: 1,
        ..raft::RaftHeader::default()
    };
    let channel = cluster.channel(1);
    let codes = cluster.calls.block_on(async {
        let submit = pb::SubmitRequest { caller: Some(stranger.clone()), timeout_ms: 0, change: None };
        let register =
            pb::RegisterRequest { caller: Some(stranger.clone()), ..pb::RegisterRequest::default() };
        let mut follow = follow_request(&MetadataImage::empty());
        follow.cluster_id = "another".to_owned();
        let vote = raft::VoteRequest { header: Some(header.clone()), ..raft::VoteRequest::default() };
        let append = raft::AppendRequest { header: Some(header.clone()), ..raft::AppendRequest::default() };
        let watch = raft::WatchRequest { header: Some(header) };
        [
            AdminClient::new(channel.clone()).submit(submit).await.unwrap_err().code(),
            BrokerLifecycleClient::new(channel.clone()).register(register).await.unwrap_err().code(),
            MetadataFeedClient::new(channel.clone()).follow(follow).await.unwrap_err().code(),
            RaftClient::new(channel.clone()).vote(vote).await.unwrap_err().code(),
            RaftClient::new(channel.clone()).append(append).await.unwrap_err().code(),
            RaftClient::new(channel.clone()).watch(watch).await.unwrap_err().code(),
        ]
    });
    assert_eq!(codes, [Code::PermissionDenied; 6]);
}

#[test]
fn nonsense_is_refused_and_harms_nobody() {
    let cluster = Cluster::start(1);
    let before = accepted(cluster.submit(set("m", "k", "v")));
    let channel = cluster.channel(1);
    let header = Some(raft::RaftHeader {
        cluster_id: CLUSTER.to_owned(),
        from_node: 2,
        to_node: 1,
        ..raft::RaftHeader::default()
    });
    let vote = raft::Vote { term: u64::MAX, node_id: 2, committed: true };
    let codes = cluster.calls.block_on(async {
        let mut raft_client = RaftClient::new(channel.clone());
        let mut admin = AdminClient::new(channel.clone());
        let mut brokers = BrokerLifecycleClient::new(channel.clone());
        let append = |entry| raft::AppendRequest {
            header: header.clone(),
            vote: Some(raft::Vote { term: 1, node_id: 2, committed: true }),
            previous_log_id: None,
            entries: vec![entry],
            committed: None,
        };
        let offline = |replicas| pb::ReportOfflineReplicasRequest {
            caller: Some(caller(1)),
            broker_epoch: 0,
            replicas,
            full: Vec::new(),
        };
        let wrong_node = raft::RaftHeader { to_node: 3, ..header.clone().unwrap() };
        let torn = [raft::SnapshotRequest { part: Some(raft::snapshot_request::Part::Data(Bytes::new())) }];
        [
            raft_client
                .vote(raft::VoteRequest { header: header.clone(), ..Default::default() })
                .await
                .unwrap_err(),
            raft_client
                .vote(raft::VoteRequest { header: header.clone(), vote: Some(vote), ..Default::default() })
                .await
                .unwrap_err(),
            raft_client.append(append(raft::Entry::default())).await.unwrap_err(),
            raft_client.install_snapshot(tokio_stream::iter(torn)).await.unwrap_err(),
            admin
                .submit(pb::SubmitRequest { caller: Some(caller(1)), timeout_ms: 0, change: None })
                .await
                .unwrap_err(),
            brokers
                .register(pb::RegisterRequest { caller: Some(caller(1)), ..Default::default() })
                .await
                .unwrap_err(),
            brokers
                .report_offline_replicas(offline(vec![pb::OfflineReplica::default(); 10_001]))
                .await
                .unwrap_err(),
            brokers.report_offline_replicas(offline(vec![pb::OfflineReplica::default()])).await.unwrap_err(),
            raft_client.watch(raft::WatchRequest { header: Some(wrong_node) }).await.unwrap_err(),
        ]
        .map(|status| status.code())
    });
    assert_eq!(codes[..8], [Code::InvalidArgument; 8]);
    assert_eq!(codes[8], Code::NotFound, "a call for another node");
    let after = accepted(cluster.submit(set("m", "k", "2")));
    assert_eq!(after, before.next(), "nothing else was appended");
}

#[test]
fn a_session_that_sends_no_heartbeats_is_told_so() {
    use tonic::codegen::http::uri::PathAndQuery;
    use tonic_prost::ProstCodec;
    let cluster = Cluster::start(1);
    cluster.active();
    let channel = cluster.channel(1);
    let status = cluster.calls.block_on(async {
        let mut raw = tonic::client::Grpc::new(channel);
        raw.ready().await.unwrap();
        // Its first field is a number where a heartbeat has a message.
        let refusal = pb::Refusal { code: pb::RefusalCode::InvalidRequest.into(), message: "x".repeat(100) };
        let codec: ProstCodec<pb::Refusal, pb::HeartbeatResponse> = ProstCodec::default();
        let path = PathAndQuery::from_static("/klamm.controller.v1.BrokerLifecycle/Session");
        let request = tonic::Request::new(tokio_stream::once(refusal));
        let answers = raw.streaming(request, path, codec).await.unwrap();
        answers.into_inner().message().await.unwrap_err()
    });
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().starts_with("no heartbeat: "), "{status}");
}

#[test]
fn a_change_is_refused_item_by_item() {
    use pb::submit_response::Outcome;
    let cluster = Cluster::start(1);
    let topic = |name: &str| pb::TopicReference {
        reference: Some(pb::topic_reference::Reference::Name(name.to_owned())),
    };
    let no_id = pb::TopicReference {
        reference: Some(pb::topic_reference::Reference::TopicId(Bytes::from_static(b"short"))),
    };
    let topics = vec![topic("missing"), topic("no/name"), no_id, pb::TopicReference { reference: None }];
    let change = pb::submit_request::Change::DeleteTopics(pb::DeleteTopics { topics });
    let Some(Outcome::DeleteTopics(outcome)) = cluster.submit(change).unwrap().outcome else {
        panic!("no outcome")
    };
    let codes: Vec<i32> = outcome.topics.iter().map(|topic| topic.refusal.as_ref().unwrap().code).collect();
    use pb::RefusalCode as C;
    let expected =
        [C::UnknownTopicOrPartition, C::UnknownTopicOrPartition, C::UnknownTopicId, C::InvalidRequest];
    assert_eq!(codes, expected.map(i32::from));
    let mut bad = set("m", "k", "bad");
    let Some(Outcome::AlterConfigs(outcome)) = cluster.submit(bad.clone()).unwrap().outcome else {
        panic!("no outcome")
    };
    assert_eq!(outcome.resources[0].refusal.as_ref().unwrap().code, i32::from(C::InvalidConfig));
    if let pb::submit_request::Change::AlterConfigs(change) = &mut bad {
        change.resources[0].operations[0].value = Some("good".to_owned());
        change.validate_only = true;
    }
    let offset = accepted(cluster.submit(bad));
    let (image, _) = cluster.image(1, MetadataImage::empty(), offset);
    assert_eq!(value(&image, "m", "k"), None, "it was only looked at");
}

#[test]
fn a_change_that_is_too_long_for_the_log_is_refused() {
    let cluster = Cluster::start(1);
    let long = "x".repeat(32_000);
    let pb::submit_request::Change::AlterConfigs(mut change) = set("m", "k", "v") else { unreachable!() };
    let operation = change.resources[0].operations[0].clone();
    change.resources[0].operations = (0..600)
        .map(|number| pb::ConfigOperation {
            key: format!("key-{number}"),
            value: Some(long.clone()),
            ..operation.clone()
        })
        .collect();
    let response = cluster.submit(pb::submit_request::Change::AlterConfigs(change)).unwrap();
    let Some(pb::submit_response::Outcome::Refusal(refusal)) = response.outcome else {
        panic!("{response:?}")
    };
    assert_eq!(refusal.code, i32::from(pb::RefusalCode::PolicyViolation));
    accepted(cluster.submit(set("m", "k", "v")));
}

#[test]
fn options_that_cannot_be_are_refused() {
    let cluster = Cluster::start(1);
    let founders = cluster.founders.clone();
    let refused = |change: fn(&mut klamm_controller::ControllerOptions)| {
        let mut options = cluster.options(founders[0]);
        change(&mut options);
        options.validate().unwrap_err().to_string()
    };
    assert!(refused(|options| options.voters.clear()).contains("no voters"));
    assert!(refused(|options| options.cluster_id.clear()).contains("cluster id"));
    assert!(refused(|options| options.voters.push(options.voters[0].clone())).contains("twice"));
    assert!(refused(|options| options.timing.heartbeat_interval_ms = 400).contains("no room"));
    assert!(refused(|options| options.snapshot_entries = 0).contains("snapshot_entries"));
    assert!(refused(|options| options.control.session_timeout_ms = 0).contains("session_timeout_ms"));
}

#[test]
fn a_damaged_snapshot_stops_the_start() {
    let mut cluster = Cluster::start_with(1, |options| options.snapshot_entries = 10);
    for number in 0..30 {
        accepted(cluster.submit(set("m", "k", &number.to_string())));
    }
    cluster.kill(1);
    let disk = cluster.disks[&1].clone();
    let directory = Path::new("/data/__cluster_metadata-0");
    let names = disk.list(directory).unwrap();
    let snapshot =
        names.iter().find(|entry| entry.name.ends_with(".checkpoint")).expect("a snapshot was made");
    let path = directory.join(&snapshot.name);
    disk.flip(&path, snapshot.stat.len - 1, 1).unwrap();
    match cluster.start_error(1) {
        StartError::Snapshot(SnapshotStoreError::Frame { path: damaged, .. }) => assert_eq!(damaged, path),
        other => panic!("{other}"),
    }
}

#[test]
fn one_disk_is_for_one_process() {
    let cluster = Cluster::start(1);
    cluster.active();
    let options = cluster.options(1);
    let error = cluster.calls.block_on(klamm_controller::Controller::start(options)).unwrap_err();
    assert!(matches!(error, StartError::Log(LogStoreError::Locked { .. })), "{error}");
    assert!(error.is_retryable());
}

/// A request is refused, not lost, while nobody leads.
#[test]
fn a_controller_without_quorum_takes_no_changes() {
    let mut cluster = Cluster::start(3);
    cluster.active();
    for id in [1, 2] {
        cluster.kill(id);
    }
    cluster.wait_for(3, |status| !status.is_active);
    let error = cluster.submit_to(3, set("m", "k", "v")).unwrap_err();
    assert!(matches!(error, RpcError::NotActiveController { .. }), "{error}");
}
