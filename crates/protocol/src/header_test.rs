use bytes::Bytes;

use super::*;
use crate::{Budget, Request};

fn decode(bytes: &[u8]) -> Result<RequestHead, HeaderError> {
    RequestHead::decode(&mut Reader::new(bytes, Budget::for_request(bytes.len())))
}

fn head(key: ApiKey, version: i16, client_id: Option<&str>) -> RequestHead {
    RequestHead { key, version, correlation_id: 7, client_id: client_id.map(str::to_owned) }
}

fn encoded(head: &RequestHead) -> Bytes {
    let mut writer = Writer::new();
    head.encode(&mut writer).unwrap();
    writer.finish().unwrap().into_bytes().unwrap()
}

#[test]
fn every_api_and_version_has_the_header_that_its_bytes_say() {
    for key in ApiKey::ALL {
        for version in key.versions().iter() {
            for client_id in [None, Some(""), Some("a client")] {
                let head = head(*key, version, client_id);
                let bytes = encoded(&head);
                assert_eq!(decode(&bytes), Ok(head.clone()), "{key} version {version}");
                let flexible = usize::from(key.is_flexible(version));
                assert_eq!(bytes.len(), 10 + client_id.map_or(0, str::len) + flexible);
            }
        }
    }
}

#[test]
fn a_header_is_these_bytes() {
    let bytes = encoded(&head(ApiKey::Metadata, 12, Some("me")));
    assert_eq!(*bytes, [0, 3, 0, 12, 0, 0, 0, 7, 0, 2, b'm', b'e', 0]);
}

#[test]
fn w08_unknown_keys_are_told_apart() {
    for code in [-1, 4, 5, 6, 7, 93, 32767, i16::MIN] {
        let mut bytes = code.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0; 20]);
        assert_eq!(decode(&bytes), Err(HeaderError::UnknownApi { code }));
    }
}

#[test]
fn w09_versions_out_of_range_are_told_with_what_an_answer_needs() {
    for (key, version) in
        [(ApiKey::ApiVersions, 5), (ApiKey::ApiVersions, i16::MAX), (ApiKey::Produce, 2), (ApiKey::Fetch, -1)]
    {
        let mut bytes = key.code().to_be_bytes().to_vec();
        bytes.extend_from_slice(&version.to_be_bytes());
        bytes.extend_from_slice(&(-9i32).to_be_bytes());
        // What follows the correlation id belongs to a version nobody knows.
        bytes.extend_from_slice(&[0xff; 3]);
        let expected = HeaderError::UnsupportedVersion { key, version, correlation_id: -9 };
        assert_eq!(decode(&bytes), Err(expected));
    }
}

#[test]
fn w10_the_header_of_the_other_encoding_is_refused() {
    // A Metadata request of version 12 behind a header without a tagged section: the body's first byte is read
    // as the number of tagged fields, and the rest does not fit.
    let body = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, b't', 0, 1, 0, 0];
    let mut bytes = encoded(&head(ApiKey::Metadata, 12, None)).to_vec();
    bytes.extend_from_slice(&body);
    let whole = Bytes::from(bytes.clone());
    let mut reader = Reader::shared(&whole, Budget::for_request(whole.len()));
    let good = RequestHead::decode(&mut reader).unwrap();
    assert!(Request::decode(good.key, good.version, reader).is_ok());

    bytes.remove(10);
    let cut = Bytes::from(bytes);
    let mut reader = Reader::shared(&cut, Budget::for_request(cut.len()));
    let outcome = RequestHead::decode(&mut reader)
        .map(|head| Request::decode(head.key, head.version, reader).map_err(HeaderError::Malformed));
    assert!(matches!(outcome, Err(_) | Ok(Err(_))), "{outcome:?}");

    // The reverse: a request of version 8 behind a tagged section.
    let mut bytes = encoded(&head(ApiKey::Metadata, 8, None)).to_vec();
    bytes.push(0);
    bytes.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0]);
    let reverse = Bytes::from(bytes);
    let mut reader = Reader::shared(&reverse, Budget::for_request(reverse.len()));
    let head = RequestHead::decode(&mut reader).unwrap();
    assert_eq!(
        Request::decode(head.key, head.version, reader),
        Err(DecodeError::TrailingBytes { at: reverse.len() - 1, remaining: 1 })
    );
}

#[test]
fn w11_client_ids_may_be_null_and_long_but_are_text() {
    let long = "x".repeat(32767);
    assert_eq!(decode(&encoded(&head(ApiKey::Produce, 13, Some(&long)))).unwrap().client_id, Some(long));
    let too_long = RequestHead { client_id: Some("x".repeat(32768)), ..head(ApiKey::Produce, 13, None) };
    assert_eq!(too_long.encode(&mut Writer::new()), Err(EncodeError::TooLong { length: 32768, max: 32767 }));
    let invalid = [0, 3, 0, 12, 0, 0, 0, 7, 0, 2, 0xc3, 0x28, 0];
    assert_eq!(decode(&invalid), Err(HeaderError::Malformed(DecodeError::InvalidUtf8 { at: 10 })));
    let below_null = [0, 3, 0, 12, 0, 0, 0, 7, 0xff, 0xfe, 0];
    assert_eq!(
        decode(&below_null),
        Err(HeaderError::Malformed(DecodeError::NegativeLength { at: 8, length: -2 }))
    );
}

#[test]
fn w12_any_correlation_id_is_carried() {
    for correlation_id in [0, -1, i32::MIN, i32::MAX] {
        let head = RequestHead { correlation_id, ..head(ApiKey::Fetch, 18, None) };
        assert_eq!(decode(&encoded(&head)), Ok(head));
        for version in [4, 18] {
            let mut writer = Writer::new();
            encode_response_header(ApiKey::Fetch, version, correlation_id, &mut writer).unwrap();
            let bytes = writer.finish().unwrap().into_bytes().unwrap();
            let mut reader = Reader::new(&bytes, Budget::for_response(bytes.len()));
            assert_eq!(decode_response_header(ApiKey::Fetch, version, &mut reader), Ok(correlation_id));
            assert_eq!(reader.remaining(), 0);
        }
    }
}

#[test]
fn w17_tags_in_a_header_are_refused_above_64() {
    let with_tags = |count: u32| {
        let mut writer = Writer::new();
        writer.int16(3);
        writer.int16(12);
        writer.int32(7);
        writer.int16(-1);
        writer.unsigned_varint(20_000_000);
        for tag in 0..count {
            writer.unsigned_varint(tag);
            writer.unsigned_varint(0);
        }
        writer.finish().unwrap().into_bytes().unwrap()
    };
    let refused = decode(&with_tags(65));
    assert!(
        matches!(refused, Err(HeaderError::Malformed(DecodeError::TooManyTaggedFields { max: 64, .. }))),
        "{refused:?}"
    );
    let refused = decode(&with_tags(64));
    assert!(matches!(refused, Err(HeaderError::Malformed(DecodeError::Truncated { .. }))), "{refused:?}");
}
