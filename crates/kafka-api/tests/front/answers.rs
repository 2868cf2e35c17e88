//! Answers: their order, ApiVersions, and what comes instead of one.

use klamm_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use klamm_protocol::{ApiKey, ErrorCode};

use crate::harness::{TestFront, api_versions, config, eventually, produce, request, script};

#[test]
fn answers_leave_in_the_order_of_requests_whenever_they_are_ready() {
    let test = TestFront::start(config());
    let mut client = test.connect();
    client.send(&[script("park:a", 1), script("now", 2), script("park:b", 3), script("now", 4)].concat());
    eventually("all handlers were entered", || test.stage.entered().len() == 4);
    test.stage.open("b");
    test.assert_serves();
    assert_eq!(test.counts().responses_sent, 1, "only the one on the other connection");
    test.stage.open("a");
    let answers = [1, 2, 3, 4].map(|id| client.scripted_answer(id));
    assert_eq!(answers, ["park:a", "now", "park:b", "now"]);
    drop(client);
    test.assert_nothing_left();
}

#[test]
fn the_next_request_waits_until_the_order_of_the_last_is_fixed() {
    let test = TestFront::start(config());
    let mut client = test.connect();
    client.send(&[script("order:a", 1), script("now", 2)].concat());
    // The answer of the first is there before its order is fixed; it may leave.
    assert_eq!(client.scripted_answer(1), "order:a");
    test.assert_serves();
    assert_eq!(test.stage.entered(), ["order:a"]);
    test.stage.open("a");
    assert_eq!(client.scripted_answer(2), "now");
    assert_eq!(test.stage.entered(), ["order:a", "now"]);
}

#[test]
fn api_versions_tells_the_table_in_every_version() {
    let test = TestFront::start(config());
    let mut client = test.connect();
    for version in 0..=4 {
        client.send(&api_versions(version, 1));
        let answer = client.answer::<ApiVersionsResponse>(version, 1);
        let told: Vec<_> =
            answer.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect();
        let (produce, metadata) = (ApiKey::Produce.code(), ApiKey::Metadata.code());
        assert_eq!(told, [(produce, 0, 13), (metadata, 0, 13), (ApiKey::ApiVersions.code(), 0, 4)]);
        let supported: Vec<_> = answer.supported_features.iter().map(|key| key.name.as_str()).collect();
        let expected: &[&str] = match version {
            0..=2 => &[],
            3 => &["metadata.version"],
            _ => &["metadata.version", "group.version"],
        };
        assert_eq!(supported, expected, "version {version}");
        if version >= 3 {
            assert_eq!(answer.finalized_features_epoch, 42);
            let levels: Vec<_> = answer
                .finalized_features
                .iter()
                .map(|key| (key.min_version_level, key.max_version_level))
                .collect();
            assert_eq!(levels, [(8, 8)]);
        }
    }
}

#[test]
fn api_versions_refuses_a_software_name_and_goes_on() {
    let test = TestFront::start(config());
    let mut client = test.connect();
    for (name, version) in [("", "1"), ("a b", "1"), ("a", "-1"), ("a", "")] {
        let body = ApiVersionsRequest {
            client_software_name: name.to_owned(),
            client_software_version: version.to_owned(),
        };
        client.send(&request(3, 1, &body));
        let answer = client.answer::<ApiVersionsResponse>(3, 1);
        assert_eq!(answer.error_code, ErrorCode::InvalidRequest as i16);
        assert!(answer.api_keys.is_empty());
    }
    client.send(&api_versions(3, 2));
    assert_eq!(client.answer::<ApiVersionsResponse>(3, 2).error_code, 0);
}

#[test]
fn acks_0_has_no_answer_and_later_answers_follow() {
    let test = TestFront::start(config());
    let mut client = test.connect();
    client.send(&[produce(0, None, 100), script("now", 2)].concat());
    assert_eq!(client.scripted_answer(2), "now");
    assert_eq!(test.stage.entered(), ["produce", "now"]);
}

#[test]
fn a_handler_may_end_the_connection_after_earlier_answers() {
    let test = TestFront::start(config());
    let mut client = test.connect();
    client.send(&[script("park:a", 1), script("close", 2), script("now", 3)].concat());
    eventually("all handlers were entered", || test.stage.entered().len() == 3);
    test.stage.open("a");
    assert_eq!(client.scripted_answer(1), "park:a");
    client.assert_closed();
    test.assert_serves();
    test.assert_nothing_left();
    assert_eq!(test.counts().closed_unanswerable, 1);
}

#[test]
fn an_answer_that_the_version_cannot_carry_ends_the_connection() {
    let test = TestFront::start(config());
    let mut client = test.connect();
    client.send(&[script("now", 1), script("misfit", 2), script("now", 3)].concat());
    assert_eq!(client.scripted_answer(1), "now");
    client.assert_closed();
    test.assert_serves();
    test.assert_nothing_left();
    assert_eq!(test.counts().closed_unanswerable, 1);
}

#[test]
fn a_handler_that_panics_ends_its_connection_and_no_other() {
    let test = TestFront::start(config());
    let (mut bystander, mut client) = (test.connect(), test.connect());
    bystander.send(&script("park:a", 1));
    eventually("the bystander is parked", || test.stage.entered().len() == 1);
    client.send(&script("panic", 1));
    client.assert_closed();
    test.stage.open("a");
    assert_eq!(bystander.scripted_answer(1), "park:a");
    test.assert_serves();
    drop(bystander);
    test.assert_nothing_left();
    assert_eq!(test.counts().closed_panicked, 1);
}
