//! Writes the seed corpora: `cargo run --example seeds -- corpus` in this directory.

use std::fs;
use std::path::Path;

use klamm_codegen::layout::Layout;
use klamm_codegen::sample::{Bounds, Sampler};
use klamm_codegen::schema::MessageKind;
use klamm_fuzz::{decoding, wire};
use klamm_protocol::messages::MetadataRequest;
use klamm_protocol::{ApiKey, RequestHead, Writer};
use klamm_record::{BatchBuilder, Codec, EndTxnMarker, HEADER_LEN, NewRecord, TransactionResult};
use klamm_types::{CoordinatorEpoch, LeaderEpoch, ProducerEpoch, ProducerId, Timestamp};

/// A file of a corpus: its name and what is in it.
type Seed = (String, Vec<u8>);

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let corpus = std::env::args().nth(1).ok_or("usage: seeds DIRECTORY")?;
    let corpus = Path::new(&corpus);
    write(&corpus.join("record_batch"), record_batches()?)?;
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/protocol/schema");
    let layouts = klamm_codegen::layouts(&schema)?;
    write(&corpus.join("wire_message"), wire_messages(&layouts)?)?;
    for layout in &layouts {
        let MessageKind::Request { key, .. } = layout.kind else { continue };
        let key = ApiKey::from_code(key).ok_or("a key of the listing")?;
        let target = format!("request_{}", snake_case(key.name()));
        let source = format!("{}/src/bin/{target}.rs", env!("CARGO_MANIFEST_DIR"));
        if Path::new(&source).is_file() {
            write(&corpus.join(target), requests(key, layout)?)?;
        }
    }
    Ok(())
}

fn write(directory: &Path, seeds: Vec<Seed>) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    seeds.into_iter().try_for_each(|(name, bytes)| fs::write(directory.join(name), bytes))
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// The requests of one type, in every version: one with little in it, one with more.
fn requests(key: ApiKey, layout: &Layout) -> Result<Vec<Seed>, Box<dyn std::error::Error>> {
    let mut seeds = Vec::new();
    for version in key.versions().iter() {
        let selector = decoding::selector(key, version).ok_or("a version of the API")?;
        for (name, bounds) in [
            ("short", Bounds { elements_max: 1, bytes_max: 3 }),
            ("long", Bounds { elements_max: 3, bytes_max: 9 }),
        ] {
            let body = Sampler::new(1, bounds).message(layout, version);
            seeds.push((format!("{version}-{name}"), [&[selector][..], &body].concat()));
        }
    }
    Ok(seeds)
}

/// Every request and response in its newest version, and a stream of two requests.
fn wire_messages(layouts: &[Layout]) -> Result<Vec<Seed>, Box<dyn std::error::Error>> {
    let mut seeds = Vec::new();
    for layout in layouts {
        let (key, is_request) = match layout.kind {
            MessageKind::Request { key, .. } => (key, true),
            MessageKind::Response { key } => (key, false),
            MessageKind::Header | MessageKind::Data => continue,
        };
        let key = ApiKey::from_code(key).ok_or("a key of the listing")?;
        let version = key.versions().max();
        let selector = wire::selector(key, version, is_request).ok_or("a version of the table")?;
        let mut sampler = Sampler::new(1, Bounds { elements_max: 2, bytes_max: 6 });
        let bytes = [&selector.to_be_bytes()[..], &sampler.message(layout, version)].concat();
        seeds.push((format!("{}-{version}", layout.name()), bytes));
    }
    let mut stream = vec![0, 0];
    for version in [8, 12] {
        let mut writer = Writer::framed();
        let client_id = Some("seed".to_owned());
        RequestHead { key: ApiKey::Metadata, version, correlation_id: 1, client_id }.encode(&mut writer)?;
        MetadataRequest::default().encode(version, &mut writer)?;
        stream.extend_from_slice(&writer.finish()?.into_bytes().map_err(|_| "all in memory")?);
    }
    seeds.push(("frames".to_owned(), stream));
    Ok(seeds)
}

/// Batches of every codec and kind, small: libFuzzer's mutations are most effective below a few hundred bytes.
fn record_batches() -> Result<Vec<Seed>, klamm_record::BuildError> {
    let mut seeds = Vec::new();
    for codec in Codec::ALL {
        seeds.push((format!("{codec}-records"), records(codec)?));
        seeds.push((format!("{codec}-large-record"), large_record(codec)?));
        seeds.push((format!("{codec}-idempotent"), idempotent(codec)?));
    }
    // librdkafka's form: one bare block, right after the header.
    let framed = records(Codec::Snappy)?;
    let bare = [&framed[..HEADER_LEN], &framed[HEADER_LEN + 20..]].concat();
    seeds.push(("snappy-bare-block".to_owned(), bare));
    for result in [TransactionResult::Abort, TransactionResult::Commit] {
        let marker = EndTxnMarker { result, coordinator_epoch: CoordinatorEpoch(4) };
        let bytes = marker.batch(ProducerId(9), ProducerEpoch(1), NOW, LeaderEpoch(2))?;
        seeds.push((format!("marker-{result:?}").to_lowercase(), bytes));
    }
    let two = [records(Codec::None)?, records(Codec::Lz4)?].concat();
    seeds.push(("two-batches".to_owned(), two));
    seeds.push(("empty-batch".to_owned(), BatchBuilder::new(Codec::None.into()).build()?));
    Ok(seeds)
}

fn records(codec: Codec) -> Result<Vec<u8>, klamm_record::BuildError> {
    let mut builder = BatchBuilder::new(codec.into());
    let mut record = NewRecord::new(NOW, Some(b"key"), Some(b"value value value"));
    record.headers = &[(b"h", Some(b"1")), (b"h", None)];
    builder.append(&record)?;
    builder.append(&NewRecord::new(NOW.plus_millis(-40), None, Some(b"")))?;
    builder.append(&NewRecord::new(NOW.plus_millis(9000), Some(b"k"), None))?;
    builder.build()
}

/// A record that spans the pieces that decompressors produce.
fn large_record(codec: Codec) -> Result<Vec<u8>, klamm_record::BuildError> {
    let len = if codec == Codec::None { 300 } else { 70_000 };
    let mut builder = BatchBuilder::new(codec.into());
    builder.append(&NewRecord::new(NOW, Some(b"key"), Some(&vec![0; len])))?;
    builder.append(&NewRecord::new(NOW, Some(b"key"), Some(b"last")))?;
    builder.build()
}

fn idempotent(codec: Codec) -> Result<Vec<u8>, klamm_record::BuildError> {
    let mut builder =
        BatchBuilder::new(codec.into()).producer(ProducerId(77), ProducerEpoch(2), i32::MAX).transactional();
    builder.append(&NewRecord::new(NOW, None, Some(b"a")))?;
    builder.append(&NewRecord::new(NOW, None, Some(b"b")))?;
    builder.build()
}
