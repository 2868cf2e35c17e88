//! Any message, told by its layout: decode, and encode again.

use std::path::Path;

use bytes::Bytes;
use klamm_codegen::layout::Layout;
use klamm_codegen::sample::{Bounds, Sampler};
use klamm_codegen::schema::MessageKind;
use klamm_protocol::messages::*;
use klamm_protocol::{ApiKey, Budget, DecodeError, EncodeError, Reader, Request, Response, Writer};

/// Why a message did not survive.
#[derive(Debug)]
pub(crate) enum RecodeError {
    Decode(#[expect(dead_code, reason = "shown when a test fails")] DecodeError),
    Encode(#[expect(dead_code, reason = "shown when a test fails")] EncodeError),
    NoCode,
}

impl From<DecodeError> for RecodeError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl From<EncodeError> for RecodeError {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

/// The listing of this crate.
pub(crate) fn layouts() -> Vec<Layout> {
    let layouts = klamm_codegen::layouts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("schema")).unwrap();
    assert_eq!(layouts.len(), 190, "178 bodies, 2 headers, 10 embedded structures");
    layouts
}

/// Calls `check` with samples of every message in every version; `seeds` samples each, small ones and some
/// large ones.
pub(crate) fn for_every_version(seeds: u64, mut check: impl FnMut(&Layout, i16, &Bytes, u64)) {
    for layout in layouts() {
        for version in layout.versions.iter() {
            for seed in 0..seeds {
                let bounds = match seed % 4 {
                    0 => Bounds { elements_max: 5, bytes_max: 40 },
                    3 => Bounds { elements_max: 2, bytes_max: 1500 },
                    _ => Bounds { elements_max: 2, bytes_max: 12 },
                };
                let body = Bytes::from(Sampler::new(seed, bounds).message(&layout, version));
                check(&layout, version, &body, seed);
            }
        }
    }
}

/// Decodes the whole of `body` and encodes the result; the decoded message also compares equal to what its own
/// encoding decodes to.
pub(crate) fn recode(layout: &Layout, version: i16, body: &Bytes) -> Result<Bytes, RecodeError> {
    let budget = Budget::for_response(body.len());
    let reader = || Reader::shared(body, budget);
    let key = |code| ApiKey::from_code(code).ok_or(RecodeError::NoCode);
    let mut writer = Writer::new();
    match &layout.kind {
        MessageKind::Request { key: code, .. } => {
            Request::decode(key(*code)?, version, reader())?.encode(version, &mut writer)?;
        }
        MessageKind::Response { key: code } => {
            Response::decode(key(*code)?, version, reader())?.encode(version, &mut writer)?;
        }
        MessageKind::Header | MessageKind::Data => {
            recode_other(layout.name(), version, reader(), &mut writer)?;
        }
    }
    Ok(writer.finish()?.into_bytes().expect("all in memory"))
}

macro_rules! others {
    ($name:expr, $version:expr, $reader:expr, $writer:expr, $($message:ident)*) => {
        match $name {
            $(stringify!($message) => {
                let mut reader = $reader;
                let message = $message::decode($version, &mut reader)?;
                reader.finish()?;
                message.encode($version, $writer)?;
            })*
            _ => return Err(RecodeError::NoCode),
        }
    };
}

fn recode_other(
    name: &str,
    version: i16,
    reader: Reader<'_>,
    writer: &mut Writer,
) -> Result<(), RecodeError> {
    others!(name, version, reader, writer,
        RequestHeader ResponseHeader ConsumerProtocolAssignment ConsumerProtocolSubscription
        ControlRecordTypeSchema DefaultPrincipalData EndTxnMarker KRaftVersionRecord LeaderChangeMessage
        SnapshotFooterRecord SnapshotHeaderRecord VotersRecord
    );
    Ok(())
}
