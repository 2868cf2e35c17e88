//! W40: compressed records.

use std::io::Write;

use klamm_record::{Codec, CodecError, RecordBatch, Refusal, ValidationError, ValidationOptions, validate};
use klamm_types::Offset;

use crate::raw::{Raw, codec_error, compress, options, record};

#[test]
fn w40_truncated_compressed_records_are_corrupt() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let good = Raw::small(50).compressed(codec);
        for len in 0..good.payload.len() {
            let raw = good.clone().with_payload(codec, good.payload[..len].to_vec());
            let error = raw.error();
            let without_end = match codec {
                // A snappy stream has no end mark: cut between blocks it is whole, but records are missing.
                Codec::Snappy => error.refusal() == Refusal::InvalidRecord,
                _ => false,
            };
            assert!(
                error.refusal() == Refusal::CorruptMessage || without_end,
                "{codec}, {len} bytes: {error}"
            );
        }
    }
}

#[test]
fn w40_the_wrong_codec_is_corrupt() {
    for actual in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        for claimed in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let raw = Raw::small(50).compressed(actual);
            let payload = raw.payload.clone();
            let error = match validate(&raw.with_payload(claimed, payload).bytes(), &options()) {
                Ok(_) => {
                    assert_eq!(actual, claimed);
                    continue;
                }
                Err(error) => error,
            };
            assert_ne!(actual, claimed);
            assert_eq!(error.refusal(), Refusal::CorruptMessage, "{actual} called {claimed}: {error}");
        }
    }
    let plain = Raw::small(50);
    for claimed in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let raw = plain.clone().with_payload(claimed, plain.payload.clone());
        assert_eq!(raw.refusal(), Refusal::CorruptMessage, "uncompressed called {claimed}");
    }
}

#[test]
fn w40_trailing_garbage_is_corrupt() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        for garbage in [&[0][..], &[0; 30], b"garbage that follows"] {
            let good = Raw::small(50).compressed(codec);
            let payload = [&good.payload, garbage].concat();
            let error = good.with_payload(codec, payload).error();
            assert_eq!(error.refusal(), Refusal::CorruptMessage, "{codec} and {garbage:?}: {error}");
        }
    }
}

#[test]
fn w40_a_nested_batch_is_corrupt() {
    let inner = Raw::small(3);
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut outer = inner.clone();
        outer.payload = inner.clone().compressed(codec).bytes();
        let error = outer.compressed(codec).error();
        assert_eq!((error, error.refusal()), (ValidationError::NestedBatch, Refusal::CorruptMessage));
    }
}

/// Records that compress a thousandfold and more: one value of zeros.
fn bomb(decompressed_len: usize) -> Raw {
    Raw::new(&[record(0, 0, None, Some(&vec![0; decompressed_len]))])
}

#[test]
fn w40_a_bomb_is_corrupt() {
    let limited = ValidationOptions { decompressed_bytes_max: 1 << 20, ..options() };
    let bomb = bomb(8 << 20);
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let error = bomb.clone().compressed(codec).error_under(&limited);
        assert_eq!(codec_error(error), CodecError::OutputLimit { codec, limit: 1 << 20 });
        assert_eq!(error.refusal(), Refusal::CorruptMessage);
        assert!(
            validate(&bomb.clone().compressed(codec).bytes(), &options()).is_ok(),
            "{codec}, below the limit"
        );
    }
}

#[test]
fn w40_the_limit_is_exact() {
    let raw = bomb(100_000);
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let bytes = raw.clone().compressed(codec).bytes();
        let len = raw.payload.len() as u64;
        let limited = |decompressed_bytes_max| ValidationOptions { decompressed_bytes_max, ..options() };
        assert!(validate(&bytes, &limited(len)).is_ok(), "{codec}");
        let error = validate(&bytes, &limited(len - 1)).unwrap_err();
        assert_eq!(codec_error(error), CodecError::OutputLimit { codec, limit: len - 1 });
    }
}

