//! The rows W13 to W24 of the malformed-input table, as far as a decoder can judge them.

use bytes::Bytes;
use klamm_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, MetadataRequest,
    SaslAuthenticateRequest,
};
use klamm_protocol::{ApiKey, ApiMessage, Budget, DecodeError, Reader, Request, Uuid, Writer};

fn refusal<M: ApiMessage>(version: i16, bytes: &[u8]) -> DecodeError {
    let frame = Bytes::copy_from_slice(bytes);
    match M::decode_whole(version, Reader::shared(&frame, Budget::for_request(frame.len()))) {
        Ok(_) => panic!("{bytes:02x?} was accepted"),
        Err(error) => error,
    }
}

fn accepted<M: ApiMessage>(version: i16, bytes: &[u8]) -> M {
    let frame = Bytes::copy_from_slice(bytes);
    M::decode_whole(version, Reader::shared(&frame, Budget::for_request(frame.len()))).unwrap()
}

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    write(&mut writer);
    writer.finish().unwrap().into_bytes().unwrap().to_vec()
}

#[test]
fn w13_array_lengths_are_checked_before_they_are_believed() {
    // DeleteTopics 1: an array of names, then a timeout.
    let with_count = |count: i32| [&count.to_be_bytes()[..], &[0, 1, b'a', 0, 0, 0, 9]].concat();
    assert_eq!(
        refusal::<DeleteTopicsRequest>(1, &with_count(-2)),
        DecodeError::NegativeLength { at: 0, length: -2 }
    );
    assert_eq!(
        refusal::<DeleteTopicsRequest>(1, &with_count(i32::MIN)),
        DecodeError::NegativeLength { at: 0, length: i32::MIN }
    );
    assert_eq!(refusal::<DeleteTopicsRequest>(1, &with_count(-1)), DecodeError::NullNotAllowed { at: 0 });
    assert_eq!(
        refusal::<DeleteTopicsRequest>(1, &with_count(i32::MAX)),
        DecodeError::ArrayTooLong { at: 4, count: i32::MAX as usize, len_min: 2, remaining: 7 }
    );
    assert_eq!(
        refusal::<DeleteTopicsRequest>(1, &with_count(4)),
        DecodeError::ArrayTooLong { at: 4, count: 4, len_min: 2, remaining: 7 }
    );
    // Three would fit by their least length, but do not.
    assert!(matches!(refusal::<DeleteTopicsRequest>(1, &with_count(3)), DecodeError::Truncated { .. }));
}

#[test]
fn w14_compact_lengths_of_every_wrong_kind_are_refused() {
    // DeleteTopics 4: a compact array of names, a timeout, tags.
    let with_length = |length: &[u8]| [length, &[2, b'a', 0, 0, 0, 9, 0]].concat();
    assert_eq!(accepted::<DeleteTopicsRequest>(4, &with_length(&[2])).topic_names, ["a"]);
    assert_eq!(refusal::<DeleteTopicsRequest>(4, &with_length(&[0])), DecodeError::NullNotAllowed { at: 0 });
    assert_eq!(
        refusal::<DeleteTopicsRequest>(4, &with_length(&[0xff, 0xff, 0xff, 0xff, 0x0f])),
        DecodeError::ArrayTooLong { at: 5, count: u32::MAX as usize - 1, len_min: 1, remaining: 7 }
    );
    for too_long in [&[0x82, 0x80, 0x80, 0x80, 0x80, 0][..], &[0x82, 0x80, 0x80, 0x80, 0x10]] {
        assert_eq!(
            refusal::<DeleteTopicsRequest>(4, &with_length(too_long)),
            DecodeError::VarintTooLong { at: 0 }
        );
    }
    assert_eq!(
        refusal::<DeleteTopicsRequest>(4, &[0x82, 0x80]),
        DecodeError::Truncated { at: 2, needed: 1, remaining: 0 }
    );
}

