//! Calls between nodes over real sockets: what is refused, what ends in time, and what a death looks like.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use klamm_pb::controller::v1 as pb;
use klamm_rpc::stubs::controller::v1::partition_control_client::PartitionControlClient;
use klamm_rpc::stubs::controller::v1::partition_control_server::{PartitionControl, PartitionControlServer};
use klamm_rpc::{
    ChannelPool, Deadline, Lane, NodeAddress, NodeIdentity, RpcError, ServeError, ServerConfig, serve,
};
use klamm_types::BrokerId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

const PATIENCE: Duration = Duration::from_secs(20);
const REQUEST_BYTES_MAX: usize = 4 << 10;

/// Whoever calls under this broker epoch waits for ever.
const NEVER: i64 = 404;

struct Controller {
    identity: NodeIdentity,
    /// Is told of each call that will wait for ever.
    waiting: Arc<Notify>,
}

#[tonic::async_trait]
impl PartitionControl for Controller {
    async fn alter_partition(
        &self,
        request: Request<pb::AlterPartitionRequest>,
    ) -> Result<Response<pb::AlterPartitionResponse>, Status> {
        let request = request.into_inner();
        self.identity.admit(request.caller.as_ref())?;
        Ok(Response::new(pb::AlterPartitionResponse::default()))
    }

    async fn allocate_producer_ids(
        &self,
        request: Request<pb::AllocateProducerIdsRequest>,
    ) -> Result<Response<pb::AllocateProducerIdsResponse>, Status> {
        let request = request.into_inner();
        self.identity.admit(request.caller.as_ref())?;
        if request.broker_epoch == NEVER {
            self.waiting.notify_one();
            std::future::pending::<()>().await;
        }
        let block = pb::ProducerIdBlock { first: request.broker_epoch, length: 1 };
        let result = Some(pb::allocate_producer_ids_response::Result::Block(block));
        Ok(Response::new(pb::AllocateProducerIdsResponse { result }))
    }
}

/// A node that serves until it is told to stop.
struct Node {
    address: NodeAddress,
    connections: Arc<AtomicUsize>,
    waiting: Arc<Notify>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), ServeError>>,
}