#[test]
fn w40_a_zstd_window_of_two_gib_is_corrupt() {
    // Magic, descriptor without content size, window descriptor: 2^(10 + exponent). Then one last raw block.
    let records = Raw::small(1).payload;
    let frame = |exponent: u8| {
        let block_header = (records.len() as u32) << 3 | 1;
        [&[0x28, 0xb5, 0x2f, 0xfd, 0, exponent << 3], &block_header.to_le_bytes()[..3], &records[..]].concat()
    };
    for (exponent, good) in [(0, true), (17, true), (18, false), (21, false), (31, false)] {
        let raw = Raw::small(1).with_payload(Codec::Zstd, frame(exponent));
        match validate(&raw.bytes(), &options()) {
            Ok(_) => assert!(good, "window 2^{}", 10 + u32::from(exponent)),
            Err(error) => assert!(!good && error.refusal() == Refusal::CorruptMessage, "{exponent}: {error}"),
        }
    }
}

/// An LZ4 frame with one stored block, its header checksum right.
fn lz4_frame(flags: u8, block_size: u8, length: u32, block: &[u8]) -> Vec<u8> {
    let checksum = (twox_hash::XxHash32::oneshot(0, &[flags, block_size]) >> 8) as u8;
    let head = [0x04, 0x22, 0x4d, 0x18, flags, block_size, checksum];
    [&head[..], &length.to_le_bytes(), block, &[0; 4]].concat()
}

#[test]
fn w40_a_bad_lz4_frame_is_corrupt() {
    const STORED: u32 = 1 << 31;
    let records = Raw::small(1).payload;
    let len = records.len() as u32;
    let good = lz4_frame(0x60, 0x40, len | STORED, &records);
    assert!(validate(&Raw::small(1).with_payload(Codec::Lz4, good.clone()).bytes(), &options()).is_ok());
    let mut wrong_checksum = good.clone();
    wrong_checksum[6] ^= 1;
    for (what, frame) in [
        ("version 0", lz4_frame(0x20, 0x40, len | STORED, &records)),
        ("version 2", lz4_frame(0xa0, 0x40, len | STORED, &records)),
        ("linked blocks", lz4_frame(0x40, 0x40, len | STORED, &records)),
        ("reserved flag", lz4_frame(0x62, 0x40, len | STORED, &records)),
        ("dictionary", lz4_frame(0x61, 0x40, len | STORED, &records)),
        ("block size 3", lz4_frame(0x60, 0x30, len | STORED, &records)),
        ("block size 8", lz4_frame(0x60, 0x80, len | STORED, &records)),
        ("reserved block size", lz4_frame(0x60, 0x41, len | STORED, &records)),
        ("header checksum", wrong_checksum),
        ("block longer than the data", lz4_frame(0x60, 0x40, (len + 100) | STORED, &records)),
        ("block longer than the maximum", lz4_frame(0x60, 0x40, 65_537 | STORED, &[0; 65_537])),
        ("block of nonsense", lz4_frame(0x60, 0x40, len, &records)),
        ("old frame", [&[0x02, 0x21, 0x4c, 0x18][..], &good[4..]].concat()),
        ("no end mark", good[..good.len() - 4].to_vec()),
    ] {
        let error = Raw::small(1).with_payload(Codec::Lz4, frame).error();
        assert_eq!(error.refusal(), Refusal::CorruptMessage, "{what}: {error}");
    }
}

