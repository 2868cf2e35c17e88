//! What a batch costs, stage by stage: the CRC, the walk over its records, each codec in both directions.
//!
//! Compare within one run: `validate` of an uncompressed batch with `crc`, and of a compressed one with `decompress`.
//! Throughput is in bytes of uncompressed records.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use klamm_record::{
    BatchBuilder, Codec, CodecMemory, Compressor, Decompressor, NewRecord, Origin, RecordBatch,
    RecordBatchMut, TimestampType, ValidationOptions, recompress, validate, validate_with,
};
use klamm_types::{LeaderEpoch, Offset, Timestamp};

fn main() {
    divan::main();
}

const COMPRESSED: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// A batch of about 1 MiB of events as JSON, 1 KiB each.
fn batch(codec: Codec) -> Vec<u8> {
    batch_of(codec, 1 << 20, 1 << 10)
}

fn batch_of(codec: Codec, batch_len: usize, record_len: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec.into());
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    while builder.size() < batch_len {
        let mut value = String::new();
        while value.len() < record_len {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let (user, price) = (random % 100_000, random >> 32 & 0xffff);
            value += &format!(
                r#"{{"user":{user},"event":"purchase","item":"item-{}","price":{price}}},"#,
                user % 97
            );
        }
        let key = random.to_string();
        let record = NewRecord::new(NOW, Some(key.as_bytes()), Some(value.as_bytes()));
        builder.append(&record).expect("a record within bounds");
    }
    builder.build().expect("a batch within bounds")
}

fn decompressed(codec: Codec) -> Vec<u8> {
    let bytes = batch(codec);
    let payload = RecordBatch::parse(&bytes).expect("a batch").payload();
    let mut output = Vec::new();
    let mut decompressor = Decompressor::new(codec, payload, u64::MAX).expect("compressed data");
    while decompressor.advance().expect("compressed data") {
        output.extend_from_slice(decompressor.chunk());
    }
    output
}

fn options() -> ValidationOptions {
    ValidationOptions {
        origin: Origin::Client,
        key_required: true,
        timestamp_type: TimestampType::CreateTime,
        now: NOW,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: 3_600_000,
        decompressed_bytes_max: 64 << 20,
    }
}

#[divan::bench]
fn crc(bencher: Bencher<'_, '_>) {
    let bytes = batch(Codec::None);
    bencher.counter(BytesCount::new(bytes.len())).bench(|| crc32c::crc32c(black_box(&bytes)));
}

#[divan::bench(args = COMPRESSED)]
fn compress(bencher: Bencher<'_, '_>, codec: Codec) {
    let records = decompressed(Codec::None);
    bencher.counter(BytesCount::new(records.len())).bench(|| {
        let mut compressor = Compressor::new(codec.into(), Vec::new()).expect("a compressor");
        compressor.write(black_box(&records)).expect("compression");
        compressor.finish().expect("compression")
    });
}

#[divan::bench(args = COMPRESSED)]
fn decompress(bencher: Bencher<'_, '_>, codec: Codec) {
    let bytes = batch(codec);
    let payload = RecordBatch::parse(&bytes).expect("a batch").payload();
    bencher.counter(BytesCount::new(decompressed(codec).len())).bench(|| {
        let mut decompressor =
            Decompressor::new(codec, black_box(payload), u64::MAX).expect("compressed data");
        while decompressor.advance().expect("compressed data") {
            black_box(decompressor.chunk());
        }
        decompressor.produced()
    });
}

/// The library's own call over the whole payload, into memory that is there already.
#[divan::bench(args = COMPRESSED)]
fn decompress_bare(bencher: Bencher<'_, '_>, codec: Codec) {
    let records = decompressed(codec);
    let mut output = vec![0; records.len()];
    let payload = match codec {
        Codec::None => records.clone(),
        Codec::Gzip | Codec::Zstd => {
            let bytes = batch(codec);
            RecordBatch::parse(&bytes).expect("a batch").payload().to_vec()
        }
        Codec::Snappy => snap::raw::Encoder::new().compress_vec(&records).expect("compression"),
        Codec::Lz4 => lz4_flex::block::compress(&records),
    };
    bencher.counter(BytesCount::new(records.len())).bench_local(|| match codec {
        Codec::None => output.copy_from_slice(black_box(&payload)),
        Codec::Gzip => {
            let mut decoder = flate2::bufread::GzDecoder::new(black_box(&payload[..]));
            std::io::Read::read_exact(&mut decoder, &mut output).expect("compressed data");
        }
        Codec::Snappy => {
            snap::raw::Decoder::new().decompress(black_box(&payload), &mut output).expect("compressed data");
        }
        Codec::Lz4 => {
            lz4_flex::block::decompress_into(black_box(&payload), &mut output).expect("compressed data");
        }
        Codec::Zstd => {
            zstd::bulk::decompress_to_buffer(black_box(&payload), &mut output).expect("compressed data");
        }
    });
}