#[test]
fn w15_nested_arrays_share_one_budget() {
    // CreateTopics 7: topics with assignments with broker ids, each array as long as its bytes allow.
    let topic = |writer: &mut Writer, nested: u32| {
        writer.unsigned_varint(1); // an empty name
        writer.int32(1);
        writer.int16(1);
        writer.unsigned_varint(nested + 1);
        for _ in 0..nested {
            writer.int32(0);
            writer.unsigned_varint(1);
            writer.no_tags();
        }
        writer.unsigned_varint(1);
        writer.no_tags();
    };
    let body = written(|writer| {
        writer.unsigned_varint(1001);
        for _ in 0..1000 {
            topic(writer, 1000);
        }
        writer.int32(0);
        writer.bool(false);
        writer.no_tags();
    });
    assert!(matches!(
        refusal::<CreateTopicsRequest>(7, &body),
        DecodeError::OverBudget { elements: 1000, .. }
    ));
    // The count is spent by all arrays together: 10 of 12 fit, whatever the bytes allow.
    let small = written(|writer| {
        writer.unsigned_varint(3);
        topic(writer, 5);
        topic(writer, 5);
        writer.int32(0);
        writer.bool(false);
        writer.no_tags();
    });
    let decode = |elements| {
        let mut reader = Reader::new(&small, Budget::new(1 << 20, elements));
        CreateTopicsRequest::decode(7, &mut reader)
    };
    assert!(decode(12).is_ok());
    assert!(matches!(decode(11), Err(DecodeError::OverBudget { elements: 5, .. })));
}

#[test]
fn w16_elements_without_bytes_are_bounded_by_the_budget() {
    let bytes = i32::MAX.to_be_bytes();
    let mut reader = Reader::new(&bytes, Budget::for_request(bytes.len()));
    let outcome = reader.array(false, 0, |_| Ok(()));
    assert_eq!(
        outcome,
        Err(DecodeError::OverBudget { at: 4, elements: i32::MAX as usize, element_bytes: 0 })
    );
}

#[test]
fn w17_unknown_tagged_fields_are_skipped_up_to_64() {
    let with_tags = |count: u32| {
        written(|writer| {
            writer.unsigned_varint(2);
            writer.string(true, "a").unwrap();
            writer.int32(9);
            writer.unsigned_varint(count);
            for tag in 0..count {
                writer.unsigned_varint(tag + 100);
                writer.unsigned_varint(1);
                writer.bool(true);
            }
        })
    };
    let plain = accepted::<DeleteTopicsRequest>(4, &with_tags(0));
    assert_eq!(accepted::<DeleteTopicsRequest>(4, &with_tags(64)), plain, "nothing is kept of them");
    assert!(matches!(
        refusal::<DeleteTopicsRequest>(4, &with_tags(65)),
        DecodeError::TooManyTaggedFields { max: 64, .. }
    ));
    // Twenty million are refused at the 65th, not after reading forty megabytes.
    let mut many = with_tags(0);
    many.pop();
    let at = many.len();
    many.extend_from_slice(&written(|writer| writer.unsigned_varint(20_000_000)));
    let ascending = (0..20_000).flat_map(|tag: u32| {
        written(|writer| {
            writer.unsigned_varint(tag);
            writer.unsigned_varint(0);
        })
    });
    many.extend(ascending);
    match refusal::<DeleteTopicsRequest>(4, &many) {
        DecodeError::TooManyTaggedFields { at: told, .. } => assert!(told < at + 4 + 65 * 2 + 1),
        other => panic!("{other}"),
    }
}

/// Fetch 12 has the tagged field 0 (a nullable text); a body with this tagged section.
fn fetch_with_tags(tags: &[u8]) -> Vec<u8> {
    let mut body = written(|writer| {
        FetchRequest::default().encode(12, writer).unwrap();
    });
    body.pop();
    body.extend_from_slice(tags);
    body
}