#[test]
fn w40_lz4_checksums_and_sizes_are_checked() {
    let records = Raw::small(50).payload;
    let frame = |block: bool, content: bool, size: Option<u64>| {
        let info = lz4_flex::frame::FrameInfo::new().block_checksums(block).content_checksum(content);
        let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info.content_size(size), Vec::new());
        encoder.write_all(&records).unwrap();
        encoder.finish().unwrap()
    };
    for (frame, block) in [
        (frame(true, false, None), true),
        (frame(false, true, None), false),
        (frame(true, true, Some(records.len() as u64)), true),
    ] {
        let raw = Raw::small(50).with_payload(Codec::Lz4, frame.clone());
        assert!(validate(&raw.bytes(), &options()).is_ok());
        for at in 0..frame.len() {
            let mut damaged = frame.clone();
            damaged[at] ^= 0x10;
            let error = Raw::small(50).with_payload(Codec::Lz4, damaged).error();
            // A checksum at the end is compared only if the records before it could be walked over.
            let walked_first = !block && error.refusal() == Refusal::InvalidRecord;
            assert!(error.refusal() == Refusal::CorruptMessage || walked_first, "byte {at}: {error}");
        }
    }
    let mut wrong_size = frame(false, false, Some(records.len() as u64));
    wrong_size[6] += 1;
    wrong_size[14] = (twox_hash::XxHash32::oneshot(0, &wrong_size[4..14]) >> 8) as u8;
    let error = Raw::small(50).with_payload(Codec::Lz4, wrong_size).error();
    assert!(matches!(codec_error(error), CodecError::Corrupt { codec: Codec::Lz4, .. }));
}

#[test]
fn w40_a_bad_snappy_chunk_is_corrupt() {
    let good = Raw::small(50).compressed(Codec::Snappy);
    let length = i32::from_be_bytes(good.payload[16..20].try_into().unwrap());
    for wrong in [-1, i32::MIN, i32::MAX, length + 1, length - 1, 0] {
        let mut payload = good.payload.clone();
        payload[16..20].copy_from_slice(&wrong.to_be_bytes());
        let error = good.clone().with_payload(Codec::Snappy, payload).error();
        assert_eq!(error.refusal(), Refusal::CorruptMessage, "chunk length {wrong}: {error}");
    }
    let mut old_version = good.payload.clone();
    old_version[8..12].fill(0);
    assert_eq!(good.clone().with_payload(Codec::Snappy, old_version).refusal(), Refusal::CorruptMessage);
    // A bare block that claims 4 GiB in seven bytes: refused by its ratio, before anything is allocated.
    let claim = vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x41];
    let error = good
        .with_payload(Codec::Snappy, claim)
        .error_under(&ValidationOptions { decompressed_bytes_max: u64::MAX, ..options() });
    assert_eq!(codec_error(error), CodecError::Corrupt { codec: Codec::Snappy, position: 0 });
}

#[test]
fn both_forms_of_snappy_are_read() {
    let good = Raw::small(5000);
    let bare = snap::raw::Encoder::new().compress_vec(&good.payload).unwrap();
    let framed = compress(Codec::Snappy, &good.payload).unwrap();
    assert_ne!(bare, framed);
    for payload in [bare, framed] {
        let bytes = good.clone().with_payload(Codec::Snappy, payload).bytes();
        let validated = validate(&bytes, &options()).unwrap();
        assert_eq!(validated.decompressed_bytes, good.payload.len() as u64);
        let batch = RecordBatch::parse(&bytes).unwrap();
        let mut records = batch.records(u64::MAX).unwrap();
        let mut count = 0;
        while let Some(record) = records.next_record().unwrap() {
            assert_eq!((record.offset, record.value), (Offset(count), Some(&b"value"[..])));
            count += 1;
        }
        assert_eq!(count, 5000);
    }
}

#[test]
fn frames_in_a_row_are_one_stream() {
    let good = Raw::small(50);
    for codec in [Codec::Gzip, Codec::Zstd] {
        let (front, back) = good.payload.split_at(101);
        let payload = [compress(codec, front).unwrap(), compress(codec, back).unwrap()].concat();
        let bytes = good.clone().with_payload(codec, payload).bytes();
        assert!(validate(&bytes, &options()).is_ok(), "{codec}");
    }
    // An LZ4 reader of Kafka's stops at the first end mark: it would not see what follows.
    let (front, back) = good.payload.split_at(101);
    let (front, back) = (compress(Codec::Lz4, front).unwrap(), compress(Codec::Lz4, back).unwrap());
    let error = good.with_payload(Codec::Lz4, [&front[..], &back].concat()).error();
    assert_eq!(codec_error(error), CodecError::Trailing { codec: Codec::Lz4, count: back.len() });
}