#[divan::bench(args = Codec::ALL)]
fn validate_1_mib(bencher: Bencher<'_, '_>, codec: Codec) {
    let bytes = batch(codec);
    let len = validate(&bytes, &options()).expect("a good batch").decompressed_bytes;
    bencher.counter(BytesCount::new(len)).bench(|| validate(black_box(&bytes), &options()).is_ok());
}

#[divan::bench(args = Codec::ALL)]
fn validate_16_kib(bencher: Bencher<'_, '_>, codec: Codec) {
    let bytes = batch_of(codec, 16 << 10, 1 << 10);
    let len = validate(&bytes, &options()).expect("a good batch").decompressed_bytes;
    bencher.counter(BytesCount::new(len)).bench(|| validate(black_box(&bytes), &options()).is_ok());
}

/// With the memory that the batch before has left behind.
#[divan::bench(args = Codec::ALL)]
fn validate_16_kib_with_memory(bencher: Bencher<'_, '_>, codec: Codec) {
    let bytes = batch_of(codec, 16 << 10, 1 << 10);
    let mut memory = CodecMemory::default();
    let len = validate_with(&bytes, &options(), &mut memory).expect("a good batch").decompressed_bytes;
    bencher
        .counter(BytesCount::new(len))
        .bench_local(|| validate_with(black_box(&bytes), &options(), &mut memory).is_ok());
}

/// librdkafka's form of snappy: the whole batch is one block, here above and below what is decompressed at once.
#[divan::bench(args = [1 << 20, 2 << 20])]
fn decompress_bare_snappy_block(bencher: Bencher<'_, '_>, len: usize) {
    let records = batch_of(Codec::None, 2 << 20, 1 << 10);
    let records = records.get(..len).expect("that many bytes");
    let block = snap::raw::Encoder::new().compress_vec(records).expect("compression");
    bencher.counter(BytesCount::new(len)).bench(|| {
        let mut decompressor =
            Decompressor::new(Codec::Snappy, black_box(&block), u64::MAX).expect("a block");
        while decompressor.advance().expect("compressed data") {
            black_box(decompressor.chunk());
        }
        decompressor.produced()
    });
}

#[divan::bench(args = [100, 1 << 10, 16 << 10])]
fn validate_by_record_size(bencher: Bencher<'_, '_>, record_len: usize) {
    let bytes = batch_of(Codec::None, 1 << 20, record_len);
    bencher.counter(BytesCount::new(bytes.len())).bench(|| validate(black_box(&bytes), &options()).is_ok());
}

#[divan::bench(args = Codec::ALL)]
fn read_records(bencher: Bencher<'_, '_>, codec: Codec) {
    let bytes = batch(codec);
    let batch = RecordBatch::parse(&bytes).expect("a batch");
    bencher.counter(BytesCount::new(decompressed(codec).len())).bench(|| {
        let mut records = black_box(batch).records(u64::MAX).expect("records");
        let mut bytes = 0;
        while let Some(record) = records.next_record().expect("a record") {
            bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        }
        bytes
    });
}

#[divan::bench(args = COMPRESSED)]
fn recompress_from_lz4(bencher: Bencher<'_, '_>, codec: Codec) {
    let bytes = batch(Codec::Lz4);
    let batch = RecordBatch::parse(&bytes).expect("a batch");
    bencher
        .counter(BytesCount::new(decompressed(Codec::Lz4).len()))
        .bench(|| recompress(black_box(&batch), codec.into(), u64::MAX).expect("a batch"));
}

/// Offsets, epoch and append time, with the correction of the CRC; independent of the batch's size but for a few steps.
#[divan::bench(args = [1 << 10, 16 << 10, 1 << 20])]
fn assign_in_place(bencher: Bencher<'_, '_>, batch_len: usize) {
    let mut bytes = batch_of(Codec::None, batch_len, 512);
    let mut now = NOW;
    bencher.bench_local(|| {
        let mut batch = RecordBatchMut::parse(black_box(&mut bytes)).expect("a batch");
        batch.assign(Offset(77), LeaderEpoch(3)).expect("an offset");
        now = now.plus_millis(1);
        batch.set_append_time(now);
    });
}

#[divan::bench(args = [100, 1 << 10])]
fn build_1_mib(bencher: Bencher<'_, '_>, record_len: usize) {
    let len = batch_of(Codec::None, 1 << 20, record_len).len();
    let value = vec![7; record_len];
    bencher.counter(BytesCount::new(len)).bench(|| {
        let mut builder = BatchBuilder::new(Codec::None.into());
        while builder.size() < 1 << 20 {
            let record = NewRecord::new(NOW, None, Some(black_box(&value)));
            builder.append(&record).expect("a record within bounds");
        }
        builder.build().expect("a batch within bounds")
    });
}