#[test]
fn w18_tagged_sections_of_every_wrong_kind_are_refused() {
    let good = accepted::<FetchRequest>(12, &fetch_with_tags(&[1, 0, 3, 3, b'i', b'd']));
    assert_eq!(good.cluster_id.as_deref(), Some("id"));
    let refuse = |tags: &[u8]| refusal::<FetchRequest>(12, &fetch_with_tags(tags));
    // Twice the same, and descending.
    assert!(matches!(
        refuse(&[2, 0, 3, 3, b'i', b'd', 0, 3, 3, b'i', b'd']),
        DecodeError::TagOrder { tag: 0, previous: 0, .. }
    ));
    assert!(matches!(refuse(&[2, 9, 0, 8, 0]), DecodeError::TagOrder { tag: 8, previous: 9, .. }));
    // Longer than the rest.
    assert!(matches!(refuse(&[1, 9, 4, 0, 0, 0]), DecodeError::Truncated { needed: 4, remaining: 3, .. }));
    assert!(matches!(
        refuse(&[1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        DecodeError::Truncated { remaining: 0, .. }
    ));
    // A known field that does not fill its size, and one that would need more.
    assert!(matches!(refuse(&[1, 0, 4, 3, b'i', b'd', 0]), DecodeError::TagSize { tag: 0, unread: 1, .. }));
    assert!(matches!(
        refuse(&[1, 0, 2, 3, b'i', b'd']),
        DecodeError::Truncated { needed: 2, remaining: 1, .. }
    ));
    // Fewer fields than the count says.
    assert!(matches!(refuse(&[2, 9, 0]), DecodeError::Truncated { .. }));
}

#[test]
fn w19_string_lengths_of_every_wrong_kind_are_refused() {
    let old = |length: i16, text: &[u8]| [&[0, 0, 0, 1][..], &length.to_be_bytes(), text, &[0; 4]].concat();
    let refuse_old = |length, text: &[u8]| refusal::<DeleteTopicsRequest>(1, &old(length, text));
    assert_eq!(refuse_old(-2, b""), DecodeError::NegativeLength { at: 4, length: -2 });
    assert_eq!(refuse_old(-1, b""), DecodeError::NullNotAllowed { at: 4 });
    assert_eq!(refuse_old(9, b"abc"), DecodeError::Truncated { at: 6, needed: 9, remaining: 7 });
    assert_eq!(refuse_old(2, &[0xc3, 0x28]), DecodeError::InvalidUtf8 { at: 6 });
    let refuse_new =
        |name: &[u8]| refusal::<DeleteTopicsRequest>(4, &[&[2][..], name, &[0, 0, 0, 0, 0]].concat());
    assert_eq!(refuse_new(&[0]), DecodeError::NullNotAllowed { at: 1 });
    assert_eq!(refuse_new(&[9, b'a']), DecodeError::Truncated { at: 2, needed: 8, remaining: 6 });
    let long = [&[0x81, 0x80, 0x02][..], &[b'x'; 32768]].concat();
    assert_eq!(refuse_new(&long), DecodeError::StringTooLong { at: 4, length: 32768 });
}

#[test]
fn w20_byte_fields_do_not_reach_past_the_end() {
    let old = |length: i32| [&length.to_be_bytes()[..], b"token"].concat();
    assert_eq!(*accepted::<SaslAuthenticateRequest>(1, &old(5)).auth_bytes, *b"token");
    for length in [6, i32::MAX] {
        let needed = usize::try_from(length).unwrap();
        assert_eq!(
            refusal::<SaslAuthenticateRequest>(1, &old(length)),
            DecodeError::Truncated { at: 4, needed, remaining: 5 }
        );
    }
    assert_eq!(
        refusal::<SaslAuthenticateRequest>(1, &old(-2)),
        DecodeError::NegativeLength { at: 0, length: -2 }
    );
    let new = |length: &[u8]| [length, b"token", &[0]].concat();
    assert_eq!(*accepted::<SaslAuthenticateRequest>(2, &new(&[6])).auth_bytes, *b"token");
    assert_eq!(
        refusal::<SaslAuthenticateRequest>(2, &new(&[0xff, 0xff, 0xff, 0xff, 0x0f])),
        DecodeError::Truncated { at: 5, needed: u32::MAX as usize - 1, remaining: 6 }
    );
}

#[test]
fn w21_variable_length_numbers_end_after_32_bits() {
    let read = |bytes: &[u8]| Reader::new(bytes, Budget::for_request(0)).unsigned_varint();
    assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(u32::MAX));
    assert_eq!(read(&[0x80, 0x80, 0x80, 0x80, 0x08]), Ok(1 << 31));
    assert_eq!(read(&[0x80, 0]), Ok(0), "as long as Kafka takes it");
    for bytes in [&[0x80; 11][..], &[0xff, 0xff, 0xff, 0xff, 0x1f], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x01]] {
        assert_eq!(read(bytes), Err(DecodeError::VarintTooLong { at: 0 }), "{bytes:02x?}");
    }
    for value in [0, 1, 127, 128, 16383, 16384, 2_097_151, 2_097_152, 268_435_455, 268_435_456, u32::MAX] {
        assert_eq!(read(&written(|writer| writer.unsigned_varint(value))), Ok(value));
    }
}

