//! The life of brokers: registration, sessions, death.

use std::net::TcpListener;
use std::time::Duration;

use bytes::Bytes;
use klamm_metadata::MetadataImage;
use klamm_pb::controller::v1 as pb;
use klamm_pb::metadata::v1 as records;
use klamm_rpc::stubs::controller::v1::broker_lifecycle_client::BrokerLifecycleClient;
use klamm_rpc::stubs::controller::v1::partition_control_client::PartitionControlClient;
use klamm_rpc::{ChannelPool, Deadline, Lane, NodeAddress, RpcError};
use klamm_types::{BrokerId, Offset, PartitionId, TopicName};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use tokio::time::Instant;

use crate::fixture::*;

/// A broker as far as controllers see one: a listener, a registration, a session.
pub(crate) struct FakeBroker {
    runtime: Runtime,
    listener: TcpListener,
    epoch: i64,
    /// The newest answer to a heartbeat.
    standing: watch::Receiver<Option<pb::heartbeat_response::Result>>,
    /// Whether heartbeats are sent.
    beating: watch::Sender<bool>,
}

fn register_request(id: i32, port: u16) -> pb::RegisterRequest {
    let identity = |text: String| Bytes::from(format!("{text:0>16}"));
    pb::RegisterRequest {
        caller: Some(caller(id)),
        incarnation_id: identity(format!("{id}-{port}")),
        directory_id: identity(format!("dir-{id}")),
        endpoints: vec![records::Endpoint {
            listener: "PLAINTEXT".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: u32::from(port),
            security_protocol: records::SecurityProtocol::Plaintext.into(),
        }],
        rack: None,
        features: klamm_metadata::supported_features().iter().map(klamm_metadata::feature_to_pb).collect(),
        cordoned: false,
        marker_epoch: None,
        verdict: pb::RecoveryVerdict::CrashedDurable.into(),
    }
}

