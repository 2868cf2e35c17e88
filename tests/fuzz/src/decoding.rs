//! What holds for every decoder of messages, whatever the bytes.

use std::fmt::Debug;

use bytes::Bytes;
use klamm_protocol::{ApiKey, ApiRequest, Budget, DecodeError, Reader, Writer};

use crate::assert_allocates_at_most;

/// A budget that short inputs can reach, in bytes.
const BUDGET: usize = 64 << 10;
const ELEMENTS: usize = 4096;
/// What decoding may allocate, in bytes: the budget, and the reference count of the frame beside it.
pub const DECODING_MAX: usize = BUDGET + 256;

/// The budget of one message.
pub fn budget() -> Budget {
    Budget::new(BUDGET, ELEMENTS)
}

/// Declares the fuzz target of the requests of one type: the first byte of an input chooses the version, the rest is
/// the body.
#[macro_export]
macro_rules! request_target {
    ($request:ident) => {
        #[global_allocator]
        static ALLOCATOR: $crate::CountingAllocator = $crate::CountingAllocator;

        $crate::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
            if let Some((selector, body)) = bytes.split_first() {
                $crate::decoding::request::<$crate::klamm_protocol::messages::$request>(*selector, body);
            }
        });
    };
}

/// The version that the first byte of an input chooses.
pub fn version(key: ApiKey, selector: u8) -> i16 {
    let versions = key.versions();
    versions.min() + i16::from(selector) % (versions.max() - versions.min() + 1)
}

/// The first byte of an input that chooses this version, `None` if there is no such version.
pub fn selector(key: ApiKey, version: i16) -> Option<u8> {
    let versions = key.versions();
    versions.contains(version).then(|| u8::try_from(version - versions.min()).ok())?
}

/// Decodes a request in both ways that a broker has, as a copy and as slices of the frame, and holds both to what
/// they promise.
///
/// # Panics
/// If one of them does not keep it: more memory than the budget, another message, one that cannot be encoded or comes
/// back changed, or another length than the one the message has.
pub fn request<R: ApiRequest + Debug>(selector: u8, body: &[u8]) {
    let version = version(R::KEY, selector);
    let decode = |reader: Reader<'_>| R::decode_whole(version, reader);
    let slices = round_trip(body, decode, |message, writer| message.encode_into(version, writer));
    if slices.is_some() {
        ends_with_its_frame(body, decode);
    }
    let copied =
        assert_allocates_at_most(DECODING_MAX, "decoding a copy", || decode(Reader::new(body, budget())));
    match (slices, copied) {
        (Some(encoded), Ok(copied)) => {
            let copied = written(|writer| copied.encode_into(version, writer).expect("as the slices"));
            assert_eq!(encoded, copied);
        }
        // Only a copy pays for the payload.
        (Some(_), Err(DecodeError::OverBudget { .. })) | (None, Err(_)) => {}
        (slices, copied) => panic!("as slices {slices:?}, as a copy {copied:?}"),
    }
}

/// What is shorter by a byte is no message any more, and what is longer only to a reader that ignores what is behind.
fn ends_with_its_frame<R: Debug>(body: &[u8], decode: impl Fn(Reader<'_>) -> Result<R, DecodeError>) {
    if let Some((_, shorter)) = body.split_last() {
        let shorter = Bytes::copy_from_slice(shorter);
        decode(Reader::shared(&shorter, budget())).expect_err("a message that lacks its end");
    }
    let longer = Bytes::from([body, &[0]].concat());
    let refusal = decode(Reader::shared(&longer, budget())).expect_err("a message with a byte behind it");
    assert_eq!(refusal, DecodeError::TrailingBytes { at: body.len(), remaining: 1 });
    decode(Reader::shared(&longer, budget()).ignoring_behind(1)).expect("a byte that is ignored");
}

/// Decodes a message; if it is one, encodes it, decodes that, and returns the encoding.
///
/// # Panics
/// If decoding takes more memory than its budget, or encoding and decoding again does not give the same bytes.
pub fn round_trip<M, D: Debug, E: Debug>(
    body: &[u8],
    decode: impl Fn(Reader<'_>) -> Result<M, D>,
    encode: impl Fn(&M, &mut Writer) -> Result<(), E>,
) -> Option<Bytes> {
    let frame = Bytes::copy_from_slice(body);
    let decoded =
        assert_allocates_at_most(DECODING_MAX, "decoding", || decode(Reader::shared(&frame, budget())));
    let message = decoded.ok()?;
    let encoded = written(|writer| encode(&message, writer).expect("what was decoded can be encoded"));
    let again = decode(Reader::shared(&encoded, budget())).expect("our own encoding");
    // Bytes, not messages, are compared: a number that is none differs from itself.
    assert_eq!(written(|writer| encode(&again, writer).expect("as before")), encoded);
    Some(encoded)
}

fn written(write: impl FnOnce(&mut Writer)) -> Bytes {
    let mut writer = Writer::new();
    write(&mut writer);
    writer.finish().expect("short").into_bytes().expect("all in memory")
}
