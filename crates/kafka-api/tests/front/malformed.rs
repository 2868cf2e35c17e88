//! Bytes that are no good request.

use std::time::Duration;

use klamm_kafka_api::FrontConfig;
use klamm_protocol::messages::{ApiVersionsResponse, MetadataResponse};
use klamm_protocol::{ApiKey, ErrorCode};

use crate::harness::{
    Client, TestFront, api_versions, code, config, eventually, framed, header, produce, request, script,
};

/// Sends each input on a connection of its own, between good questions; each must end its connection without an
/// answer and without entering a handler.
#[track_caller]
fn assert_all_refused(inputs: &[Vec<u8>]) {
    let test = TestFront::start(config());
    test.assert_serves();
    for (index, input) in inputs.iter().enumerate() {
        let before = test.counts();
        let mut client = test.connect();
        // The rest of a long input may find the connection closed already.
        client.try_send(input);
        client.assert_closed();
        eventually("the refusal is counted", || test.counts().closed_refused == before.closed_refused + 1);
        assert_eq!(test.counts().requests_received, before.requests_received, "input {index}");
        test.assert_serves();
    }
    test.assert_nothing_left();
}

#[test]
fn w01_sizes_too_short_for_a_header_close() {
    let sizes = 0..8_u8;
    assert_all_refused(&sizes.map(|len| framed(&vec![0; usize::from(len)])).collect::<Vec<_>>());
}

#[test]
fn w02_negative_sizes_close() {
    let sizes = [-1, i32::MIN, -2];
    assert_all_refused(&sizes.map(|len: i32| [len.to_be_bytes(), [0; 4]].concat()));
}

#[test]
fn w03_sizes_beyond_the_limit_close() {
    let limit = i32::try_from(config().request_bytes_max).unwrap();
    assert_all_refused(&[limit + 1, i32::MAX].map(|len: i32| [len.to_be_bytes(), [0; 4]].concat()));
}

#[test]
fn w03_a_declared_size_gets_no_memory_and_silence_is_reaped() {
    let test = TestFront::start(FrontConfig { request_read_timeout_ms: 300, ..config() });
    test.assert_serves();
    let before = test.front.memory().used_peak;
    let declared = i32::try_from(config().request_bytes_max).unwrap().to_be_bytes();
    let mut clients: Vec<_> = (0..20).map(|_| test.connect()).collect();
    for client in &mut clients {
        client.send(&[declared, [0, 18, 0, 0]].concat());
    }
    for client in &mut clients {
        client.assert_closed();
    }
    eventually("all were reaped", || test.counts().closed_slow_request == 20);
    let granted = test.front.memory().used_peak - before;
    assert!(granted <= 20 * (128 << 10), "{granted} bytes for 20 clients that sent 8 bytes each");
    test.assert_serves();
    test.assert_nothing_left();
}

#[test]
fn w04_other_protocols_close() {
    let tls = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 9, 9, 9, 9, 9];
    let inputs: [&[u8]; 3] = [b"GET / HTTP/1.1\r\nHost: kafka\r\n\r\n", &tls, b"SSH-2.0-OpenSSH_9.6\r\n"];
    assert_all_refused(&inputs.map(<[u8]>::to_vec));
}

