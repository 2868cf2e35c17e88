//! A broker of one partition that does wrong when the test says so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use klamm_client::{ClientOptions, Cluster, Endpoint};
use klamm_protocol::messages::api_versions_response::ApiVersion;
use klamm_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use klamm_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use klamm_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use klamm_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use klamm_protocol::messages::{
    ApiVersionsResponse, FetchResponse, InitProducerIdResponse, ListOffsetsResponse, MetadataResponse,
    ProduceResponse,
};
use klamm_protocol::{
    ApiKey, Budget, ErrorCode, Reader, Records, Request, RequestHead, Response, Uuid, Writer,
    encode_response_header,
};
use klamm_record::{RecordBatch, RecordBatchMut};
use klamm_types::{LeaderEpoch, Offset, PartitionId, TopicName, TopicPartition};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const SERVED: [(ApiKey, i16); 6] = [
    (ApiKey::Produce, 13),
    (ApiKey::Fetch, 17),
    (ApiKey::ListOffsets, 9),
    (ApiKey::Metadata, 12),
    (ApiKey::ApiVersions, 4),
    (ApiKey::InitProducerId, 4),
];
const TOPIC_ID: Uuid = Uuid([7; 16]);

/// What is done with one Produce request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing is wrong.
    None,
    /// The connection ends before the batch is written.
    HangUpBefore,
    /// The batch is written, but the connection ends instead of an answer.
    HangUpAfter,
    /// The batch is not written.
    Refuse(ErrorCode),
    /// The batch is written, and an error is told.
    WriteAndRefuse(ErrorCode),
}

#[derive(Debug, Default)]
struct State {
    log: Vec<Bytes>,
    end: i64,
    /// What comes next, request by request; nothing wrong when it is used up.
    faults: VecDeque<Fault>,
    /// The batches of each producer, as a broker remembers them: id, first and last sequence, base offset.
    remembered: VecDeque<(i64, i32, i32, i64)>,
    next_producer_id: i64,
    /// How many Produce requests came.
    produced: usize,
}

#[derive(Clone)]
pub(crate) struct Broker {
    state: Arc<Mutex<State>>,
    endpoint: Endpoint,
}

pub(crate) fn partition() -> TopicPartition {
    TopicPartition::new(TopicName::new("orders").unwrap(), PartitionId(0))
}

impl Broker {
    pub(crate) async fn start(faults: &[Fault]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint: Endpoint = listener.local_addr().unwrap().to_string().parse().unwrap();
        let state = State { faults: faults.iter().copied().collect(), ..State::default() };
        let broker = Self { state: Arc::new(Mutex::new(state)), endpoint };
        let serving = broker.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        broker
    }

    pub(crate) fn cluster(&self) -> Cluster {
        let options = ClientOptions {
            retry_backoff: std::time::Duration::from_millis(1),
            retry_backoff_max: std::time::Duration::from_millis(5),
            ..ClientOptions::default()
        };
        Cluster::new(vec![self.endpoint.clone()], options)
    }

    pub(crate) fn requests(&self) -> usize {
        self.state.lock().unwrap().produced
    }

