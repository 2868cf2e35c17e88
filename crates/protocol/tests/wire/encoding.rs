//! What versions can carry, payloads that are not copied, and the pieces of an encoded message.

use bytes::Bytes;
use klamm_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use klamm_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use klamm_protocol::messages::{
    ConsumerGroupHeartbeatRequest, FetchRequest, FetchResponse, MetadataRequest, MetadataResponse,
    ProduceRequest,
};
use klamm_protocol::{
    Budget, EncodeError, Encoded, External, Payload, Reader, Records, Writer, encode_response_header,
};

fn encode(write: impl FnOnce(&mut Writer) -> Result<(), EncodeError>) -> Result<Encoded, EncodeError> {
    let mut writer = Writer::new();
    write(&mut writer)?;
    writer.finish()
}

fn response(records: Option<Records>) -> FetchResponse {
    let partition = PartitionData { partition_index: 3, records, ..Default::default() };
    let topic = FetchableTopicResponse { partitions: vec![partition; 2], ..Default::default() };
    FetchResponse { responses: vec![topic], ..Default::default() }
}

#[test]
fn values_that_a_version_cannot_carry_are_refused_unless_ignorable() {
    let request = FetchRequest { session_id: 5, rack_id: "r".to_owned(), ..Default::default() };
    assert!(request.encode(4, &mut Writer::new()).is_ok(), "session and rack are ignorable");
    let request = FetchRequest { replica_id: 1, ..Default::default() };
    assert!(request.encode(14, &mut Writer::new()).is_ok());
    assert_eq!(
        request.encode(15, &mut Writer::new()),
        Err(EncodeError::FieldAbsent { field: "FetchRequest.ReplicaId", version: 15 })
    );
    let mut tagged = response(None);
    tagged.responses[0].partitions[0].current_leader.leader_id = 1;
    assert!(tagged.encode(12, &mut Writer::new()).is_ok());
    assert_eq!(
        tagged.encode(11, &mut Writer::new()),
        Err(EncodeError::FieldAbsent { field: "FetchResponse.PartitionData.CurrentLeader", version: 11 })
    );
}

#[test]
fn null_is_refused_where_a_version_has_none() {
    let all = MetadataRequest { topics: None, ..Default::default() };
    assert!(all.encode(1, &mut Writer::new()).is_ok());
    assert_eq!(
        all.encode(0, &mut Writer::new()),
        Err(EncodeError::NullNotAllowed { field: "MetadataRequest.Topics", version: 0 })
    );
}

#[test]
fn versions_and_lengths_have_limits() {
    assert_eq!(
        MetadataResponse::default().encode(14, &mut Writer::new()),
        Err(EncodeError::UnsupportedVersion { message: "MetadataResponse", version: 14 })
    );
    let long = ConsumerGroupHeartbeatRequest { group_id: "g".repeat(32768), ..Default::default() };
    assert_eq!(long.encode(0, &mut Writer::new()), Err(EncodeError::TooLong { length: 32768, max: 32767 }));
    let request = MetadataRequest::default();
    assert!(request.allow_auto_topic_creation, "absent fields have Kafka's defaults");
}

#[test]
fn decoded_records_lie_in_the_frame() {
    let records = Bytes::from(vec![7; 100_000]);
    let partition = PartitionProduceData { index: 0, records: Some(records.into()) };
    let topic = TopicProduceData { partition_data: vec![partition], ..Default::default() };
    let request = ProduceRequest { topic_data: vec![topic], ..Default::default() };
    let frame = encode(|writer| request.encode(13, writer)).unwrap().into_bytes().unwrap();
    // A budget without room for a copy.
    let decoded = ProduceRequest::decode(13, &mut Reader::shared(&frame, Budget::new(1000, 10))).unwrap();
    assert_eq!(decoded, request);
    let records = decoded.topic_data[0].partition_data[0].records.as_ref().unwrap().as_bytes().unwrap();
    let range = frame.as_ptr_range();
    assert!(range.contains(&records.as_ptr()));
    // From borrowed bytes the records have to be copied, and are charged.
    assert!(ProduceRequest::decode(13, &mut Reader::new(&frame, Budget::new(1000, 10))).is_err());
    assert_eq!(
        ProduceRequest::decode(13, &mut Reader::new(&frame, Budget::new(200_000, 10))).unwrap(),
        request
    );
}

