//! What Kafka accepts we accept, byte for byte, and what we accept Kafka accepts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use klamm_codegen::Paths;
use klamm_codegen::layout::Layout;
use klamm_codegen::sample::{Bounds, Sampler};
use klamm_codegen::schema::MessageKind;
use klamm_protocol::messages::{RequestHeader, ResponseHeader};
use klamm_protocol::{ApiKey, Budget, DecodeError, ErrorCode, Reader, Request, Response, Writer};
use klamm_tests::skip;
use klamm_tests::tools::workspace;

use crate::judge::{Case, Judge};

const SAMPLES: u64 = 6;

fn layouts() -> Vec<Layout> {
    klamm_codegen::layouts(&workspace().join("crates/protocol/schema")).unwrap()
}

/// Samples of every request, response and header; `damage` may change each.
fn cases(mut damage: impl FnMut(&mut Sampler, &mut Vec<u8>)) -> Vec<(MessageKind, Case)> {
    let mut cases = Vec::new();
    for layout in layouts().iter().filter(|layout| layout.kind != MessageKind::Data) {
        for version in layout.versions.iter() {
            for seed in 0..SAMPLES {
                let large = seed == 0;
                let bounds = if large {
                    Bounds { elements_max: 4, bytes_max: 300 }
                } else {
                    Bounds { elements_max: 2, bytes_max: 10 }
                };
                let mut sampler = Sampler::new(seed + 1000, bounds);
                let mut body = sampler.message(layout, version);
                damage(&mut sampler, &mut body);
                let message = layout.name().to_owned();
                cases.push((layout.kind.clone(), Case { message, version, body }));
            }
        }
    }
    cases
}

/// Decodes a case and encodes the result.
fn ours(kind: &MessageKind, case: &Case) -> Result<Vec<u8>, DecodeError> {
    let body = Bytes::from(case.body.clone());
    let mut reader = Reader::shared(&body, Budget::for_response(body.len()));
    let mut writer = Writer::new();
    let key = |code: &i16| ApiKey::from_code(*code).expect("an API of the listing");
    match kind {
        MessageKind::Request { key: code, .. } => {
            Request::decode(key(code), case.version, reader)?.encode(case.version, &mut writer)
        }
        MessageKind::Response { key: code } => {
            Response::decode(key(code), case.version, reader)?.encode(case.version, &mut writer)
        }
        MessageKind::Header | MessageKind::Data if case.message == "RequestHeader" => {
            let header = RequestHeader::decode(case.version, &mut reader)?;
            reader.finish()?;
            header.encode(case.version, &mut writer)
        }
        MessageKind::Header | MessageKind::Data => {
            let header = ResponseHeader::decode(case.version, &mut reader)?;
            reader.finish()?;
            header.encode(case.version, &mut writer)
        }
    }
    .expect("what was decoded can be encoded");
    Ok(writer.finish().unwrap().into_bytes().unwrap().to_vec())
}

#[test]
fn kafka_reads_and_writes_the_same_bytes() {
    let Some(judge) = skip::unless("kafka_reads_and_writes_the_same_bytes", Judge::find()) else { return };
    let (kinds, cases): (Vec<_>, Vec<_>) = cases(|_, _| {}).into_iter().unzip();
    let verdicts = judge.recode(&cases);
    for ((kind, case), theirs) in kinds.iter().zip(&cases).zip(verdicts) {
        let context = format!("{} version {} {:02x?}", case.message, case.version, case.body);
        let ours = ours(kind, case).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert_eq!(ours, case.body, "{context}");
        match theirs {
            Ok(theirs) => assert_eq!(theirs, ours, "{context}"),
            Err(reason) => panic!("{context}: Kafka says {reason}"),
        }
    }
    assert!(cases.len() > 600 * 6, "only {} cases", cases.len());
}

#[test]
fn damaged_messages_find_the_same_verdict() {
    let Some(judge) = skip::unless("damaged_messages_find_the_same_verdict", Judge::find()) else { return };
    let (kinds, cases): (Vec<_>, Vec<_>) = cases(damage).into_iter().unzip();
    let verdicts = judge.recode(&cases);
    let (mut accepted, mut refused) = (0, 0);
    for ((kind, case), theirs) in kinds.iter().zip(&cases).zip(verdicts) {
        let context = format!("{} version {} {:02x?}", case.message, case.version, case.body);
        match (ours(kind, case), theirs) {
            (Ok(_), Ok(_)) => accepted += 1,
            (Err(_), Err(_)) => refused += 1,
            (Ok(_), Err(reason)) => panic!("{context}: we accept, Kafka says {reason}"),
            // Where the two differ, the body was not what Kafka itself would have written.
            (Err(error), Ok(theirs)) => {
                assert_ne!(theirs, case.body, "{context}: Kafka accepts, we say {error}");
            }
        }
    }
    assert!(accepted > 500 && refused > 500, "{accepted} accepted, {refused} refused");
}

/// Changes, removes or inserts a byte, or cuts the end off.
fn damage(sampler: &mut Sampler, body: &mut Vec<u8>) {
    let at = sampler.below(body.len());
    let byte = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff][sampler.below(7)];
    match sampler.below(4) {
        _ if body.is_empty() => body.push(byte),
        0 => body.truncate(at),
        1 => body.insert(at, byte),
        2 => drop(body.remove(at)),
        _ => body[at] = byte,
    }
}

#[test]
fn the_tables_are_those_of_kafka() {
    let Some(judge) = skip::unless("the_tables_are_those_of_kafka", Judge::find()) else { return };
    let mut ours = Vec::new();
    for key in ApiKey::ALL {
        for version in key.versions().iter() {
            ours.push(format!(
                "api {} {key} {version} {} {} {} {} {}",
                key.code(),
                key.stable_versions().contains(version),
                key.request_header_version(version),
                key.response_header_version(version),
                key.is_on_broker(),
                key.is_on_controller(),
            ));
        }
    }
    ours.extend(
        ErrorCode::ALL.iter().map(|error| format!("error {} {error} {}", error.code(), error.is_retriable())),
    );
    let theirs = judge.facts();
    let theirs: Vec<&str> = theirs.lines().collect();
    assert_eq!(ours, theirs);
}

#[test]
fn the_listing_is_what_kafka_publishes() {
    let Some(judge) = skip::unless("the_listing_is_what_kafka_publishes", Judge::find()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let paths =
        Paths { schema: directory.path().join("schema"), generated: directory.path().join("generated") };
    klamm_codegen::import(&judge.clients_jar(), &paths).unwrap();
    let committed = Paths::of_workspace(workspace()).schema;
    let read = |folder: &Path| -> BTreeMap<_, _> {
        let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let listings = paths.filter(|path| path.extension().is_some_and(|found| found == "schema"));
        listings
            .map(|path| (path.file_name().unwrap().to_owned(), fs::read_to_string(path).unwrap()))
            .collect()
    };
    let published = read(&paths.schema);
    assert!(published.len() > 80, "only {} files", published.len());
    assert_eq!(read(&committed), published);
}