impl Node {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = NodeAddress::new("127.0.0.1", listener.local_addr().unwrap().port());
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let incoming = futures_util::stream::unfold(listener, |listener| async {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        let incoming = incoming.inspect(move |_: &io::Result<TcpStream>| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let waiting = Arc::new(Notify::new());
        let identity = NodeIdentity::new("ours", BrokerId(1));
        let controller = Controller { identity, waiting: Arc::clone(&waiting) };
        let service = PartitionControlServer::new(controller).max_decoding_message_size(REQUEST_BYTES_MAX);
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let config = ServerConfig { shutdown_grace: Duration::from_millis(50), ..ServerConfig::default() };
        let served = tokio::spawn(serve(Routes::new(service), Box::pin(incoming), shutdown, config));
        Self { address, connections, waiting, stop: Some(stop), served }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.served.await.unwrap().unwrap();
    }
}

fn caller(cluster_id: &str) -> Option<pb::Caller> {
    Some(pb::Caller { cluster_id: cluster_id.to_owned(), node_id: 2, ..pb::Caller::default() })
}

/// Asks for a block of producer ids; the answer has the epoch as its first id.
async fn ask(
    pool: &ChannelPool,
    address: &NodeAddress,
    lane: Lane,
    broker_epoch: i64,
    deadline: Deadline,
) -> Result<i64, RpcError> {
    use pb::allocate_producer_ids_response::Result::Block;
    let mut client = PartitionControlClient::new(pool.channel(address, lane).unwrap());
    let request = pb::AllocateProducerIdsRequest { caller: caller("ours"), broker_epoch };
    let answer = deadline.run(client.allocate_producer_ids(deadline.request(request))).await?;
    let Some(Block(block)) = answer.result else { panic!("{answer:?}") };
    Ok(block.first)
}

fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

#[tokio::test]
async fn each_lane_has_a_connection_of_its_own_and_keeps_it() {
    let node = Node::start().await;
    let pool = ChannelPool::default();
    for round in 0..3 {
        for lane in Lane::ALL {
            assert_eq!(ask(&pool, &node.address, lane, round, soon()).await.unwrap(), round);
        }
        assert_eq!(node.connections(), Lane::ALL.len());
    }
    pool.forget(&node.address, Lane::Control);
    ask(&pool, &node.address, Lane::Control, 1, soon()).await.unwrap();
    assert_eq!(node.connections(), Lane::ALL.len() + 1);
    pool.retain(|_| false);
    ask(&pool, &node.address, Lane::Raft, 1, soon()).await.unwrap();
    assert_eq!(node.connections(), Lane::ALL.len() + 2);
    node.stop().await;
}

#[tokio::test]
async fn a_call_that_is_not_answered_ends_at_its_deadline_and_delays_no_other() {
    let node = Node::start().await;
    let pool = ChannelPool::default();
    let deadline = Deadline::after(Duration::from_millis(50));
    let waiting = ask(&pool, &node.address, Lane::Control, NEVER, deadline);
    let (waited, other) = tokio::join!(waiting, ask(&pool, &node.address, Lane::Control, 7, soon()));
    assert_eq!(waited, Err(RpcError::TimedOut));
    assert_eq!(other, Ok(7));
    assert_eq!(node.connections(), 1);
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_accepts_and_says_nothing_is_given_up_at_the_deadline() {
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = NodeAddress::new("127.0.0.1", mute.local_addr().unwrap().port());
    let deadline = Deadline::after(Duration::from_millis(50));
    let outcome = ask(&ChannelPool::default(), &address, Lane::Control, 1, deadline).await;
    assert_eq!(outcome, Err(RpcError::TimedOut));
}

#[tokio::test]
async fn a_dead_node_is_noticed_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = NodeAddress::new("127.0.0.1", listener.local_addr().unwrap().port());
    drop(listener);
    let pool = ChannelPool::default();
    for _ in 0..3 {
        let outcome = ask(&pool, &address, Lane::Control, 1, soon()).await.unwrap_err();
        assert!(matches!(outcome, RpcError::Unreachable { .. }), "{outcome}");
        assert!(outcome.is_without_effect());
    }
}

#[tokio::test]
async fn the_death_of_a_node_ends_the_calls_that_it_has() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = NodeAddress::new("127.0.0.1", listener.local_addr().unwrap().port());
    let pool = ChannelPool::default();
    let call = {
        let (pool, address) = (pool.clone(), address.clone());
        tokio::spawn(async move { ask(&pool, &address, Lane::Control, 1, soon()).await })
    };
    let (mut connection, _) = listener.accept().await.unwrap();
    // The request has come as far as a living node would have read it.
    let mut preface = [0; 24];
    connection.read_exact(&mut preface).await.unwrap();
    drop((listener, connection));
    let outcome = call.await.unwrap().unwrap_err();
    assert!(matches!(outcome, RpcError::Lost { .. }), "{outcome:?}");
    assert!(!outcome.is_without_effect());
    let again = ask(&pool, &address, Lane::Control, 1, soon()).await.unwrap_err();
    assert!(matches!(again, RpcError::Unreachable { .. }), "{again:?}");
}

#[tokio::test]
async fn a_connection_that_is_closed_for_others_fault_does_not_look_like_a_refusal_of_the_call() {
    // RFC 9113, 6.8: the answering side's settings, then GOAWAY with ENHANCE_YOUR_CALM. Stream 1 may have been served.
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GO_AWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0xb];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = NodeAddress::new("127.0.0.1", listener.local_addr().unwrap().port());
    let pool = ChannelPool::default();
    let call = tokio::spawn(async move { ask(&pool, &address, Lane::Control, 1, soon()).await });
    let (mut connection, _) = listener.accept().await.unwrap();
    connection.write_all(&SETTINGS).await.unwrap();
    // The body of the request is its last frame, and ends with the caller's number.
    let mut read = Vec::new();
    while !read.windows(4).any(|bytes| bytes == b"ours") {
        connection.read_buf(&mut read).await.unwrap();
    }
    connection.write_all(&GO_AWAY).await.unwrap();
    drop(connection);
    let outcome = call.await.unwrap().unwrap_err();
    assert!(matches!(outcome, RpcError::Lost { .. }), "{outcome:?}");
    assert!(!outcome.is_without_effect());
}

#[tokio::test]
async fn a_node_that_comes_back_is_reached_over_the_same_channel() {
    let node = Node::start().await;
    let pool = ChannelPool::default();
    ask(&pool, &node.address, Lane::Control, 1, soon()).await.unwrap();
    let address = node.address.clone();
    node.stop().await;
    // The end of the connection may be noticed with the first call after it.
    while ask(&pool, &address, Lane::Control, 1, soon()).await.is_ok() {}
    let listener = TcpListener::bind((address.host.as_str(), address.port)).await.unwrap();
    let call = tokio::spawn(async move { ask(&pool, &address, Lane::Control, 1, soon()).await });
    assert!(listener.accept().await.is_ok());
    call.abort();
}

#[tokio::test]
async fn a_foreign_cluster_is_refused() {
    let node = Node::start().await;
    let channel = ChannelPool::default().channel(&node.address, Lane::Control).unwrap();
    let mut client = PartitionControlClient::new(channel);
    let request = pb::AlterPartitionRequest { caller: caller("theirs"), ..Default::default() };
    let refused = soon().run(client.alter_partition(request)).await.unwrap_err();
    assert!(matches!(refused, RpcError::ForeignCluster { .. }), "{refused:?}");
    let refused = soon().run(client.alter_partition(pb::AlterPartitionRequest::default())).await;
    assert!(matches!(refused, Err(RpcError::Invalid { .. })), "{refused:?}");
    node.stop().await;
}