#[test]
fn encoded_records_are_pieces_of_their_own() {
    let records = Bytes::from(vec![7; 100_000]);
    let message = response(Some(records.clone().into()));
    let encoded = encode(|writer| message.encode(18, writer)).unwrap();
    let shared: Vec<_> = encoded
        .pieces()
        .iter()
        .filter(|piece| matches!(piece, Payload::Bytes(bytes) if bytes.as_ptr() == records.as_ptr()))
        .collect();
    assert_eq!(shared.len(), 2);
    assert!(encoded.pieces().iter().all(|piece| !piece.is_empty()));
    assert_eq!(encoded.pieces().iter().map(Payload::len).sum::<usize>(), encoded.len());
    let bytes = encoded.into_bytes().unwrap();
    let decoded = FetchResponse::decode(18, &mut Reader::shared(&bytes, Budget::for_response(bytes.len())));
    assert_eq!(decoded.unwrap(), message);
}

#[test]
fn external_payloads_only_leave_their_place() {
    let bytes = Bytes::from(vec![9; 5000]);
    let parts = vec![
        Payload::Bytes(bytes.slice(..1000)),
        Payload::External(External { token: 42, len: 3000 }),
        Payload::Bytes(bytes.slice(..1000)),
    ];
    let external = encode(|writer| response(Some(Records::Parts(parts))).encode(12, writer)).unwrap();
    let plain = encode(|writer| response(Some(bytes.clone().into())).encode(12, writer)).unwrap();
    assert_eq!(external.len(), plain.len());
    assert_eq!(external.clone().into_bytes(), Err(External { token: 42, len: 3000 }));
    // With the right bytes in the place of the token the message is the same.
    let mut sent = Vec::new();
    for piece in external.into_pieces() {
        match piece {
            Payload::Bytes(bytes) => sent.extend_from_slice(&bytes),
            Payload::External(external) => {
                assert_eq!(external.token, 42);
                sent.extend_from_slice(&bytes.slice(1000..1000 + external.len));
            }
        }
    }
    assert_eq!(sent, plain.into_bytes().unwrap());
}

#[test]
fn a_frame_begins_with_its_length() {
    let records = Bytes::from(vec![7; 100_000]);
    for records in [None, Some(records.into()), Some(Records::external(1, 70_000))] {
        let mut writer = Writer::framed();
        encode_response_header(klamm_protocol::ApiKey::Fetch, 18, 77, &mut writer).unwrap();
        response(records).encode(18, &mut writer).unwrap();
        let len = writer.len();
        let encoded = writer.finish().unwrap();
        assert_eq!(encoded.len(), len);
        let Some(Payload::Bytes(first)) = encoded.pieces().first() else {
            panic!("no bytes first");
        };
        let expected = i32::try_from(len - 4).unwrap();
        assert_eq!(first[..4], expected.to_be_bytes());
        assert_eq!(first[4..9], [0, 0, 0, 77, 0]);
    }
}

#[test]
fn a_frame_longer_than_its_prefix_can_tell_is_refused() {
    let mut writer = Writer::framed();
    let records = Records::external(1, i32::MAX as usize);
    writer.records(false, &records).unwrap();
    let length = i32::MAX as usize + 4;
    assert_eq!(writer.finish(), Err(EncodeError::TooLong { length, max: i32::MAX as usize }));
    let records = Records::external(1, i32::MAX as usize + 1);
    assert!(Writer::new().records(false, &records).is_err());
}

#[test]
fn payloads_inside_tagged_fields_stay_in_their_place() {
    let payload = Bytes::from(vec![5; 2000]);
    let mut writer = Writer::new();
    writer.int8(1);
    let tags = writer.begin_tags();
    writer
        .tag(tags, 300, |writer| {
            writer.int8(2);
            writer.shared_bytes(true, &payload)
        })
        .unwrap();
    writer.int8(3);
    let bytes = writer.finish().unwrap().into_bytes().unwrap();
    // One tagged field, number 300, of 1 + 2 + 2000 bytes; the payload's compact length is 2001.
    assert_eq!(bytes[..8], [1, 1, 0xac, 0x02, 0xd3, 0x0f, 2, 0xd1]);
    assert_eq!(bytes[8], 0x0f);
    assert_eq!(bytes[9..2009], payload);
    assert_eq!(bytes[2009..], [3]);
}