    async fn serve(self, mut stream: TcpStream) {
        loop {
            let Ok(len) = stream.read_u32().await else { return };
            let mut frame = vec![0; len as usize];
            if stream.read_exact(&mut frame).await.is_err() {
                return;
            }
            let frame = Bytes::from(frame);
            let mut reader = Reader::shared(&frame, Budget::for_request(frame.len()));
            let head = RequestHead::decode(&mut reader).unwrap();
            let request = Request::decode(head.key, head.version, reader).unwrap();
            let Some(answer) = self.answer(request) else { return };
            let mut writer = Writer::framed();
            encode_response_header(head.key, head.version, head.correlation_id, &mut writer).unwrap();
            answer.encode(head.version, &mut writer).unwrap();
            let bytes = writer.finish().unwrap().into_bytes().unwrap();
            if stream.write_all(&bytes).await.is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: Request) -> Option<Response> {
        let mut state = self.state.lock().unwrap();
        match request {
            Request::ApiVersions(_) => {
                let row = |(key, max_version): (ApiKey, i16)| ApiVersion {
                    api_key: key.code(),
                    min_version: key.versions().min(),
                    max_version,
                };
                let api_keys = SERVED.into_iter().map(row).collect();
                Some(ApiVersionsResponse { api_keys, ..ApiVersionsResponse::default() }.into())
            }
            Request::Metadata(_) => Some(self.metadata().into()),
            Request::InitProducerId(request) => {
                assert_eq!(request.transactional_id, None);
                state.next_producer_id += 1;
                let producer_id = state.next_producer_id;
                Some(InitProducerIdResponse { producer_id, ..InitProducerIdResponse::default() }.into())
            }
            Request::Produce(mut request) => {
                let batch = request.topic_data.remove(0).partition_data.remove(0).records.unwrap();
                let partition = state.produce(batch.as_bytes().unwrap())?;
                let topic = TopicProduceResponse {
                    topic_id: TOPIC_ID,
                    partition_responses: vec![partition],
                    ..TopicProduceResponse::default()
                };
                Some(ProduceResponse { responses: vec![topic], ..ProduceResponse::default() }.into())
            }
            Request::ListOffsets(request) => {
                let asked = &request.topics[0].partitions[0];
                let offset = if asked.timestamp == -1 { state.end } else { 0 };
                let partition = ListOffsetsPartitionResponse { offset, ..Default::default() };
                let topic =
                    ListOffsetsTopicResponse { name: "orders".to_owned(), partitions: vec![partition] };
                Some(ListOffsetsResponse { topics: vec![topic], ..Default::default() }.into())
            }
            Request::Fetch(request) => Some(state.fetch(request.topics[0].partitions[0].fetch_offset).into()),
            other => panic!("not served: {other:?}"),
        }
    }

    fn metadata(&self) -> MetadataResponse {
        let partition = MetadataResponsePartition { leader_id: 1, ..MetadataResponsePartition::default() };
        let topic = MetadataResponseTopic {
            name: Some("orders".to_owned()),
            topic_id: TOPIC_ID,
            partitions: vec![partition],
            ..MetadataResponseTopic::default()
        };
        let broker = MetadataResponseBroker {
            node_id: 1,
            host: self.endpoint.host.clone(),
            port: i32::from(self.endpoint.port),
            rack: None,
        };
        MetadataResponse { brokers: vec![broker], topics: vec![topic], ..MetadataResponse::default() }
    }
}

impl State {
    fn produce(&mut self, bytes: &Bytes) -> Option<PartitionProduceResponse> {
        self.produced += 1;
        let fault = self.faults.pop_front().unwrap_or(Fault::None);
        let refuse = |code: ErrorCode| {
            Some(PartitionProduceResponse { error_code: code.code(), base_offset: -1, ..Default::default() })
        };
        match fault {
            Fault::HangUpBefore => return None,
            Fault::Refuse(code) => return refuse(code),
            Fault::None | Fault::HangUpAfter | Fault::WriteAndRefuse(_) => {}
        }
        let written = self.append(bytes);
        match (fault, written) {
            (Fault::HangUpAfter, _) => None,
            (Fault::WriteAndRefuse(code), _) | (_, Err(code)) => refuse(code),
            (_, Ok(base_offset)) => {
                Some(PartitionProduceResponse { base_offset, ..PartitionProduceResponse::default() })
            }
        }
    }

    /// As a broker appends for an idempotent producer (KIP-98).
    fn append(&mut self, bytes: &Bytes) -> Result<i64, ErrorCode> {
        let batch = RecordBatch::parse(bytes).unwrap();
        batch.verify_crc().unwrap();
        let (id, first, last) = (batch.producer_id().0, batch.base_sequence(), batch.last_sequence());
        if id >= 0 {
            let mut own = self.remembered.iter().filter(|(known, ..)| *known == id);
            if let Some((.., base)) = own.clone().find(|(_, f, l, _)| (*f, *l) == (first, last)) {
                return Ok(*base);
            }
            // It takes any number from a producer that it has not seen.
            if own.next_back().is_some_and(|(_, _, last, _)| first != last + 1) {
                return Err(ErrorCode::OutOfOrderSequenceNumber);
            }
        }
        let base = self.end;
        let mut copy = bytes.to_vec();
        RecordBatchMut::parse(&mut copy).unwrap().assign(Offset(base), LeaderEpoch(0)).unwrap();
        self.end += i64::from(batch.record_count());
        self.log.push(copy.into());
        self.remembered.push_back((id, first, last, base));
        if self.remembered.len() > 5 {
            self.remembered.pop_front();
        }
        Ok(base)
    }

    fn fetch(&self, from: i64) -> FetchResponse {
        let is_wanted = |batch: &&Bytes| RecordBatch::parse(batch).unwrap().last_offset().0 >= from;
        let bytes: Vec<u8> = self.log.iter().filter(is_wanted).flatten().copied().collect();
        let partition = PartitionData {
            high_watermark: self.end,
            records: Some(Records::from(Bytes::from(bytes))),
            ..PartitionData::default()
        };
        let topic = FetchableTopicResponse {
            topic_id: TOPIC_ID,
            partitions: vec![partition],
            ..FetchableTopicResponse::default()
        };
        FetchResponse { responses: vec![topic], ..FetchResponse::default() }
    }
}