#[tokio::test]
async fn messages_that_are_too_long_are_refused_and_harm_nobody_else() {
    let node = Node::start().await;
    let pool = ChannelPool::default();
    let mut client = PartitionControlClient::new(pool.channel(&node.address, Lane::Control).unwrap());
    let proposals =
        vec![pb::IsrProposal { topic_id: vec![0; REQUEST_BYTES_MAX].into(), ..Default::default() }];
    let request = pb::AlterPartitionRequest { caller: caller("ours"), proposals, ..Default::default() };
    let refused = soon().run(client.alter_partition(request)).await.unwrap_err();
    assert!(matches!(refused, RpcError::TooLong { .. }), "{refused:?}");
    assert_eq!(ask(&pool, &node.address, Lane::Control, 5, soon()).await, Ok(5));
    assert_eq!(node.connections(), 1);
    node.stop().await;
}

#[tokio::test]
async fn messages_and_calls_that_make_no_sense_are_refused() {
    let node = Node::start().await;
    let channel = ChannelPool::default().channel(&node.address, Lane::Control).unwrap();
    let call = async |method: &'static str| {
        let mut raw = tonic::client::Grpc::new(channel.clone());
        raw.ready().await.unwrap();
        // Its first field is a number where the request has a message.
        let refusal = pb::Refusal { code: pb::RefusalCode::InvalidRequest.into(), message: "x".repeat(100) };
        let codec: ProstCodec<pb::Refusal, pb::AlterPartitionResponse> = ProstCodec::default();
        let outcome = raw.unary(Request::new(refusal), PathAndQuery::from_static(method), codec).await;
        RpcError::from(outcome.unwrap_err())
    };
    let malformed = call("/klamm.controller.v1.PartitionControl/AlterPartition").await;
    assert!(matches!(malformed, RpcError::Failed { .. }), "{malformed:?}");
    for unknown in ["/klamm.controller.v1.PartitionControl/Nothing", "/klamm.nothing.v1.Nothing/Nothing"] {
        let unsupported = call(unknown).await;
        assert!(matches!(unsupported, RpcError::Unsupported { .. }), "{unsupported:?}");
    }
    node.stop().await;
}

/// What is logged on this thread, from its making to its end.
#[derive(Clone, Default)]
struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn collect(&self) -> tracing::subscriber::DefaultGuard {
        let lines = self.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || lines.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn of(&self, part: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn a_peer_that_calls_nonsense_is_told_to_the_operator_once_in_a_while() {
    let lines = Lines::default();
    let _collecting = lines.collect();
    let node = Node::start().await;
    let channel = ChannelPool::default().channel(&node.address, Lane::Control).unwrap();
    let mut client = PartitionControlClient::new(channel);
    let started = tokio::time::Instant::now();
    for _ in 0..20 {
        let nameless = pb::AlterPartitionRequest::default();
        assert!(soon().run(client.alter_partition(nameless)).await.is_err());
        let foreign = pb::AlterPartitionRequest { caller: caller("theirs"), ..Default::default() };
        assert!(soon().run(client.alter_partition(foreign)).await.is_err());
        let fine = pb::AlterPartitionRequest { caller: caller("ours"), ..Default::default() };
        assert!(soon().run(client.alter_partition(fine)).await.is_ok());
    }
    node.stop().await;
    let most = 1 + usize::try_from(started.elapsed().as_secs() / 10).unwrap();
    let (malformed, foreign) =
        (lines.of("a call makes no sense"), lines.of("a call from or for another node"));
    for told in [&malformed, &foreign] {
        assert!((1..=most).contains(&told.len()), "{:?}", lines.of(""));
    }
    let (malformed, foreign) = (&malformed[0], &foreign[0]);
    for part in ["peer=127.0.0.1:", "PartitionControl/AlterPartition", "the call names no caller"] {
        assert!(malformed.contains(part), "{malformed}");
    }
    assert!(foreign.contains("this is cluster ours, not") && foreign.contains("theirs"), "{foreign}");
}

#[tokio::test]
async fn bytes_that_are_no_http2_end_their_connection_alone() {
    let node = Node::start().await;
    let mut stranger = TcpStream::connect((node.address.host.as_str(), node.address.port)).await.unwrap();
    stranger.write_all(&[0xa5; 4096]).await.unwrap();
    let mut rest = Vec::new();
    // Closed or reset, but not left hanging.
    let _ = tokio::time::timeout(PATIENCE, stranger.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(ask(&ChannelPool::default(), &node.address, Lane::Control, 5, soon()).await, Ok(5));
    node.stop().await;
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_calls_without_end() {
    let node = Node::start().await;
    let pool = ChannelPool::default();
    let address = node.address.clone();
    ask(&pool, &address, Lane::Control, 1, soon()).await.unwrap();
    let waiting = tokio::spawn(async move { ask(&pool, &address, Lane::Control, NEVER, soon()).await });
    node.waiting.notified().await;
    tokio::time::timeout(PATIENCE, node.stop()).await.unwrap();
    let outcome = waiting.await.unwrap();
    assert!(outcome.is_err(), "{outcome:?}");
}
