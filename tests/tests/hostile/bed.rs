//! A node, a client that behaves, and connections for clients that do not.

use std::time::Duration;

use bytes::Bytes;
use klamm_client::NewTopic;
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use klamm_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use klamm_protocol::messages::{
    FetchRequest, FetchResponse, MetadataRequest, ProduceRequest, ProduceResponse,
};
use klamm_protocol::{
    ApiKey, ApiMessage, ApiRequest, Budget, ErrorCode, Reader, RequestHead, Uuid, Writer,
    decode_response_header,
};
use klamm_record::{BatchBuilder, Compression, NewRecord};
use klamm_tests::cluster::{Cluster, ClusterSpec, wait_for};
use klamm_types::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);
/// How much more memory the node may hold after all that was sent than before it.
const GROWTH_BYTES_MAX: u64 = 64 << 20;
/// The version by which the good client writes and reads, by the topic's name.
const VERSION: i16 = 12;

/// The node under fire.
pub(crate) struct Bed {
    cluster: Cluster,
    good: Client,
    good_offset: i64,
    memory_before: u64,
    findings: Vec<String>,
    /// The id of the topic "t".
    pub(crate) topic_id: Uuid,
}

impl Bed {
    /// A node with the topics "good", "t" and "compacted", of one partition each.
    pub(crate) async fn start() -> Self {
        let spec = ClusterSpec { nodes: 1, ..ClusterSpec::default() };
        let mut cluster = Cluster::start(&spec).await.unwrap();
        let admin = cluster.admin();
        let topic =
            |name| NewTopic { partitions: Some(1), replication_factor: Some(1), ..NewTopic::named(name) };
        let mut compacted = topic("compacted");
        compacted.configs.push(("cleanup.policy".to_owned(), "compact".to_owned()));
        for (name, result) in
            admin.create_topics(&[topic("good"), topic("t"), compacted], false).await.unwrap()
        {
            result.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let topic_id = admin.wait_for_leaders("t").await.unwrap().topic_id;
        admin.wait_for_leaders("good").await.unwrap();
        admin.wait_for_leaders("compacted").await.unwrap();
        let good = Client::connect(&cluster).await;
        let memory_before = memory(&mut cluster);
        let mut bed = Self { cluster, good, good_offset: 0, memory_before, findings: Vec::new(), topic_id };
        bed.assert_serves("nothing").await;
        bed
    }

    /// A connection for a client that does not behave.
    pub(crate) async fn connect(&self) -> Client {
        Client::connect(&self.cluster).await
    }

    /// Sends a body that is no good request of this kind; the connection must end without an answer.
    pub(crate) async fn refused(&mut self, row: &str, key: ApiKey, version: i16, body: &[u8]) {
        let mut client = self.connect().await;
        client.send_bytes(key, version, body).await;
        if client.frame().await.is_some() {
            self.findings.push(format!("{row}: was answered"));
        }
        self.assert_serves(row).await;
    }

    /// Sends a request that is well-formed and asks for what cannot be; gives the answer.
    pub(crate) async fn answered<R: ApiRequest>(
        &mut self,
        row: &str,
        version: i16,
        request: &R,
    ) -> R::Response {
        let mut client = self.connect().await;
        client.send(version, request).await;
        let answer = client.answer(version).await;
        self.assert_serves(row).await;
        answer
    }

    /// Notes where the codes of an answer are others than expected.
    pub(crate) fn expect(&mut self, row: &str, codes: &[i16], expected: ErrorCode) {
        let found: Vec<_> = codes.iter().map(|code| ErrorCode::from_code(*code)).collect();
        if found.is_empty() || found.iter().any(|code| *code != Some(expected)) {
            self.findings.push(format!("{row}: {found:?}, not {expected:?}"));
        }
    }

    /// Notes what is wrong.
    pub(crate) fn expect_that(&mut self, row: &str, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.findings.push(format!("{row}: {}", what()));
        }
    }

    /// The names of all topics, in order.
    pub(crate) async fn topics(&mut self) -> Vec<String> {
        let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
        self.good.send(VERSION, &request).await;
        let answer = self.good.answer::<<MetadataRequest as ApiRequest>::Response>(VERSION).await;
        let mut names: Vec<_> = answer.topics.into_iter().filter_map(|topic| topic.name).collect();
        names.sort();
        names
    }

    /// The node comes to hold nothing of what it was sent: what a thread of its blocking pool has freed goes back to the
    /// system when that thread ends, after ten seconds without work.
    async fn assert_memory(&mut self) {
        let (cluster, before) = (&mut self.cluster, self.memory_before);
        wait_for("all memory is given back", PATIENCE, async || {
            let grown = memory(cluster).saturating_sub(before);
            if grown <= GROWTH_BYTES_MAX { Ok(()) } else { Err(format!("{grown} bytes more than before")) }
        })
        .await
        .unwrap();
    }