impl Cluster {
    fn register(&self, request: pb::RegisterRequest) -> Result<i64, pb::Refusal> {
        use pb::register_response::Result as R;
        let started = Instant::now();
        loop {
            let mut client = BrokerLifecycleClient::new(self.channel(self.active()));
            let deadline = Deadline::after(PATIENCE);
            let answer =
                self.calls.block_on(deadline.run(client.register(deadline.request(request.clone()))));
            match answer {
                Ok(response) => match response.result.unwrap() {
                    R::Registered(registered) => return Ok(registered.broker_epoch),
                    R::Refusal(refusal) => return Err(refusal),
                },
                Err(error) if error.is_retryable() && started.elapsed() < PATIENCE => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Kills a broker that is unfenced, and waits until a node has committed that it is fenced.
    pub(crate) fn time_to_fence(&self, victim: FakeBroker, id: i32) -> Duration {
        let active = self.active();
        let killed = Instant::now();
        victim.kill();
        self.image_where(active, |image| {
            image.cluster.broker(BrokerId(id)).is_some_and(|broker| broker.fenced)
        });
        killed.elapsed()
    }

    /// A broker that registers, beats and claims to have applied everything, until it is unfenced.
    pub(crate) fn broker(&self, id: i32) -> FakeBroker {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let epoch = self.register(register_request(id, listener.local_addr().unwrap().port())).unwrap();
        let (standing_sender, standing) = watch::channel(None);
        let (beating, beats) = watch::channel(true);
        let controllers: Vec<NodeAddress> = self.addresses.values().cloned().collect();
        let broker = FakeBroker { runtime: runtime(), listener, epoch, standing, beating };
        broker.runtime.spawn(async move {
            let channels = ChannelPool::default();
            // Any controller may be the active one: those that are not end the session at once.
            for address in controllers.iter().cycle() {
                let _ = hold_session(&channels, address, (id, epoch), &standing_sender, beats.clone()).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        broker.wait_for(|standing| !standing.fenced);
        broker
    }
}

async fn hold_session(
    channels: &ChannelPool,
    address: &NodeAddress,
    (id, epoch): (i32, i64),
    standing: &watch::Sender<Option<pb::heartbeat_response::Result>>,
    beats: watch::Receiver<bool>,
) -> Result<(), RpcError> {
    let channel = channels.channel(address, Lane::Control).unwrap();
    let (heartbeats, queue) = mpsc::channel(1);
    tokio::spawn(async move {
        for sequence in 0.. {
            if *beats.borrow() {
                let heartbeat = pb::HeartbeatRequest {
                    caller: Some(caller(id)),
                    broker_epoch: epoch,
                    applied_offset: i64::MAX,
                    want_fence: false,
                    want_shutdown: false,
                    sequence,
                };
                if heartbeats.send(heartbeat).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut client = BrokerLifecycleClient::new(channel);
    let mut answers = client.session(ReceiverStream::new(queue)).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        standing.send_replace(answer.result);
    }
    Ok(())
}

impl FakeBroker {
    fn wait_for(&self, wanted: impl Fn(&pb::BrokerStanding) -> bool) {
        use pb::heartbeat_response::Result as R;
        let mut standing = self.standing.clone();
        let wanted = |answer: &Option<R>| matches!(answer, Some(R::Standing(standing)) if wanted(standing));
        self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, standing.wait_for(wanted))
                .await
                .expect("the answer comes")
                .unwrap();
        });
    }

    /// Its sockets close, as when its process is killed.
    fn kill(self) {
        drop(self.listener);
        self.runtime.shutdown_timeout(PATIENCE);
    }
}

impl Cluster {
    /// Follows the feed of an active or ready node until the image is as `wanted`.
    fn image_where(&self, id: i32, wanted: impl Fn(&MetadataImage) -> bool) -> MetadataImage {
        let mut image = MetadataImage::empty();
        let started = Instant::now();
        while !wanted(&image) {
            assert!(started.elapsed() < PATIENCE, "the image never comes: {image:?}");
            let next = image.provenance.last_offset.next();
            image = self.image(id, image, next).0;
        }
        image
    }
}

fn create(name: &str, replicas: &[i32]) -> pb::submit_request::Change {
    let assignment = pb::ReplicaAssignment { partition_id: 0, replicas: replicas.to_vec() };
    let topic = pb::NewTopic {
        name: name.to_owned(),
        partitions: -1,
        replication_factor: -1,
        assignments: vec![assignment],
        configs: Vec::new(),
    };
    pb::submit_request::Change::CreateTopics(pb::CreateTopics { topics: vec![topic], validate_only: false })
}

fn created(outcome: Result<pb::SubmitResponse, RpcError>) -> (Offset, pb::CreatedTopic) {
    let response = outcome.unwrap();
    let offset = Offset(response.applied.unwrap().offset);
    match response.outcome.unwrap() {
        pb::submit_response::Outcome::CreateTopics(mut outcome) => (offset, outcome.topics.remove(0)),
        other => panic!("{other:?}"),
    }
}

fn leader(image: &MetadataImage, topic: &str) -> Option<i32> {
    let topic = image.topics.topic_by_name(&TopicName::new(topic).unwrap())?;
    topic.partition(PartitionId(0))?.leader.map(|leader| leader.0)
}

#[test]
fn topics_live_on_brokers() {
    let cluster = Cluster::start(1);
    let _brokers = [cluster.broker(11), cluster.broker(12)];
    let (offset, topic) = created(cluster.submit(create("t", &[12, 11])));
    assert_eq!((topic.refusal, topic.partitions, topic.replication_factor), (None, 1, 2));
    let (image, _) = cluster.image(1, MetadataImage::empty(), offset);
    assert_eq!(leader(&image, "t"), Some(12));
    let (_, again) = created(cluster.submit(create("t", &[11])));
    assert_eq!(again.refusal.unwrap().code, pb::RefusalCode::TopicAlreadyExists as i32);
    let (_, nowhere) = created(cluster.submit(create("u", &[13])));
    assert_eq!(nowhere.refusal.unwrap().code, pb::RefusalCode::InvalidReplicaAssignment as i32);
}

#[test]
fn a_dead_broker_is_fenced_long_before_its_session_ends() {
    // Only evidence can be that fast.
    let cluster = Cluster::start_with(1, |options| {
        options.control.session_timeout_ms = 60_000;
        options.control.session_timeout_max_ms = 60_000;
    });
    let victim = cluster.broker(11);
    let _other = cluster.broker(12);
    created(cluster.submit(create("t", &[11, 12])));
    let killed = Instant::now();
    victim.kill();
    let image = cluster.image_where(1, |image| leader(image, "t") == Some(12));
    assert!(killed.elapsed() < Duration::from_secs(20), "fenced after {:?}", killed.elapsed());
    let dead = cluster.image_where(1, |image| image.cluster.broker(BrokerId(11)).is_some_and(|b| b.fenced));
    assert!(dead.provenance.last_offset >= image.provenance.last_offset);
}

#[test]
fn a_silent_broker_is_fenced_when_its_session_is_over() {
    let cluster = Cluster::start_with(1, |options| {
        options.control.session_timeout_ms = 600;
        options.control.session_timeout_max_ms = 600;
        options.control.heartbeat_interval_ms = 100;
    });
    let broker = cluster.broker(11);
    let silent = Instant::now();
    broker.beating.send_replace(false);
    cluster.image_where(1, |image| image.cluster.broker(BrokerId(11)).is_some_and(|broker| broker.fenced));
    assert!(silent.elapsed() >= Duration::from_millis(500), "fenced after {:?}", silent.elapsed());
    broker.beating.send_replace(true);
    cluster.image_where(1, |image| image.cluster.broker(BrokerId(11)).is_some_and(|broker| !broker.fenced));
}

#[test]
fn a_broker_that_dies_with_the_active_controller_is_fenced_by_the_next() {
    let mut cluster = Cluster::start_with(3, |options| {
        options.control.session_timeout_ms = 60_000;
        options.control.session_timeout_max_ms = 60_000;
    });
    let victim = cluster.broker(11);
    let survivor = cluster.broker(12);
    created(cluster.submit(create("t", &[11, 12])));
    let active = cluster.active();
    let epoch = survivor.epoch;
    let killed = Instant::now();
    cluster.kill(active);
    victim.kill();
    let next = cluster.active();
    let image = cluster.image_where(next, |image| leader(image, "t") == Some(12));
    assert!(killed.elapsed() < Duration::from_secs(20), "led again after {:?}", killed.elapsed());
    let survivor_now = image.cluster.broker(BrokerId(12)).unwrap();
    assert_eq!((survivor_now.epoch.0, survivor_now.fenced), (epoch, false), "who lives is left alone");
}

#[test]
fn stale_epochs_are_refused() {
    use pb::heartbeat_response::Result as R;
    let cluster = Cluster::start(1);
    let broker = cluster.broker(11);
    let heartbeat = |broker_epoch| pb::HeartbeatRequest {
        caller: Some(caller(11)),
        broker_epoch,
        applied_offset: 0,
        want_fence: false,
        want_shutdown: false,
        sequence: 7,
    };
    let mut client = BrokerLifecycleClient::new(cluster.channel(1));
    let answer = cluster.calls.block_on(async {
        let stream = tokio_stream::iter([heartbeat(broker.epoch - 1)]);
        let mut answers = client.session(stream).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap()
    });
    assert_eq!(answer.sequence, 7);
    let Some(R::Refusal(refusal)) = answer.result else { panic!("{answer:?}") };
    assert_eq!(refusal.code, pb::RefusalCode::StaleBrokerEpoch as i32);
    let second =
        pb::RegisterRequest { directory_id: bytes::Bytes::from_static(&[9; 16]), ..register_request(11, 1) };
    let refusal = cluster.register(second).unwrap_err();
    assert_eq!(refusal.code, pb::RefusalCode::DuplicateBrokerRegistration as i32);
    let request = pb::AlterPartitionRequest {
        caller: Some(caller(11)),
        broker_epoch: broker.epoch + 1,
        proposals: Vec::new(),
    };
    let mut client = PartitionControlClient::new(cluster.channel(1));
    let response = cluster.calls.block_on(client.alter_partition(request)).unwrap().into_inner();
    assert_eq!(response.refusal.unwrap().code, pb::RefusalCode::StaleBrokerEpoch as i32);
}

#[test]
fn leaders_propose_isrs_and_producer_ids_are_given_once() {
    use pb::allocate_producer_ids_response::Result as R;
    let mut cluster = Cluster::start(3);
    let broker = cluster.broker(11);
    let other = cluster.broker(12);
    let (_, topic) = created(cluster.submit(create("t", &[11, 12])));
    let member = |broker_id, epoch| pb::IsrMember { broker_id, broker_epoch: epoch };
    let proposal = pb::IsrProposal {
        topic_id: topic.topic_id.clone(),
        partition_id: 0,
        leader_epoch: 0,
        partition_epoch: 0,
        isr: vec![member(11, broker.epoch)],
        recovery: records::LeaderRecovery::Recovered.into(),
    };
    let request = pb::AlterPartitionRequest {
        caller: Some(caller(11)),
        broker_epoch: broker.epoch,
        proposals: vec![
            proposal,
            pb::IsrProposal { topic_id: Bytes::from_static(&[9; 16]), ..pb::IsrProposal::default() },
        ],
    };
    let mut request = request;
    request.proposals[1].recovery = records::LeaderRecovery::Recovered.into();
    let mut client = PartitionControlClient::new(cluster.channel(cluster.active()));
    let response = cluster.calls.block_on(client.alter_partition(request)).unwrap().into_inner();
    assert_eq!(response.refusal, None);
    let state = response.answers[0].state.clone().unwrap();
    assert_eq!((state.leader, state.partition_epoch, state.isr), (11, 1, vec![11]));
    let unknown = response.answers[1].refusal.clone().unwrap();
    assert_eq!(unknown.code, pb::RefusalCode::UnknownTopicId as i32);

    let mut blocks = Vec::new();
    for round in 0..2 {
        for (id, epoch) in [(11, broker.epoch), (12, other.epoch)] {
            let mut client = PartitionControlClient::new(cluster.channel(cluster.active()));
            let request = pb::AllocateProducerIdsRequest { caller: Some(caller(id)), broker_epoch: epoch };
            let answer = cluster.calls.block_on(client.allocate_producer_ids(request)).unwrap().into_inner();
            let Some(R::Block(block)) = answer.result else { panic!("{answer:?}") };
            blocks.push(block.first);
        }
        if round == 0 {
            let active = cluster.active();
            cluster.kill(active);
        }
    }
    assert_eq!(blocks, [0, 1_000, 2_000, 3_000]);
}

#[test]
fn what_a_broker_cannot_serve_is_led_elsewhere_and_known_to_all() {
    use pb::report_offline_replicas_response::Result as R;
    let cluster = Cluster::start(3);
    let broker = cluster.broker(11);
    let _other = cluster.broker(12);
    let (_, topic) = created(cluster.submit(create("t", &[11, 12])));
    let replica = |topic_id: &Bytes, partition_id| pb::OfflineReplica {
        topic_id: topic_id.clone(),
        partition_id,
        leader_epoch: 0,
    };
    let replicas = vec![
        replica(&topic.topic_id, 0),
        replica(&topic.topic_id, 9),
        replica(&Bytes::from_static(&[9; 16]), 0),
    ];
    let report = |broker_epoch| {
        let request = pb::ReportOfflineReplicasRequest {
            caller: Some(caller(11)),
            broker_epoch,
            replicas: replicas.clone(),
            full: Vec::new(),
        };
        let mut client = BrokerLifecycleClient::new(cluster.channel(cluster.active()));
        let answer = cluster.calls.block_on(client.report_offline_replicas(request)).unwrap().into_inner();
        answer.result.unwrap()
    };
    let R::Refusal(refusal) = report(broker.epoch - 1) else { panic!("a former registration") };
    assert_eq!(refusal.code, pb::RefusalCode::StaleBrokerEpoch as i32);
    let R::Applied(applied) = report(broker.epoch) else { panic!("it is registered") };
    for id in 1..=3 {
        let (image, _) = cluster.image(id, MetadataImage::empty(), Offset(applied.offset));
        let name = TopicName::new("t").unwrap();
        let topic = image.topics.topic_by_name(&name).unwrap();
        let partition = topic.partition(PartitionId(0)).unwrap();
        assert_eq!((partition.leader, &partition.isr[..]), (Some(BrokerId(12)), &[BrokerId(12)][..]));
        let offline: Vec<_> = image.offline.iter().collect();
        assert_eq!(offline, [(BrokerId(11), topic.id, PartitionId(0))]);
        assert!(image.cluster.is_active(BrokerId(11)));
    }
    let R::Applied(again) = report(broker.epoch) else { panic!("it is registered") };
    let (image, _) = cluster.image(1, MetadataImage::empty(), Offset(again.offset));
    assert_eq!(image.offline.len(), 1);
}
