//! Whatever the bytes: cutting frames, reading headers and decoding any message in any version never panics and never
//! allocates more than the budget; what was decoded can be encoded, and what was encoded decodes to the same bytes.
//!
//! The first two bytes of an input choose what the rest is: a stream of frames, or the body of one message.
#![no_main]

use bytes::Bytes;
use klamm_fuzz::decoding::{DECODING_MAX, budget, round_trip};
use klamm_fuzz::{CountingAllocator, assert_allocates_at_most};
use klamm_protocol::{ApiKey, FrameDecoder, FrameLimits, Reader, Request, RequestHead, Response};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fuzz_target!(|bytes: &[u8]| {
    let Some((selector, rest)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    match klamm_fuzz::wire::select(u16::from_be_bytes(*selector)) {
        Some((key, version, true)) => {
            round_trip(
                rest,
                |body| Request::decode(key, version, body),
                |message, writer| message.encode(version, writer),
            );
        }
        Some((key, version, false)) => {
            round_trip(
                rest,
                |body| Response::decode(key, version, body),
                |message, writer| message.encode(version, writer),
            );
        }
        None => stream(rest),
    }
});

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
    let mut reader = Reader::shared(frame, budget());
    let head = assert_allocates_at_most(DECODING_MAX, "a header", || RequestHead::decode(&mut reader));
    if let Ok(head) = head {
        assert!(ApiKey::ALL.contains(&head.key));
        let _ = Request::decode(head.key, head.version, reader);
    }
}