    /// Stops the node in order and starts it again.
    pub(crate) async fn restart(&mut self) {
        self.assert_memory().await;
        self.cluster.node(1).terminate(PATIENCE).await.unwrap();
        self.cluster.node(1).restart().unwrap();
        self.cluster.wait_ready().await.unwrap();
        self.cluster.admin().wait_for_leaders("t").await.unwrap();
        self.cluster.admin().wait_for_leaders("good").await.unwrap();
        self.good = Client::connect(&self.cluster).await;
        self.assert_serves("a restart").await;
        self.memory_before = memory(&mut self.cluster);
    }

    /// The client that behaves writes a record and reads it.
    pub(crate) async fn assert_serves(&mut self, after: &str) {
        let written = batch(Some(b"k"), self.good_offset.to_string().as_bytes());
        self.good.send(VERSION, &produce("good", 0, written.clone())).await;
        let answer: ProduceResponse = self.good.answer(VERSION).await;
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, self.good_offset), "after {after}");
        self.good.send(VERSION, &fetch("good", 0, self.good_offset)).await;
        let answer: FetchResponse = self.good.answer(VERSION).await;
        let partition = &answer.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0, "after {after}");
        let read = partition.records.as_ref().unwrap().as_bytes().unwrap();
        // The broker sets the offset and the leader epoch; the checksum covers the rest.
        assert_eq!((read.len(), &read[16..]), (written.len(), &written[16..]), "after {after}");
        self.good_offset += 1;
    }

    /// Everything was as it had to be, and the node holds nothing of it.
    pub(crate) async fn finish(mut self) {
        assert!(self.findings.is_empty(), "{}", self.findings.join("\n"));
        self.assert_memory().await;
        let log = self.cluster.node(1).log_end(usize::MAX);
        assert!(!log.contains("panicked"), "{log}");
        self.cluster.node(1).terminate(PATIENCE).await.unwrap();
    }
}

/// The resident memory of the node, in bytes.
fn memory(cluster: &mut Cluster) -> u64 {
    let pid = cluster.node(1).pid().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap();
    kib << 10
}

/// A connection. Its requests are all numbered 7.
pub(crate) struct Client(TcpStream);

impl Client {
    async fn connect(cluster: &Cluster) -> Self {
        let at = cluster.endpoint(1);
        let socket = TcpStream::connect((at.host.as_str(), at.port)).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self(socket)
    }

    pub(crate) async fn send<R: ApiMessage>(&mut self, version: i16, request: &R) {
        let mut writer = Writer::new();
        request.encode_into(version, &mut writer).unwrap();
        let body = writer.finish().unwrap().into_bytes().unwrap();
        self.send_bytes(R::KEY, version, &body).await;
    }

    async fn send_bytes(&mut self, key: ApiKey, version: i16, body: &[u8]) {
        let mut writer = Writer::new();
        RequestHead { key, version, correlation_id: 7, client_id: None }.encode(&mut writer).unwrap();
        let head = writer.finish().unwrap().into_bytes().unwrap();
        let length = i32::try_from(head.len() + body.len()).unwrap();
        let frame = [&length.to_be_bytes()[..], &head, body].concat();
        // The rest of a long request may find the connection closed already.
        drop(self.0.write_all(&frame).await);
    }

    /// The next frame; none if the connection was closed.
    async fn frame(&mut self) -> Option<Bytes> {
        let read = async {
            let mut prefix = [0; 4];
            self.0.read_exact(&mut prefix).await.ok()?;
            let mut body = vec![0; usize::try_from(i32::from_be_bytes(prefix)).unwrap()];
            self.0.read_exact(&mut body).await.expect("a whole answer");
            Some(Bytes::from(body))
        };
        timeout(PATIENCE, read).await.expect("an answer or the end, in time")
    }

    pub(crate) async fn answer<R: ApiMessage>(&mut self, version: i16) -> R {
        let frame = self.frame().await.expect("an answer");
        let mut reader = Reader::shared(&frame, Budget::for_response(frame.len()));
        assert_eq!(decode_response_header(R::KEY, version, &mut reader).unwrap(), 7);
        R::decode_whole(version, reader).unwrap()
    }
}

/// A batch of one record.
pub(crate) fn batch(key: Option<&[u8]>, value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::NONE);
    builder.append(&NewRecord::new(Timestamp(1_700_000_000_000), key, Some(value))).unwrap();
    builder.build().unwrap().into()
}

/// A write of acks=all, by name.
pub(crate) fn produce(topic: &str, partition: i32, records: Bytes) -> ProduceRequest {
    let partition = PartitionProduceData { index: partition, records: Some(records.into()) };
    let topic = TopicProduceData {
        name: topic.to_owned(),
        partition_data: vec![partition],
        ..TopicProduceData::default()
    };
    ProduceRequest { acks: -1, timeout_ms: 10_000, topic_data: vec![topic], transactional_id: None }
}

/// A read that does not wait, by name.
pub(crate) fn fetch(topic: &str, partition: i32, fetch_offset: i64) -> FetchRequest {
    let partition = FetchPartition {
        partition,
        fetch_offset,
        partition_max_bytes: i32::MAX,
        ..FetchPartition::default()
    };
    let topic = FetchTopic { topic: topic.to_owned(), partitions: vec![partition], ..FetchTopic::default() };
    FetchRequest { max_wait_ms: 0, min_bytes: 0, topics: vec![topic], ..FetchRequest::default() }
}
