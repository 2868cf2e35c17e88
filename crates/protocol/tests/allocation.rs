//! Decoding never allocates more than its budget, whatever the bytes are.
#![allow(unsafe_code, reason = "an allocator that counts can only be written with it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use bytes::Bytes;
use klamm_codegen::sample::{Bounds, Sampler};
use klamm_codegen::schema::MessageKind;
use klamm_protocol::{ApiKey, Budget, DecodeError, Reader, Request, Response};

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// Counts what the current thread holds.
struct Counting;

fn grow(bytes: usize) {
    LIVE.set(LIVE.get().saturating_add(bytes));
    PEAK.set(PEAK.get().max(LIVE.get()));
}

fn shrink(bytes: usize) {
    LIVE.set(LIVE.get().saturating_sub(bytes));
}

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        shrink(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        grow(new_size);
        shrink(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The reference count that a frame gets when its first slice is taken.
const FRAME_OVERHEAD: usize = 64;

/// The most that `run` held at once beyond what was held before.
fn peak_of<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = run();
    (result, PEAK.get() - before)
}

fn decode(
    kind: &MessageKind,
    version: i16,
    frame: &Bytes,
    budget: Budget,
) -> Option<Result<(), DecodeError>> {
    let reader = Reader::shared(frame, budget);
    match kind {
        MessageKind::Request { key, .. } => {
            Some(Request::decode(ApiKey::from_code(*key)?, version, reader).map(drop))
        }
        MessageKind::Response { key } => {
            Some(Response::decode(ApiKey::from_code(*key)?, version, reader).map(drop))
        }
        MessageKind::Header | MessageKind::Data => None,
    }
}

/// Changes one to four places of a body to bytes that lengths and counts are made of.
fn damage(sampler: &mut Sampler, body: &mut [u8]) {
    for _ in 0..=sampler.below(4) {
        if !body.is_empty() {
            let at = sampler.below(body.len());
            let any = sampler.bits().to_be_bytes()[0];
            body[at] = [0, 1, 0x7f, 0x80, 0xff, any][sampler.below(6)];
        }
    }
}

#[test]
fn damaged_and_random_bytes_stay_within_the_budget() {
    let layouts = klamm_codegen::layouts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("schema")).unwrap();
    let (mut accepted, mut refused) = (0, 0);
    for layout in &layouts {
        for version in layout.versions.iter() {
            for seed in 0..30 {
                let bounds = Bounds { elements_max: 4, bytes_max: 30 };
                let mut sampler = Sampler::new(seed, bounds);
                let mut body = sampler.message(layout, version);
                if seed % 3 == 0 {
                    body = (0..sampler.below(200)).map(|_| sampler.bits().to_be_bytes()[0]).collect();
                } else {
                    damage(&mut sampler, &mut body);
                }
                let frame = Bytes::from(body);
                let bytes = [500, 5000, 100_000][sampler.below(3)];
                let (outcome, peak) =
                    peak_of(|| decode(&layout.kind, version, &frame, Budget::new(bytes, 10_000)));
                assert!(
                    peak <= bytes + FRAME_OVERHEAD,
                    "{} version {version} seed {seed}: {peak} of {bytes} bytes",
                    layout.name()
                );
                match outcome {
                    Some(Ok(())) => accepted += 1,
                    Some(Err(_)) => refused += 1,
                    None => {}
                }
            }
        }
    }
    assert!(accepted > 1000 && refused > 1000, "{accepted} accepted, {refused} refused");
}

/// A body that a row of the malformed-input table describes.
fn bomb(row: &str) -> (ApiKey, i16, Vec<u8>) {
    match row {
        // W13: two billion topics in ten bytes.
        "w13" => (ApiKey::Metadata, 8, vec![0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0]),
        // W14: four billion elements by a varint.
        "w14" => (ApiKey::Metadata, 12, vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0, 0]),
        // W15: Fetch, where every byte of a megabyte says "128 elements".
        "w15" => (ApiKey::Fetch, 12, vec![0x81; 1 << 20]),
        // W17: a tagged section of twenty million fields, a megabyte of which arrived.
        "w17" => {
            let mut body = vec![1, 0, 0, 0x80, 0xda, 0xc4, 0x09];
            body.extend((0..=127).flat_map(|tag| [tag, 0]));
            body.resize(1 << 20, 0);
            (ApiKey::Metadata, 12, body)
        }
        // W24: a million topics that are really there.
        "w24" => {
            let mut body = 1_000_000i32.to_be_bytes().to_vec();
            body.extend((0..1_000_000).flat_map(|_| [0, 1, b't']));
            (ApiKey::Metadata, 0, body)
        }
        other => panic!("no bomb for {other}"),
    }
}

#[test]
fn bombs_are_refused_before_memory_is_taken() {
    for row in ["w13", "w14", "w15", "w17", "w24"] {
        let (key, version, body) = bomb(row);
        let frame = Bytes::from(body);
        let budget = Budget::for_request(frame.len());
        let (outcome, peak) = peak_of(|| Request::decode(key, version, Reader::shared(&frame, budget)));
        assert!(outcome.is_err(), "{row}");
        assert!(peak <= 64 << 10, "{row}: {peak} bytes");
    }
}

#[test]
fn the_largest_request_stays_below_the_ceiling() {
    // As many short names as the element count allows, in a frame that is long enough to afford them.
    let count = Budget::REQUEST_ELEMENTS_MAX;
    let mut body = i32::try_from(count).unwrap().to_be_bytes().to_vec();
    body.extend((0..count).flat_map(|_| {
        let mut name = vec![0, 10];
        name.extend_from_slice(b"topic-name");
        name
    }));
    let frame = Bytes::from(body);
    let budget = Budget::for_request(frame.len());
    let (outcome, peak) =
        peak_of(|| Request::decode(ApiKey::Metadata, 0, Reader::shared(&frame, budget)).is_ok());
    assert!(outcome, "half a million topics are a request");
    assert!(peak <= Budget::REQUEST_BYTES_MAX, "{peak}");
    assert!(peak <= 8 * frame.len() + (64 << 10), "{peak} for a frame of {}", frame.len());
}

#[test]
fn requests_with_many_short_names_fit_their_budget() {
    let layouts = klamm_codegen::layouts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("schema")).unwrap();
    let mut decoded = 0;
    for layout in layouts.iter().filter(|layout| matches!(layout.kind, MessageKind::Request { .. })) {
        for version in layout.versions.iter() {
            for seed in 0..6 {
                let bounds = Bounds { elements_max: if seed % 2 == 0 { 40 } else { 6 }, bytes_max: 12 };
                let frame = Bytes::from(Sampler::new(seed, bounds).message(layout, version));
                // What is lent to short requests beside their eightfold length is not needed.
                let budget = Budget::new(8 * frame.len(), Budget::REQUEST_ELEMENTS_MAX);
                if frame.len() >= 200 {
                    let outcome = decode(&layout.kind, version, &frame, budget);
                    assert_eq!(outcome, Some(Ok(())), "{} version {version} seed {seed}", layout.name());
                    decoded += 1;
                }
            }
        }
    }
    assert!(decoded > 300, "only {decoded} requests are long enough");
}
