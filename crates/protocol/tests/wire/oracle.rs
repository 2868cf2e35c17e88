//! The `kafka-protocol` crate as judge: it decodes what we encode and encodes the same bytes again, for every
//! version that it knows (4.1 at the time of writing).

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey as TheirKey, RequestKind, ResponseKind};
use klamm_codegen::schema::MessageKind;

use crate::recode::{for_every_version, recode};

/// Versions within the oracle's range of an API that its request cannot do.
const UNKNOWN_TO_THEM: [(&str, i16); 3] =
    [("InitProducerIdRequest", 6), ("OffsetCommitRequest", 10), ("OffsetFetchRequest", 10)];

/// What the oracle makes of a body; `None` if it does not know the version.
fn theirs(kind: &MessageKind, version: i16, body: &Bytes) -> Option<Result<Bytes, String>> {
    let (MessageKind::Request { key, .. } | MessageKind::Response { key }) = kind else {
        return None;
    };
    let key = TheirKey::try_from(*key).ok()?;
    let known = key.valid_versions();
    if version < known.min || version > known.max {
        return None;
    }
    let mut rest = body.clone();
    let mut out = BytesMut::new();
    let outcome = if matches!(kind, MessageKind::Request { .. }) {
        RequestKind::decode(key, &mut rest, version).and_then(|request| request.encode(&mut out, version))
    } else {
        ResponseKind::decode(key, &mut rest, version).and_then(|response| response.encode(&mut out, version))
    };
    Some(match outcome {
        Ok(()) if rest.is_empty() => Ok(out.freeze()),
        Ok(()) => Err(format!("{} bytes left", rest.len())),
        Err(error) => Err(format!("{error:#}")),
    })
}

#[test]
fn kafka_protocol_reads_and_writes_the_same_bytes() {
    let mut compared = std::collections::BTreeSet::new();
    for_every_version(24, |layout, version, body, seed| {
        let ours = recode(layout, version, body).unwrap();
        let context = format!("{} version {version} seed {seed}", layout.name());
        match theirs(&layout.kind, version, &ours) {
            None => {}
            Some(Ok(theirs)) => {
                assert_eq!(theirs, ours, "{context}");
                compared.insert((layout.name().to_owned(), version));
            }
            Some(Err(_)) if UNKNOWN_TO_THEM.contains(&(layout.name(), version)) => {}
            Some(Err(error)) => panic!("{context}: {error} in {ours:02x?}"),
        }
    });
    assert!(compared.len() >= 577, "only {} versions of messages compared", compared.len());
}
