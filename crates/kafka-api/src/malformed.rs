//! What a producer may send that is no good batch, by the rows of the malformed-input table, W31 to W42.

use bytes::Bytes;
use klamm_protocol::ErrorCode;
use klamm_record::{Codec, Compressor};
use klamm_types::Timestamp;

use crate::data_bed::{batch, stamped};

/// A name for the fault, the batch that has it, and the code that it is refused with.
pub(crate) type Malformed = (&'static str, Bytes, ErrorCode);

const COMPRESSING: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
const HEADER_LEN: usize = 61;
const MIB: usize = 1 << 20;

/// A good batch with these bytes at `at`, and the checksum made right again.
fn patched(at: usize, bytes: &[u8]) -> Bytes {
    let mut patched = batch(&["a", "b"]).to_vec();
    patched[at..at + bytes.len()].copy_from_slice(bytes);
    sealed(patched)
}

fn sealed(mut batch: Vec<u8>) -> Bytes {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.into()
}

/// A batch said to hold one record, in this payload, of this codec.
fn holding(codec: Codec, payload: &[u8]) -> Bytes {
    let mut holding = batch(&["a"]).to_vec();
    holding.truncate(HEADER_LEN);
    holding.extend_from_slice(payload);
    let length = i32::try_from(holding.len() - 12).unwrap();
    holding[8..12].copy_from_slice(&length.to_be_bytes());
    holding[22] = Codec::ALL.iter().position(|known| *known == codec).unwrap().try_into().unwrap();
    sealed(holding)
}

fn compress(codec: Codec, parts: &[&[u8]]) -> Vec<u8> {
    let mut compressor = Compressor::new(codec.into(), Vec::new()).unwrap();
    parts.iter().for_each(|part| compressor.write(part).unwrap());
    compressor.finish().unwrap()
}

fn varint(value: i64) -> Vec<u8> {
    let mut bits = (value << 1 ^ value >> 63).cast_unsigned();
    let mut bytes = Vec::new();
    while bits >= 0x80 {
        bytes.push((bits & 0x7f | 0x80).try_into().unwrap());
        bits >>= 7;
    }
    bytes.push(bits.try_into().unwrap());
    bytes
}

/// A record with these integers after its deltas: lengths and counts, in the order of the format.
fn record(offset_delta: i64, fields: &[i64]) -> Vec<u8> {
    let fields: Vec<u8> = fields.iter().flat_map(|field| varint(*field)).collect();
    let body = [&[0, 0][..], &varint(offset_delta), &fields].concat();
    [varint(i64::try_from(body.len()).unwrap()), body].concat()
}

/// All that is small.
pub(crate) fn malformed_batches() -> Vec<Malformed> {
    [malformed_headers(), malformed_records(), malformed_compression()].concat()
}

fn malformed_headers() -> Vec<Malformed> {
    use ErrorCode::{CorruptMessage, InvalidRecord, InvalidTimestamp, UnsupportedForMessageFormat};
    let good = batch(&["a", "b"]);
    let mut wrong_crc = good.to_vec();
    wrong_crc[70] ^= 1;
    vec![
        ("W31 empty", Bytes::new(), InvalidRecord),
        ("W31 two batches", [good.clone(), good.clone()].concat().into(), InvalidRecord),
        ("W32 cut off", good.slice(..good.len() - 1), CorruptMessage),
        ("W32 less than a header", good.slice(..30), CorruptMessage),
        ("W32 length negative", patched(8, &(-1_i32).to_be_bytes()), CorruptMessage),
        ("W32 length past the end", patched(8, &i32::MAX.to_be_bytes()), CorruptMessage),
        ("W33 magic 0", patched(16, &[0]), UnsupportedForMessageFormat),
        ("W33 magic 1", patched(16, &[1]), UnsupportedForMessageFormat),
        ("W33 magic 3", patched(16, &[3]), InvalidRecord),
        ("W33 magic 127", patched(16, &[127]), InvalidRecord),
        ("W34 crc", wrong_crc.into(), CorruptMessage),
        ("W35 count 0", patched(57, &0_i32.to_be_bytes()), InvalidRecord),
        ("W35 count -1", patched(57, &(-1_i32).to_be_bytes()), InvalidRecord),
        ("W35 count huge", patched(57, &i32::MAX.to_be_bytes()), InvalidRecord),
        ("W35 count and delta lie", patched(23, &9_i32.to_be_bytes()), InvalidRecord),
        ("W36 base offset", patched(0, &7_i64.to_be_bytes()), InvalidRecord),
        ("W36 delta negative", patched(23, &(-1_i32).to_be_bytes()), InvalidRecord),
        ("W37 control", patched(22, &[0x20]), InvalidRecord),
        ("W37 reserved", patched(21, &[0x80]), InvalidRecord),
        ("W37 append time", patched(22, &[0x08]), InvalidTimestamp),
        ("W37 codec 5", patched(22, &[5]), ErrorCode::UnsupportedCompressionType),
        ("W37 codec 7", patched(22, &[7]), ErrorCode::UnsupportedCompressionType),
        ("W39 far future", stamped(Timestamp(i64::MAX - 1), &["a"]), InvalidTimestamp),
        ("W42 no sequence", patched(43, &5_i64.to_be_bytes()), InvalidRecord),
        ("W42 transaction without id", patched(22, &[0x10]), InvalidRecord),
        ("W42 no epoch", patched(43, &[&[0; 8][..], &[0xff; 2], &[0; 4]].concat()), InvalidRecord),
        ("W42 negative sequence", patched(43, &[&[0; 10][..], &[0xff; 4]].concat()), InvalidRecord),
    ]
}

/// W38, each of them as it is and compressed: nobody may look into the one less than into the other.
fn malformed_records() -> Vec<Malformed> {
    let (null, huge) = (-1, i64::from(i32::MAX));
    let good = record(0, &[null, null, 0]);
    let cases = [
        ("W38 no length", vec![]),
        ("W38 length 0", [&[0][..], &good[1..]].concat()),
        ("W38 length too small", [&varint(3)[..], &good[1..]].concat()),
        ("W38 length too large", [&varint(100)[..], &good[1..]].concat()),
        ("W38 length huge", [&varint(huge)[..], &good[1..]].concat()),
        ("W38 length negative", [&varint(-1)[..], &good[1..]].concat()),
        ("W38 length past 32 bits", [&varint(huge + 1)[..], &good[1..]].concat()),
        ("W38 length without end", vec![0xff; 20]),
        ("W38 bytes left over", [&good[..], &[0]].concat()),
        ("W38 key -2", record(0, &[-2, null, 0])),
        ("W38 key huge", record(0, &[huge, null, 0])),
        ("W38 value -2", record(0, &[null, -2, 0])),
        ("W38 value huge", record(0, &[null, huge, 0])),
        ("W38 headers -1", record(0, &[null, null, -1])),
        ("W38 headers 2^31 - 1", record(0, &[null, null, huge])),
        ("W38 headers 2^31", record(0, &[null, null, huge + 1])),
        ("W38 header key null", record(0, &[null, null, 1, null, null])),
        ("W38 header key huge", record(0, &[null, null, 1, huge, null])),
        ("W38 header value -2", record(0, &[null, null, 1, 0, -2])),
        ("W38 header value huge", record(0, &[null, null, 1, 0, huge])),
        ("W38 offset delta 1 first", record(1, &[null, null, 0])),
        ("W38 offset delta negative", record(-1, &[null, null, 0])),
        ("W38 two records for one", [&good[..], &good].concat()),
    ];
    let batches = cases.iter().flat_map(|(name, payload)| {
        let plain = (*name, holding(Codec::None, payload), ErrorCode::InvalidRecord);
        let compressed = COMPRESSING
            .map(|codec| (*name, holding(codec, &compress(codec, &[payload])), ErrorCode::InvalidRecord));
        [plain].into_iter().chain(compressed)
    });
    batches.collect()
}

/// W40, but for the bombs.
fn malformed_compression() -> Vec<Malformed> {
    let good = record(0, &[-1, -1, 0]);
    let nested = holding(Codec::None, &good);
    let mut cases = Vec::new();
    for codec in COMPRESSING {
        let whole = compress(codec, &[&good]);
        let others = COMPRESSING.into_iter().filter(|other| *other != codec);
        cases.extend(others.map(|other| ("W40 another codec", holding(other, &whole))));
        cases.push(("W40 not compressed", holding(codec, &good)));
        cases.push(("W40 nonsense", holding(codec, b"nothing that any codec would ever write")));
        cases.push(("W40 nothing", holding(codec, &[])));
        cases.push(("W40 cut off", holding(codec, &whole[..whole.len() - 1])));
        cases.push(("W40 garbage behind", holding(codec, &[&whole[..], b"and more"].concat())));
        cases.push(("W40 batch in a batch", holding(codec, &compress(codec, &[&nested]))));
    }
    let mut damaged = |name, codec, at: usize, bytes: &[u8]| {
        let mut payload = compress(codec, &[&good]);
        payload[at..at + bytes.len()].copy_from_slice(bytes);
        cases.push((name, holding(codec, &payload)));
    };
    damaged("W40 gzip block of no kind", Codec::Gzip, 10, &[7]);
    damaged("W40 snappy chunk beyond the end", Codec::Snappy, 16, &i32::MAX.to_be_bytes());
    damaged("W40 snappy chunk of negative length", Codec::Snappy, 16, &(-1_i32).to_be_bytes());
    damaged("W40 snappy literal beyond the chunk", Codec::Snappy, 21, &[0xfc, 0xff, 0xff, 0xff, 0xff]);
    damaged("W40 lz4 frame of another version", Codec::Lz4, 4, &[0xa0]);
    damaged("W40 lz4 block beyond the end", Codec::Lz4, 7, &u32::MAX.to_le_bytes());
    // A window of 1 KiB, then a block of the kind that is reserved.
    let reserved = [0x28, 0xb5, 0x2f, 0xfd, 0, 0, 7, 0, 0];
    cases.push(("W40 zstd block of no kind", holding(Codec::Zstd, &reserved)));
    // A window of 2^31 bytes, then one last block with the record as it is.
    let block = u32::try_from(good.len() << 3 | 1).unwrap().to_le_bytes();
    let window = [&[0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3], &block[..3], &good].concat();
    cases.push(("W40 zstd window of 2 GiB", holding(Codec::Zstd, &window)));
    // A bare block that claims to become 4 GiB.
    cases.push(("W40 snappy claims", holding(Codec::Snappy, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x41])));
    cases.into_iter().map(|(name, batch)| (name, batch, ErrorCode::CorruptMessage)).collect()
}

/// W40: batches that would become more than 1 GiB, each of them all of one record's value.
pub(crate) fn bombs() -> Vec<Malformed> {
    let value_len = 1100 * MIB;
    let length = i64::try_from(value_len).unwrap();
    let prefix = [&[0, 0, 0][..], &varint(-1), &varint(length)].concat();
    let record_len = i64::try_from(prefix.len() + value_len + 1).unwrap();
    let prefix = [varint(record_len), prefix].concat();
    let zeros = vec![0; MIB];
    let bombs = COMPRESSING.into_iter().map(|codec| {
        let parts: Vec<&[u8]> =
            [&prefix[..]].into_iter().chain([&zeros[..]; 1100]).chain([&[0][..]]).collect();
        ("W40 bomb", holding(codec, &compress(codec, &parts)), ErrorCode::CorruptMessage)
    });
    bombs.collect()
}