#[test]
fn w05_a_drip_of_bytes_is_reaped() {
    let test = TestFront::start(FrontConfig { request_read_timeout_ms: 300, ..config() });
    test.assert_serves();
    let mut client = test.connect();
    client.send(&1000_i32.to_be_bytes());
    // Bytes keep coming, so no wait between two of them is ever long.
    let mut sent = 0;
    while client.try_send(&[0]) {
        sent += 1;
        assert!(sent < 900, "the drip is never cut off");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(sent > 5, "cut off after {sent} bytes");
    eventually("the drip was cut off", || test.counts().closed_slow_request == 1);
    test.assert_serves();
    test.assert_nothing_left();
}

#[test]
fn w06_requests_split_at_every_byte_and_glued_are_the_same() {
    let test = TestFront::start(config());
    let (first, second) = (script("a", 1), api_versions(3, 2));
    let glued = [first, second].concat();
    let expect = |client: &mut Client| {
        assert_eq!(client.scripted_answer(1), "a");
        assert_eq!(client.answer::<ApiVersionsResponse>(3, 2).error_code, 0);
    };
    test.assert_serves();
    let mut client = test.connect();
    client.send(&glued);
    expect(&mut client);
    for cut in 1..glued.len() {
        let arrived = test.counts().bytes_in;
        let (head, tail) = glued.split_at(cut);
        client.send(head);
        eventually("the first part has arrived", || test.counts().bytes_in == arrived + head.len() as u64);
        client.send(tail);
        expect(&mut client);
    }
    for byte in &glued {
        client.send(&[*byte]);
    }
    expect(&mut client);
    drop(client);
    test.assert_serves();
    test.assert_nothing_left();
}

#[test]
fn w07_trailing_bytes_end_the_connection_after_earlier_answers() {
    let mut longer = script("b", 2);
    longer.push(0);
    let body = longer.split_off(4);
    assert_all_refused(&[framed(&body)]);

    let test = TestFront::start(config());
    test.assert_serves();
    let mut client = test.connect();
    client.send(&[script("a", 1), framed(&body), script("c", 3)].concat());
    assert_eq!(client.scripted_answer(1), "a");
    client.assert_closed();
    assert_eq!(test.stage.entered(), ["a"]);
    test.assert_serves();
}

#[test]
fn w08_unknown_apis_close() {
    let codes = [-1, 4, 7, 93, 1_000, i16::MAX, i16::MIN];
    assert_all_refused(&codes.map(|code| framed(&header(code, 0, 1, Some(b"x")))));
}

#[test]
fn w08_apis_without_a_handler_close() {
    assert_all_refused(&[framed(&[header(code(ApiKey::LeaveGroup), 0, 1, None), vec![0; 4]].concat())]);
}

#[test]
fn w09_unknown_versions_close_except_of_api_versions() {
    let keys = [ApiKey::Metadata, ApiKey::Produce];
    let inputs = keys.iter().flat_map(|key| [-1, i16::MIN, 14, i16::MAX].map(|version| (*key, version)));
    let mut inputs: Vec<_> =
        inputs.map(|(key, version)| framed(&header(code(key), version, 1, None))).collect();
    // Told by ApiVersions, and refused.
    inputs.extend([0, 1, 2].map(|version| framed(&header(code(ApiKey::Produce), version, 1, None))));
    assert_all_refused(&inputs);
}

#[test]
fn w09_unknown_versions_of_api_versions_are_answered_in_version_0() {
    let test = TestFront::start(config());
    test.assert_serves();
    let mut client = test.connect();
    for version in [5, 99, i16::MAX, -1, i16::MIN] {
        // A client from the future: a flexible header and fields that nobody knows yet.
        let body = [header(18, version, 77, Some(b"future")), vec![0, 1, 2, 3, 4, 5]].concat();
        client.send(&framed(&body));
        let answer = client.frame().unwrap();
        let code = (ErrorCode::UnsupportedVersion as i16).to_be_bytes();
        let expected = [&77_i32.to_be_bytes()[..], &code, &[0, 0, 0, 1, 0, 18, 0, 0, 0, 4]].concat();
        assert_eq!(answer, expected, "version {version}");
    }
    client.send(&api_versions(0, 78));
    assert_eq!(client.answer::<ApiVersionsResponse>(0, 78).error_code, 0);
    drop(client);
    test.assert_serves();
    test.assert_nothing_left();
}

#[test]
fn w10_a_header_of_the_wrong_version_closes() {
    let flexible_with_old_header = [header(18, 3, 1, None), b"\x06kafka\x044.3\0".to_vec()].concat();
    let old_with_flexible_header = [header(3, 1, 1, None), vec![0], vec![0xff; 4]].concat();
    assert_all_refused(&[framed(&flexible_with_old_header), framed(&old_with_flexible_header)]);
}

#[test]
fn w11_client_ids_null_long_and_broken() {
    assert_all_refused(&[
        framed(&header(18, 0, 1, Some(&[0xff, 0xfe]))),
        framed(&header(18, 0, 1, Some(b"\xc3"))),
    ]);
    let test = TestFront::start(config());
    test.assert_serves();
    let mut client = test.connect();
    let long = [b'c'; 32_767];
    for client_id in [None, Some(&b""[..]), Some(&long[..])] {
        client.send(&framed(&header(18, 0, 6, client_id)));
        assert_eq!(client.answer::<ApiVersionsResponse>(0, 6).error_code, 0);
    }
    test.assert_serves();
}

#[test]
fn w12_correlation_ids_are_echoed_whatever_they_are() {
    let test = TestFront::start(config());
    test.assert_serves();
    let mut client = test.connect();
    let ids = [0, 0, -1, i32::MIN, i32::MAX, 7, 7];
    client.send(&ids.map(|id| script("x", id)).concat());
    for id in ids {
        client.scripted_answer(id);
    }
    test.assert_serves();
}

/// `count` tagged fields of no content, with ascending tags.
fn tagged(count: u32) -> Vec<u8> {
    let varint = |value: u32| match value {
        0..=0x7f => vec![value as u8],
        _ => vec![(value & 0x7f) as u8 | 0x80, (value >> 7) as u8],
    };
    let fields = (0..count).flat_map(|tag| [varint(tag + 100), vec![0]].concat());
    [varint(count), fields.collect()].concat()
}

#[test]
fn w17_too_many_tagged_fields_in_the_header_close() {
    let body = b"\x06kafka\x044.3\0";
    let with_tags = |tags: Vec<u8>| framed(&[header(18, 3, 1, None), tags, body.to_vec()].concat());
    let declared_only = [header(18, 3, 1, None), vec![0xff, 0xff, 0xff, 0xff, 0x0f], body.to_vec()].concat();
    assert_all_refused(&[with_tags(tagged(65)), with_tags(tagged(10_000)), framed(&declared_only)]);

    let test = TestFront::start(config());
    test.assert_serves();
    let mut client = test.connect();
    client.send(&with_tags(tagged(64)));
    assert_eq!(client.answer::<ApiVersionsResponse>(3, 1).error_code, 0);
    test.assert_serves();
}

#[test]
fn w24_more_elements_than_any_request_needs_close() {
    // Topics of one character each; the budget of elements and memory is spent before they are made.
    let count = 200_000_u32;
    let topics = b"\0\x01t".repeat(count as usize);
    let many = [header(3, 0, 1, None), count.to_be_bytes().to_vec(), topics].concat();
    let lying = [header(3, 0, 1, None), i32::MAX.to_be_bytes().to_vec(), vec![0; 100]].concat();
    assert_all_refused(&[framed(&many), framed(&lying)]);
}

#[test]
fn produce_of_every_version_that_is_served_gets_through() {
    let test = TestFront::start(config());
    let mut client = test.connect();
    client.send(&produce(1, None, 1000));
    assert!(client.frame().is_some());
    let metadata = klamm_protocol::messages::MetadataRequest::default();
    for version in 0..=13 {
        client.send(&request(version, 3, &metadata));
        client.answer::<MetadataResponse>(version, 3);
    }
}
