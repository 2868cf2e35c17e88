//! Whatever the bytes: cutting frames, reading headers and decoding any message in any version never panics and never
//! allocates more than the budget; what was decoded can be encoded, and what was encoded decodes to the same bytes.
//!
//! The first two bytes of an input choose what the rest is: a stream of frames, or the body of one message.
#![no_main]

use bytes::Bytes;
use klamm_fuzz::{CountingAllocator, assert_allocates_at_most};
use klamm_protocol::{
    ApiKey, Budget, FrameDecoder, FrameLimits, Reader, Request, RequestHead, Response, Writer,
};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// What is allocated beside the budget: the reference count of the frame.
const FIXED: usize = 256;
/// A budget that short inputs can reach.
const BUDGET: usize = 64 << 10;
const ELEMENTS: usize = 4096;

fuzz_target!(|bytes: &[u8]| {
    let Some((selector, rest)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    match klamm_fuzz::wire::select(u16::from_be_bytes(*selector)) {
        Some((key, version, true)) => round_trip(
            rest,
            |body| Request::decode(key, version, body),
            |message, writer| message.encode(version, writer),
        ),
        Some((key, version, false)) => round_trip(
            rest,
            |body| Response::decode(key, version, body),
            |message, writer| message.encode(version, writer),
        ),
        None => stream(rest),
    }
});

fn round_trip<M, D, E>(
    body: &[u8],
    decode: impl Fn(Reader<'_>) -> Result<M, D>,
    encode: impl Fn(&M, &mut Writer) -> Result<(), E>,
) where
    E: std::fmt::Debug,
    D: std::fmt::Debug,
{
    let frame = Bytes::copy_from_slice(body);
    let decoded = assert_allocates_at_most(BUDGET + FIXED, "decoding", || {
        decode(Reader::shared(&frame, Budget::new(BUDGET, ELEMENTS)))
    });
    let Ok(message) = decoded else {
        return;
    };
    let encoded = written(|writer| encode(&message, writer).expect("what was decoded can be encoded"));
    let again = decode(Reader::shared(&encoded, Budget::new(BUDGET, ELEMENTS))).expect("our own encoding");
    // Bytes, not messages, are compared: a number that is none differs from itself.
    assert_eq!(written(|writer| encode(&again, writer).expect("as before")), encoded);
}

fn written(write: impl FnOnce(&mut Writer)) -> Bytes {
    let mut writer = Writer::new();
    write(&mut writer);
    writer.finish().expect("short").into_bytes().expect("all in memory")
}

/// Frames that arrive in pieces of 7 bytes, each with a header and a body.
fn stream(bytes: &[u8]) {
    let mut decoder = FrameDecoder::new(FrameLimits::for_requests(64 << 10));
    for piece in bytes.chunks(7) {
        decoder.buffer().extend_from_slice(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => request(&frame),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

fn request(frame: &Bytes) {
    let mut reader = Reader::shared(frame, Budget::new(BUDGET, ELEMENTS));
    let head = assert_allocates_at_most(BUDGET + FIXED, "a header", || RequestHead::decode(&mut reader));
    if let Ok(head) = head {
        assert!(ApiKey::ALL.contains(&head.key));
        let _ = Request::decode(head.key, head.version, reader);
    }
}
