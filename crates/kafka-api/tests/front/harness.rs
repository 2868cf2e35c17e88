//! A front on a free port, and clients on raw sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use klamm_kafka_api::{Drained, Front, FrontConfig, FrontCounts, Listener, RunningListener};
use klamm_protocol::messages::metadata_request::MetadataRequestTopic;
use klamm_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, MetadataResponse, ProduceRequest,
};
use klamm_protocol::{ApiKey, ApiMessage, Budget, Reader, RequestHead, Writer, decode_response_header};
use tokio::runtime::Runtime;

use crate::handlers::{Stage, table};

/// More than enough for anything that should happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "never came true: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Settings for tests: requests of up to 1 MiB, as little memory as that allows, and no reaping in the time of a test.
pub(crate) fn config() -> FrontConfig {
    let config = FrontConfig { request_bytes_max: 1 << 20, ..FrontConfig::default() };
    FrontConfig { queued_request_bytes_max: config.queued_request_bytes_min(), ..config }
}

/// A front with one listener.
pub(crate) struct TestFront {
    pub(crate) stage: Stage,
    pub(crate) front: Arc<Front>,
    pub(crate) address: SocketAddr,
    running: Option<RunningListener>,
    runtime: Runtime,
}

impl TestFront {
    pub(crate) fn start(config: FrontConfig) -> Self {
        Self::start_as(config, |listener| listener)
    }

    /// With a listener that `change` has changed.
    pub(crate) fn start_as(config: FrontConfig, change: impl FnOnce(Listener) -> Listener) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let stage = Stage::new();
        let front = Front::new(config, table(&stage)).unwrap();
        let listener = {
            let _entered = runtime.enter();
            change(Listener::bind(front.clone(), "127.0.0.1:0".parse().unwrap()).unwrap())
        };
        let address = listener.address();
        let running = Some(listener.start(runtime.handle()));
        Self { stage, front, address, running, runtime }
    }

    pub(crate) fn counts(&self) -> FrontCounts {
        self.front.counts()
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// A good question on a connection of its own is answered.
    #[track_caller]
    pub(crate) fn assert_serves(&self) {
        let mut client = self.connect();
        client.send(&api_versions(4, 99));
        let answer = client.answer::<ApiVersionsResponse>(4, 99);
        assert_eq!((answer.error_code, answer.api_keys.len()), (0, 3));
    }

    /// All that connections held has come back.
    pub(crate) fn assert_nothing_left(&self) {
        eventually("every connection ended", || {
            let counts = self.counts();
            counts.connections_opened == counts.connections_closed
        });
        eventually("all memory is back", || self.front.memory().used == 0);
    }

    pub(crate) fn shutdown(&mut self) -> Drained {
        let running = self.running.take().unwrap();
        self.runtime.block_on(running.shutdown())
    }

    /// Begins the shutdown on another thread.
    pub(crate) fn shutdown_aside(&mut self) -> thread::JoinHandle<Drained> {
        let running = self.running.take().unwrap();
        let handle = self.runtime.handle().clone();
        thread::spawn(move || handle.block_on(running.shutdown()))
    }
}

/// A client that sends what it is told.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends what the other side takes before it closes.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub(crate) fn end_of_input(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// The next frame, `None` if the connection was closed instead.
    pub(crate) fn frame(&mut self) -> Option<Bytes> {
        let mut prefix = [0; 4];
        if !self.read_or_closed(&mut prefix) {
            return None;
        }
        let mut body = vec![0; u32::from_be_bytes(prefix) as usize];
        assert!(self.read_or_closed(&mut body), "closed within an answer");
        Some(body.into())
    }

    fn read_or_closed(&mut self, buffer: &mut [u8]) -> bool {
        match self.stream.read_exact(buffer) {
            Ok(()) => true,
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                false
            }
            Err(error) => panic!("no answer and no end: {error}"),
        }
    }

    #[track_caller]
    pub(crate) fn assert_closed(&mut self) {
        assert_eq!(self.frame(), None, "an answer where the end was expected");
    }

    /// The next answer, which must have this correlation id.
    #[track_caller]
    pub(crate) fn answer<R: ApiMessage>(&mut self, version: i16, correlation_id: i32) -> R {
        let frame = self.frame().expect("an answer");
        let mut reader = Reader::shared(&frame, Budget::for_response(frame.len()));
        assert_eq!(decode_response_header(R::KEY, version, &mut reader).unwrap(), correlation_id);
        R::decode_whole(version, reader).unwrap()
    }

    /// The next answer of the scripted handler: its request's name.
    #[track_caller]
    pub(crate) fn scripted_answer(&mut self, correlation_id: i32) -> String {
        self.answer::<MetadataResponse>(SCRIPT_VERSION, correlation_id).cluster_id.unwrap_or_default()
    }
}

/// Puts the length in front.
pub(crate) fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = i32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

/// A request with its length.
pub(crate) fn request<R: ApiMessage>(version: i16, correlation_id: i32, body: &R) -> Vec<u8> {
    let mut writer = Writer::framed();
    let client_id = Some("tests".to_owned());
    RequestHead { key: R::KEY, version, correlation_id, client_id }.encode(&mut writer).unwrap();
    body.encode_into(version, &mut writer).unwrap();
    writer.finish().unwrap().into_bytes().unwrap().to_vec()
}

pub(crate) fn api_versions(version: i16, correlation_id: i32) -> Vec<u8> {
    let body = ApiVersionsRequest {
        client_software_name: "raw-socket".to_owned(),
        client_software_version: "1.0".to_owned(),
    };
    request(version, correlation_id, &body)
}

const SCRIPT_VERSION: i16 = 12;

/// A request of the scripted handler.
pub(crate) fn script(name: &str, correlation_id: i32) -> Vec<u8> {
    let topic = MetadataRequestTopic { name: Some(name.to_owned()), ..MetadataRequestTopic::default() };
    let body = MetadataRequest { topics: Some(vec![topic]), ..MetadataRequest::default() };
    request(SCRIPT_VERSION, correlation_id, &body)
}

/// A Produce request with a payload of `len` bytes that waits for `gate`, if there is one.
pub(crate) fn produce(acks: i16, gate: Option<&str>, len: usize) -> Vec<u8> {
    use klamm_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    let records = (len > 0).then(|| Bytes::from(vec![7; len]).into());
    let partition = PartitionProduceData { index: 0, records };
    let topic = TopicProduceData {
        name: "t".to_owned(),
        partition_data: vec![partition],
        ..TopicProduceData::default()
    };
    let body = ProduceRequest {
        transactional_id: gate.map(str::to_owned),
        acks,
        timeout_ms: 1_000,
        topic_data: vec![topic],
    };
    request(9, 5, &body)
}

/// A header of version 1 by hand, without a length.
pub(crate) fn header(code: i16, version: i16, correlation_id: i32, client_id: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = [code.to_be_bytes(), version.to_be_bytes()].concat();
    bytes.extend_from_slice(&correlation_id.to_be_bytes());
    let len = client_id.map_or(-1, |id| i16::try_from(id.len()).unwrap());
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(client_id.unwrap_or_default());
    bytes
}

/// The number of the API.
pub(crate) fn code(key: ApiKey) -> i16 {
    key.code()
}
