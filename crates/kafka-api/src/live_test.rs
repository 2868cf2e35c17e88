//! The handlers that touch records behind a real listener: what clients see on a socket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use klamm_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use klamm_protocol::messages::{FetchRequest, FetchResponse, ProduceRequest, ProduceResponse};
use klamm_protocol::{
    ApiKey, ApiMessage, Budget, ErrorCode, Reader, RequestHead, Writer, decode_response_header,
};
use klamm_record::{BatchBuilder, Batches, Compression};
use klamm_types::{Offset, ProducerEpoch, ProducerId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::data_bed::{DataBed, append, batch, wall};
use crate::data_rows::DataParts;
use crate::malformed::{bombs, malformed_batches};
use crate::{
    ApiTable, BoxFuture, FeatureSource, Features, Front, FrontConfig, Listener, ProducerIdSource,
    RunningListener,
};

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Nothing;

impl FeatureSource for Nothing {
    fn features(&self) -> Features {
        Features { supported: Vec::new(), finalized: Vec::new(), finalized_epoch: -1 }
    }
}

impl ProducerIdSource for Nothing {
    fn next(self: Arc<Self>) -> BoxFuture<Option<ProducerId>> {
        Box::pin(async { None })
    }
}

/// A broker that listens.
struct Live {
    bed: DataBed,
    front: Arc<Front>,
    listener: RunningListener,
}

impl Live {
    async fn start() -> Self {
        let bed = DataBed::new().await;
        let parts = DataParts { plane: bed.plane.clone(), producer_ids: Arc::new(Nothing) };
        let table = parts.add_rows(ApiTable::builder()).build(Arc::new(Nothing)).unwrap();
        let front = Front::new(FrontConfig::default(), table).unwrap();
        let listener = Listener::bind(front.clone(), "127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listener.start(&Handle::current());
        Self { bed, front, listener }
    }

    async fn connect(&self) -> Client {
        let socket = TcpStream::connect(self.listener.address()).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Client { socket }
    }

    /// Waits until so many connections have ended, and all memory for requests has been given back.
    async fn wait_until_nothing_is_held(&self, connections: u64) {
        let end = tokio::time::Instant::now() + PATIENCE;
        while self.front.counts().connections_closed < connections || self.front.memory().used > 0 {
            assert!(tokio::time::Instant::now() < end, "{:?}", self.front.counts());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A client that numbers every request 7.
struct Client {
    socket: TcpStream,
}

impl Client {
    async fn send<R: ApiMessage>(&mut self, version: i16, body: &R) {
        let mut writer = Writer::framed();
        let head = RequestHead { key: R::KEY, version, correlation_id: 7, client_id: None };
        head.encode(&mut writer).unwrap();
        body.encode_into(version, &mut writer).unwrap();
        let bytes = writer.finish().unwrap().into_bytes().unwrap();
        self.socket.write_all(&bytes).await.unwrap();
    }

    /// The next frame, `None` if the connection was closed.
    async fn frame(&mut self) -> Option<Bytes> {
        let read = async {
            let mut prefix = [0; 4];
            self.socket.read_exact(&mut prefix).await.ok()?;
            let mut body = vec![0; u32::from_be_bytes(prefix) as usize];
            self.socket.read_exact(&mut body).await.expect("a whole answer");
            Some(Bytes::from(body))
        };
        timeout(PATIENCE, read).await.expect("an answer in time")
    }

    async fn answer<R: ApiMessage>(&mut self, version: i16) -> R {
        let frame = self.frame().await.expect("an answer");
        let mut reader = Reader::shared(&frame, Budget::for_response(frame.len()));
        assert_eq!(decode_response_header(R::KEY, version, &mut reader).unwrap(), 7);
        R::decode_whole(version, reader).unwrap()
    }
}

fn produce(acks: i16, records: Bytes) -> ProduceRequest {
    let partition = PartitionProduceData { index: 0, records: Some(records.into()) };
    let topic = TopicProduceData {
        name: "t".to_owned(),
        partition_data: vec![partition],
        ..TopicProduceData::default()
    };
    ProduceRequest { acks, timeout_ms: 10_000, topic_data: vec![topic], transactional_id: None }
}

fn fetch(fetch_offset: i64) -> FetchRequest {
    let partition =
        FetchPartition { fetch_offset, partition_max_bytes: i32::MAX, ..FetchPartition::default() };
    let topic = FetchTopic { topic: "t".to_owned(), partitions: vec![partition], ..FetchTopic::default() };
    FetchRequest { max_wait_ms: 10_000, min_bytes: 1, topics: vec![topic], ..FetchRequest::default() }
}

fn records(response: &FetchResponse) -> &Bytes {
    let data = &response.responses[0].partitions[0];
    assert_eq!(data.error_code, 0);
    data.records.as_ref().unwrap().as_bytes().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_batches_harm_nobody() {
    let live = Live::start().await;
    let (mut bad, mut good) = (live.connect().await, live.connect().await);
    for (name, records, expected) in malformed_batches() {
        bad.send(11, &produce(-1, records)).await;
        let answer: ProduceResponse = bad.answer(11).await;
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!(ErrorCode::from_code(answer.error_code), Some(expected), "{name}");
        good.send(11, &produce(-1, batch(&["a"]))).await;
        let answer: ProduceResponse = good.answer(11).await;
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0, "after {name}");
    }
    let kept = i64::try_from(malformed_batches().len()).unwrap();
    assert_eq!(live.bed.partition(0).bounds().log_end_offset, Offset(kept));
    assert_eq!(live.front.counts().closed_refused, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_harm_nobody() {
    let live = Live::start().await;
    let (mut bad, mut good) = (live.connect().await, live.connect().await);
    let bombs = bombs();
    for (name, records, expected) in bombs {
        bad.send(11, &produce(-1, records)).await;
        // Others do not wait for it.
        good.send(11, &produce(-1, batch(&["a"]))).await;
        let answer: ProduceResponse = good.answer(11).await;
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0, "during {name}");
        let answer: ProduceResponse = bad.answer(11).await;
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!(ErrorCode::from_code(answer.error_code), Some(expected), "{name}");
        let message = answer.error_message.as_deref().unwrap();
        assert!(message.contains("decompresses to more than 1073741824 bytes"), "{message}");
    }
    assert_eq!(live.bed.partition(0).bounds().log_end_offset, Offset(4));
    drop((bad, good));
    live.wait_until_nothing_is_held(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sequences_go_on_at_zero_past_their_end() {
    let live = Live::start().await;
    let mut client = live.connect().await;
    let mut produced = async |sequence| {
        let builder = BatchBuilder::new(Compression::NONE);
        let mut builder = builder.producer(ProducerId(4000), ProducerEpoch(0), sequence);
        append(&mut builder, wall(), &["a", "b", "c", "d"]);
        client.send(11, &produce(-1, builder.build().unwrap().into())).await;
        let answer: ProduceResponse = client.answer(11).await;
        let answer = &answer.responses[0].partition_responses[0];
        (ErrorCode::from_code(answer.error_code).unwrap(), answer.base_offset)
    };
    let wraps = i32::MAX - 1;
    assert_eq!(produced(wraps).await, (ErrorCode::None, 0), "2^31 - 2, 2^31 - 1, 0, 1");
    for wrong in [0, 1, 3, i32::MAX] {
        assert_eq!(produced(wrong).await, (ErrorCode::OutOfOrderSequenceNumber, -1), "{wrong}");
    }
    assert_eq!(produced(2).await, (ErrorCode::None, 4));
    assert_eq!(produced(wraps).await, (ErrorCode::None, 0), "sent again");
    assert_eq!(produced(2).await, (ErrorCode::None, 4), "sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_batches_keep_their_order_whether_or_not_they_take_long() {
    let live = Live::start().await;
    let mut client = live.connect().await;
    let long = "again and again ".repeat(20_000);
    let codecs = [klamm_record::Codec::None, klamm_record::Codec::Gzip, klamm_record::Codec::Zstd];
    for i in 0..12 {
        let records = if i % 2 == 0 {
            crate::data_bed::compressed(codecs[i / 2 % 3], &[long.as_str()])
        } else {
            batch(&["short"])
        };
        client.send(9, &produce([-1, 1, 0][i % 3], records)).await;
    }
    client.send(9, &produce(1, batch(&["last"]))).await;
    let mut offsets = Vec::new();
    for _ in 0..9 {
        let answer: ProduceResponse = client.answer(9).await;
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, 0);
        offsets.push(answer.base_offset);
    }
    assert_eq!(offsets, [0, 1, 3, 4, 6, 7, 9, 10, 12]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_patience_waits_for_the_only_replica() {
    let live = Live::start().await;
    let mut client = live.connect().await;
    for (timeout_ms, offset) in [(0, 0), (-1, 1), (i32::MIN, 2)] {
        client.send(11, &ProduceRequest { timeout_ms, ..produce(-1, batch(&["a"])) }).await;
        let answer: ProduceResponse = client.answer(11).await;
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!((answer.error_code, answer.base_offset), (0, offset), "{timeout_ms}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_without_acks_closes_the_connection() {
    let live = Live::start().await;
    let mut client = live.connect().await;
    client.send(9, &produce(0, Bytes::from_static(b"nonsense"))).await;
    assert_eq!(client.frame().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_come_from_the_file_as_they_were_appended() {
    let live = Live::start().await;
    let mut client = live.connect().await;
    // More than the socket takes at once, and more than is read from a file at once.
    let value = "0123456789abcdef".repeat(50_000);
    let count = 12;
    for _ in 0..count {
        client.send(9, &produce(1, batch(&[&value]))).await;
        client.answer::<ProduceResponse>(9).await;
    }
    client.send(9, &produce(-1, batch(&["end"]))).await;
    client.answer::<ProduceResponse>(9).await;
    for version in [4, 11, 12] {
        client.send(version, &fetch(0)).await;
        let response: FetchResponse = client.answer(version).await;
        let read: Vec<_> = Batches::new(records(&response)).map(Result::unwrap).collect();
        assert_eq!(read.len(), count + 1);
        for (i, batch) in read.iter().enumerate() {
            batch.verify_crc().unwrap();
            assert_eq!(batch.base_offset(), Offset(i64::try_from(i).unwrap()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_holds_no_records_in_memory() {
    let live = Live::start().await;
    let mut client = live.connect().await;
    let value = "x".repeat(900_000);
    for _ in 0..20 {
        client.send(9, &produce(-1, batch(&[&value]))).await;
        client.answer::<ProduceResponse>(9).await;
    }
    let slow = live.connect().await;
    let mut slow = Client { socket: slow.socket };
    slow.send(12, &fetch(0)).await;
    // The answer is on its way, and stuck; others are served.
    slow.socket.readable().await.unwrap();
    client.send(12, &fetch(0)).await;
    assert!(records(&client.answer(12).await).len() > 18_000_000);
    let response: FetchResponse = slow.answer(12).await;
    assert!(Batches::new(records(&response)).all(|batch| batch.unwrap().verify_crc().is_ok()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_request_leaves_no_large_buffer() {
    let live = Live::start().await;
    let mut client = live.connect().await;
    for size in [100_000, 10_000_000] {
        client.send(9, &produce(1, vec![0; size].into())).await;
        let answer: ProduceResponse = client.answer(9).await;
        assert_ne!(answer.responses[0].partition_responses[0].error_code, 0, "no batch");
        let held = live.front.memory().used;
        assert!(held <= 2 << 20, "{held} bytes are held for a client that is owed nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_fetch_is_woken_by_another_connection() {
    let live = Live::start().await;
    let (mut reader, mut writer) = (live.connect().await, live.connect().await);
    reader.send(12, &fetch(0)).await;
    writer.send(9, &produce(-1, batch(&["a"]))).await;
    writer.answer::<ProduceResponse>(9).await;
    let response: FetchResponse = reader.answer(12).await;
    assert_eq!(Batches::new(records(&response)).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_nothing_behind() {
    let live = Live::start().await;
    for _ in 0..10 {
        let mut client = live.connect().await;
        // What a client that closes its side has asked for is answered first.
        client.send(12, &FetchRequest { max_wait_ms: 200, ..fetch(0) }).await;
        drop(client);
    }
    live.wait_until_nothing_is_held(10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_counted_by_version() {
    let live = Live::start().await;
    let mut client = live.connect().await;
    for (version, acks) in [(9, -1), (9, 0), (11, 1)] {
        client.send(version, &produce(acks, batch(&["a"]))).await;
        if acks != 0 {
            client.answer::<ProduceResponse>(version).await;
        }
    }
    client.send(12, &fetch(0)).await;
    client.answer::<FetchResponse>(12).await;
    // A version that no handler takes is told so, and one that ends the connection is not answered.
    client.socket.write_all(&[0, 0, 0, 10, 0, 18, 0, 99, 0, 0, 0, 7, 0, 0]).await.unwrap();
    client.frame().await.expect("what is served");
    client.send(9, &produce(0, Bytes::from_static(b"nonsense"))).await;
    assert_eq!(client.frame().await, None);
    let answered: Vec<_> = live.front.answered().collect();
    assert_eq!(answered, [(ApiKey::Produce, 9, 2), (ApiKey::Produce, 11, 1), (ApiKey::Fetch, 12, 1)]);
}
