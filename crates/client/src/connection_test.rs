#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use klamm_protocol::messages::{ListOffsetsRequest, MetadataRequest, MetadataResponse};
use klamm_protocol::{Request, encode_response_header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// A broker whose every answer the test writes.
struct Peer {
    stream: TcpStream,
}

impl Peer {
    async fn read(&mut self) -> (RequestHead, Request) {
        let len = self.stream.read_u32().await.unwrap();
        let mut frame = vec![0; len as usize];
        self.stream.read_exact(&mut frame).await.unwrap();
        let frame = Bytes::from(frame);
        let mut reader = Reader::shared(&frame, Budget::for_request(frame.len()));
        let head = RequestHead::decode(&mut reader).unwrap();
        let request = Request::decode(head.key, head.version, reader).unwrap();
        (head, request)
    }

    async fn answer<A: ApiMessage>(&mut self, head: &RequestHead, version: i16, answer: &A) {
        let mut writer = Writer::framed();
        encode_response_header(head.key, version, head.correlation_id, &mut writer).unwrap();
        answer.encode_into(version, &mut writer).unwrap();
        let bytes = writer.finish().unwrap().into_bytes().unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// Says that it serves Metadata up to version 9, and itself.
    async fn negotiate(&mut self) {
        let (head, _) = self.read().await;
        self.answer(&head, head.version, &served()).await;
    }
}

fn served() -> ApiVersionsResponse {
    let row = |key: ApiKey, max_version| ApiVersion { api_key: key.code(), min_version: 0, max_version };
    // 999 stands for an API that we do not know.
    let unknown = ApiVersion { api_key: 999, min_version: 0, max_version: 1 };
    let api_keys = vec![unknown, row(ApiKey::ApiVersions, 4), row(ApiKey::Metadata, 9)];
    ApiVersionsResponse { api_keys, ..ApiVersionsResponse::default() }
}

fn quick() -> ClientOptions {
    ClientOptions {
        connect_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_millis(200),
        in_flight_max: 4,
        ..ClientOptions::default()
    }
}

async fn pair() -> (Connection, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string().parse().unwrap();
    let options = quick();
    let (connection, peer) = tokio::join!(Connection::open(endpoint, &options), async {
        let mut peer = Peer { stream: listener.accept().await.unwrap().0 };
        peer.negotiate().await;
        peer
    });
    (connection.unwrap(), peer)
}

fn named(cluster_id: &str) -> MetadataResponse {
    MetadataResponse { cluster_id: Some(cluster_id.to_owned()), ..MetadataResponse::default() }
}

#[tokio::test]
async fn the_newest_shared_version_is_spoken() {
    let (connection, mut peer) = pair().await;
    let request = MetadataRequest::default();
    let (answer, ()) = tokio::join!(connection.call(&request), async {
        let (head, _) = peer.read().await;
        assert_eq!((head.version, head.client_id.as_deref()), (9, Some("klamm")));
        peer.answer(&head, 9, &named("one")).await;
    });
    assert_eq!(answer.unwrap().cluster_id.as_deref(), Some("one"));
}

#[tokio::test]
async fn an_api_that_is_not_served_is_refused_here() {
    let (connection, _peer) = pair().await;
    let refused = connection.call(&ListOffsetsRequest::default()).await;
    assert!(matches!(refused, Err(ClientError::Unsupported { api: ApiKey::ListOffsets, .. })));
}

#[tokio::test]
async fn a_broker_that_knows_only_old_versions_is_asked_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string().parse().unwrap();
    let options = quick();
    let (connection, ()) = tokio::join!(Connection::open(endpoint, &options), async {
        let mut peer = Peer { stream: listener.accept().await.unwrap().0 };
        let (head, _) = peer.read().await;
        assert_eq!(head.version, ApiKey::ApiVersions.versions().max());
        let mut refusal = served();
        refusal.error_code = ErrorCode::UnsupportedVersion.code();
        refusal.api_keys.retain(|row| row.api_key == ApiKey::ApiVersions.code());
        refusal.api_keys.iter_mut().for_each(|row| row.max_version = 2);
        peer.answer(&head, 0, &refusal).await;
        let (head, _) = peer.read().await;
        assert_eq!(head.version, 2);
        peer.answer(&head, 2, &served()).await;
    });
    assert_eq!(connection.unwrap().versions(ApiKey::Metadata), Some(VersionRange::new(0, 9)));
}

#[tokio::test]
async fn requests_are_pipelined_and_answered_in_order() {
    let (connection, mut peer) = pair().await;
    let request = MetadataRequest::default();
    let limit = Duration::from_secs(10);
    let mut pending = Vec::new();
    for _ in 0..4 {
        pending.push(connection.start(&request, 9, limit).await.unwrap());
    }
    let mut heads = Vec::new();
    for _ in 0..4 {
        heads.push(peer.read().await.0);
    }
    for head in &heads {
        peer.answer(head, 9, &named(&head.correlation_id.to_string())).await;
    }
    for (pending, head) in pending.into_iter().zip(heads) {
        let answer = pending.wait().await.unwrap();
        assert_eq!(answer.cluster_id, Some(head.correlation_id.to_string()));
    }
}

#[tokio::test]
async fn an_overdue_answer_ends_the_connection() {
    let (connection, mut peer) = pair().await;
    let error = connection.call(&MetadataRequest::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { api: ApiKey::Metadata, .. }), "{error}");
    let (head, _) = peer.read().await;
    assert_eq!(head.key, ApiKey::Metadata);
    // The peer sees the end, not another request.
    assert_eq!(peer.stream.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(connection.is_closed());
    let error = connection.call(&MetadataRequest::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::Disconnected { .. }), "{error}");
}

#[tokio::test]
async fn an_answer_to_something_else_ends_the_connection() {
    let (connection, mut peer) = pair().await;
    let request = MetadataRequest::default();
    let (answer, ()) = tokio::join!(connection.call(&request), async {
        let (mut head, _) = peer.read().await;
        head.correlation_id += 1;
        peer.answer(&head, 9, &named("one")).await;
    });
    assert!(matches!(answer, Err(ClientError::Mismatch { api: ApiKey::Metadata, .. })));
}

#[tokio::test]
async fn everything_under_way_fails_when_the_peer_goes() {
    let (connection, mut peer) = pair().await;
    let request = MetadataRequest::default();
    let limit = Duration::from_secs(10);
    let first = connection.start(&request, 9, limit).await.unwrap();
    let second = connection.start(&request, 9, limit).await.unwrap();
    peer.read().await;
    drop(peer);
    for pending in [first, second] {
        let error = pending.wait().await.unwrap_err();
        assert!(matches!(error, ClientError::Disconnected { .. }), "{error}");
        assert!(error.is_retryable());
    }
}

#[tokio::test]
async fn an_answer_still_comes_when_the_connection_was_let_go() {
    let (connection, mut peer) = pair().await;
    let pending = connection.start(&MetadataRequest::default(), 9, Duration::from_secs(10)).await.unwrap();
    drop(connection);
    let (head, _) = peer.read().await;
    peer.answer(&head, 9, &named("late")).await;
    assert_eq!(pending.wait().await.unwrap().cluster_id.as_deref(), Some("late"));
}

#[tokio::test]
async fn a_frame_of_impossible_length_ends_the_connection() {
    let (connection, mut peer) = pair().await;
    let request = MetadataRequest::default();
    let (answer, ()) = tokio::join!(connection.call(&request), async {
        peer.read().await;
        peer.stream.write_all(&i32::MAX.to_be_bytes()).await.unwrap();
    });
    assert!(matches!(answer, Err(ClientError::Frame { .. })));
}
