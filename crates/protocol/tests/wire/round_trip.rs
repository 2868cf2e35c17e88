//! Every message in every version, drawn from the listing by an encoder that shares nothing with the generated
//! one.

use std::path::Path;

use bytes::Bytes;
use klamm_codegen::Paths;
use klamm_protocol::{ApiKey, Budget, DecodeError, Reader, Request, Response};

use crate::recode::{for_every_version, recode};

#[test]
fn committed_code_is_a_fresh_generation() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let stale = klamm_codegen::check(&Paths::of_workspace(&root)).unwrap();
    assert!(stale.is_empty(), "run `cargo xtask codegen`: {stale:?}");
}

#[test]
fn every_message_and_version_survives_a_round_trip() {
    let mut versions = std::collections::BTreeSet::new();
    for_every_version(24, |layout, version, body, seed| {
        let again = recode(layout, version, body);
        let name = layout.name();
        match again {
            Ok(again) => assert_eq!(again, body, "{name} version {version} seed {seed}"),
            Err(error) => panic!("{name} version {version} seed {seed}: {error:?} in {body:02x?}"),
        }
        versions.insert((name.to_owned(), version));
    });
    assert!(versions.len() > 600, "only {} versions of messages", versions.len());
}

#[test]
fn decoded_messages_equal_what_their_encoding_decodes_to() {
    for_every_version(8, |layout, version, body, seed| {
        let Some((key, is_request)) = body_of(layout) else {
            return;
        };
        let reader = |body| Reader::shared(body, Budget::for_response(10_000_000));
        let again = recode(layout, version, body).unwrap();
        let context = format!("{} version {version} seed {seed}", layout.name());
        if is_request {
            let first = Request::decode(key, version, reader(body)).unwrap();
            assert_eq!(Request::decode(key, version, reader(&again)).unwrap(), first, "{context}");
        } else {
            let first = Response::decode(key, version, reader(body)).unwrap();
            assert_eq!(Response::decode(key, version, reader(&again)).unwrap(), first, "{context}");
        }
    });
}

/// The API of a request or response.
fn body_of(layout: &klamm_codegen::layout::Layout) -> Option<(ApiKey, bool)> {
    use klamm_codegen::schema::MessageKind;
    match &layout.kind {
        MessageKind::Request { key, .. } => ApiKey::from_code(*key).map(|key| (key, true)),
        MessageKind::Response { key } => ApiKey::from_code(*key).map(|key| (key, false)),
        MessageKind::Header | MessageKind::Data => None,
    }
}

#[test]
fn every_shorter_prefix_is_refused() {
    for_every_version(2, |layout, version, body, seed| {
        for len in 0..body.len() {
            let cut = body.slice(..len);
            let outcome = recode(layout, version, &cut);
            assert!(outcome.is_err(), "{} version {version} seed {seed} cut at {len}", layout.name());
        }
    });
}

#[test]
fn w07_a_byte_behind_the_body_is_refused() {
    for_every_version(2, |layout, version, body, seed| {
        let Some((key, is_request)) = body_of(layout) else {
            return;
        };
        let longer = Bytes::from([body, &[0][..]].concat());
        let reader = Reader::shared(&longer, Budget::for_response(longer.len()));
        let error = if is_request {
            Request::decode(key, version, reader).err()
        } else {
            Response::decode(key, version, reader).err()
        };
        let expected = DecodeError::TrailingBytes { at: body.len(), remaining: 1 };
        assert_eq!(error, Some(expected), "{} version {version} seed {seed}", layout.name());
    });
}

#[test]
fn versions_outside_the_served_range_are_refused() {
    for key in ApiKey::ALL {
        let served = key.versions();
        for version in [served.min() - 1, served.max() + 1, i16::MIN, i16::MAX] {
            let body = Bytes::from_static(&[0; 64]);
            let reader = Reader::shared(&body, Budget::for_request(64));
            let error = Request::decode(*key, version, reader).expect_err("refused");
            assert!(
                matches!(error, DecodeError::UnsupportedVersion { version: told, .. } if told == version),
                "{key} version {version}: {error}"
            );
        }
    }
}