#[test]
fn w22_and_w23_strange_values_are_values() {
    // Whether an id or a partition exists is not for the decoder to say; it hands them on unchanged.
    let body = written(|writer| {
        writer.unsigned_varint(2);
        writer.uuid(Uuid::ZERO);
        writer.optional_string(true, Some("other")).unwrap();
        writer.no_tags();
        writer.bool(true);
        writer.bool(false);
        writer.no_tags();
    });
    let topics = accepted::<MetadataRequest>(12, &body).topics.unwrap();
    assert!(topics[0].topic_id.is_zero());
    assert_eq!(topics[0].name.as_deref(), Some("other"));

    let body = written(|writer| {
        use klamm_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
        let partitions =
            [-1, i32::MAX, 0, 0].map(|partition| FetchPartition { partition, ..Default::default() });
        let topic = FetchTopic { partitions: partitions.to_vec(), ..Default::default() };
        FetchRequest { topics: vec![topic], ..Default::default() }.encode(18, writer).unwrap();
    });
    let topics = accepted::<FetchRequest>(18, &body).topics;
    let partitions: Vec<i32> = topics[0].partitions.iter().map(|partition| partition.partition).collect();
    assert_eq!(partitions, [-1, i32::MAX, 0, 0]);
}

#[test]
fn w24_a_million_topics_are_capped() {
    let body = written(|writer| {
        writer.int32(1_000_000);
        for _ in 0..1_000_000 {
            writer.string(false, "t").unwrap();
        }
    });
    assert_eq!(
        refusal::<MetadataRequest>(0, &body),
        DecodeError::OverBudget {
            at: 4,
            elements: 1_000_000,
            element_bytes: size_of::<klamm_protocol::messages::metadata_request::MetadataRequestTopic>()
        }
    );
}

#[test]
fn no_bytes_at_all_are_no_message_unless_it_has_no_fields() {
    for key in ApiKey::ALL {
        for version in key.versions().iter() {
            let empty = Bytes::new();
            let outcome = Request::decode(*key, version, Reader::shared(&empty, Budget::for_request(0)));
            let fieldless = match key {
                ApiKey::ApiVersions | ApiKey::ListGroups => version < 3,
                _ => false,
            };
            assert_eq!(outcome.is_ok(), fieldless, "{key} version {version}");
        }
    }
    assert_eq!(accepted::<ApiVersionsRequest>(0, &[]), ApiVersionsRequest::default());
}
