use serde::Deserialize;

use super::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct NoteV1 {
    number: u64,
    text: String,
}

impl Durable for NoteV1 {
    const RECORD_TYPE: u16 = 0x7001;
    const SCHEMA_VERSION: u16 = 1;
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct NoteV2(u64);

impl Durable for NoteV2 {
    const RECORD_TYPE: u16 = NoteV1::RECORD_TYPE;
    const SCHEMA_VERSION: u16 = 2;
}

fn note() -> NoteV1 {
    NoteV1 { number: 7, text: "seven".to_owned() }
}

fn sealed() -> Vec<u8> {
    let mut bytes = Vec::new();
    seal(&note(), &mut bytes).unwrap();
    bytes
}

#[test]
fn what_was_sealed_opens_and_leaves_the_rest() {
    let mut bytes = sealed();
    bytes.extend_from_slice(b"rest");
    assert_eq!(open::<NoteV1>(&bytes).unwrap(), (note(), &b"rest"[..]));
    assert!(matches!(open_only::<NoteV1>(&bytes), Err(EnvelopeError::Trailing { len: 4 })));
}

#[test]
fn every_cut_is_refused() {
    let bytes = sealed();
    for len in 0..bytes.len() {
        let found = open::<NoteV1>(&bytes[..len]);
        assert!(
            matches!(found, Err(EnvelopeError::Truncated { len: l, .. }) if l == len),
            "{len}: {found:?}"
        );
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let good = sealed();
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(open::<NoteV1>(&bytes).is_err(), "bit {bit} of {bytes:02x?}");
    }
}

#[test]
fn other_types_and_versions_are_refused_by_number() {
    let bytes = sealed();
    let newer = open::<NoteV2>(&bytes).unwrap_err();
    assert!(
        matches!(newer, EnvelopeError::SchemaVersion { record_type: NoteV1::RECORD_TYPE, version: 1 }),
        "{newer}"
    );
    let mut bytes = bytes;
    bytes[4] = 2;
    let newer = open::<NoteV1>(&bytes).unwrap_err();
    assert!(matches!(newer, EnvelopeError::EnvelopeVersion { version: 2 }), "{newer}");
}

#[test]
fn a_length_that_no_payload_has_is_refused_before_it_is_believed() {
    let mut bytes = sealed();
    bytes[5..9].copy_from_slice(&u32::MAX.to_be_bytes());
    let error = open::<NoteV1>(&bytes).unwrap_err();
    assert!(matches!(error, EnvelopeError::Length { len, .. } if len == u64::from(u32::MAX)), "{error}");
}

#[test]
fn a_payload_with_a_huge_string_length_is_an_error_and_takes_no_memory() {
    let payload = [&7_u64.to_le_bytes()[..], &u64::MAX.to_le_bytes()[..]].concat();
    let checked = [&NoteV1::RECORD_TYPE.to_be_bytes()[..], &1_u16.to_be_bytes()[..], &payload].concat();
    let mut bytes = [&MAGIC[..], &[ENVELOPE_VERSION], &(payload.len() as u32).to_be_bytes()].concat();
    bytes.extend_from_slice(&crc32c::crc32c(&checked).to_be_bytes());
    bytes.extend_from_slice(&checked);
    let error = open::<NoteV1>(&bytes).unwrap_err();
    assert!(matches!(error, EnvelopeError::Payload { record_type: NoteV1::RECORD_TYPE, .. }), "{error}");
}
