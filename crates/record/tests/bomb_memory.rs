//! What the refusal of a decompression bomb takes of the machine's memory. Alone in its process: nothing else could
//! take memory meanwhile.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use klamm_record::{
    BatchBuilder, Codec, Compression, NewRecord, Origin, TimestampType, ValidationOptions, validate,
};
use klamm_types::Timestamp;

const LIMIT: u64 = 256 << 20;
/// The tables and windows of a codec, and what the allocator keeps.
const MEMORY_MAX: u64 = 24 << 20;

/// A line of the kernel's report on this process, in bytes.
fn process_memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    let kib: u64 = value.trim().trim_end_matches("kB").trim().parse().unwrap();
    kib << 10
}

/// A batch with one record, a little larger than the limit.
fn bomb(codec: Codec) -> Vec<u8> {
    let value = vec![0; usize::try_from(LIMIT).unwrap() + 1];
    let mut builder = BatchBuilder::new(Compression::from(codec));
    builder.append(&NewRecord::new(Timestamp(1_700_000_000_000), None, Some(&value))).unwrap();
    builder.build().unwrap()
}

#[test]
fn a_bomb_takes_no_memory() {
    let options = ValidationOptions {
        origin: Origin::Client,
        key_required: false,
        timestamp_type: TimestampType::CreateTime,
        now: Timestamp(1_700_000_000_000),
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        decompressed_bytes_max: LIMIT,
    };
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let bomb = bomb(codec);
        // The peak is counted anew from here.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = process_memory("VmRSS:");
        let error = validate(&bomb, &options).unwrap_err();
        assert_eq!(error.to_string(), format!("{codec} data decompresses to more than {LIMIT} bytes"));
        let taken = process_memory("VmHWM:").saturating_sub(before);
        assert!(taken <= MEMORY_MAX, "{codec}: {taken} bytes for a bomb of {} bytes", bomb.len());
    }
}
