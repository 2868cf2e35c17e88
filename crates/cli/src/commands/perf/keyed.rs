//! `klamm perf keyed`.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use klamm_record::{BatchBuilder, Compression, NewRecord};
use klamm_types::{Timestamp, TopicPartition};
use tokio::task::JoinSet;

use super::pace::Pace;
use super::produce::{Chance, Encoded, Sender, acks, join, wall_clock};
use super::report::Meter;
use super::target::TargetArgs;
use crate::exit::{Exit, Failure};
use crate::session::{FormatArgs, runtime};

/// How many batches are made for each partition, to be sent again and again.
const BATCHES_EACH: usize = 4;
/// How many keys there are: so many that each of any number of partitions has some.
const KEYS: u64 = 1 << 40;

/// What to send, and how fast.
#[derive(Debug, clap::Args)]
pub struct KeyedArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// How many producers, each with connections of its own.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    producers: u16,
    /// Bytes of the largest value; the least is an eighth of it, and all between are as frequent.
    #[arg(long, default_value_t = 1024, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(8..))]
    record_size_max: u32,
    /// Records of the largest batch, which is one request; the least has one, and all between are as frequent.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    batch_records_max: u16,
    /// Which replicas must have a batch: all, 1 (the leader) or 0.
    #[arg(long, default_value = "all", value_name = "ACKS", value_parser = acks)]
    acks: i16,
    /// How many requests each producer may have under way.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    in_flight: u16,
    /// Records per second of all producers together, by the clock.
    #[arg(long, value_name = "N")]
    rate: f64,
    /// How many seconds to send.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    duration: u64,
    #[command(flatten)]
    format: FormatArgs,
}

/// Batches for all partitions.
struct Batches {
    all: Vec<(TopicPartition, Vec<Encoded>)>,
}

impl Batches {
    /// Draws keys until every partition has its batches, each of records whose keys belong to it.
    fn draw(args: &KeyedArgs, partitions: &[TopicPartition], now: Timestamp) -> Result<Self, Failure> {
        let mut chance = Chance::default();
        let all = partitions.iter().map(|at| (at.clone(), Vec::new())).collect();
        let mut batches = Self { all };
        let empty = || BatchBuilder::new(Compression::NONE);
        let mut open: Vec<_> = partitions.iter().map(|_| (empty(), batch_len(args, &mut chance))).collect();
        let mut missing = partitions.len() * BATCHES_EACH;
        while missing > 0 {
            let key = format!("key-{}", chance.draw(KEYS));
            let place = partition_of(key.as_bytes(), partitions.len());
            let (Some((builder, len)), Some((_, done))) = (open.get_mut(place), batches.all.get_mut(place))
            else {
                continue;
            };
            if done.len() == BATCHES_EACH {
                continue;
            }
            let size = value_size(args, &mut chance);
            let value = chance.text(size);
            builder.append(&NewRecord::new(now, Some(key.as_bytes()), Some(&value)))?;
            if builder.record_count() >= *len {
                done.push(Encoded::of(std::mem::replace(builder, empty()))?);
                *len = batch_len(args, &mut chance);
                missing -= 1;
            }
        }
        Ok(batches)
    }

    /// The mean number of records in one.
    fn records_mean(&self) -> f64 {
        let records: u64 = self.all.iter().flat_map(|(_, batches)| batches).map(|batch| batch.records).sum();
        let count: usize = self.all.iter().map(|(_, batches)| batches.len()).sum();
        records as f64 / count.max(1) as f64
    }

    /// Any one of them: the same for the same index.
    fn pick(&self, index: u64) -> Option<(&TopicPartition, &Encoded)> {
        // Multiplication by the golden ratio scatters successive numbers.
        let drawn = (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as usize;
        let (at, batches) = self.all.get(drawn % self.all.len().max(1))?;
        let batch = batches.get(drawn / self.all.len().max(1) % batches.len().max(1))?;
        Some((at, batch))
    }
}

fn batch_len(args: &KeyedArgs, chance: &mut Chance) -> i32 {
    chance.draw(u64::from(args.batch_records_max)) as i32 + 1
}

fn value_size(args: &KeyedArgs, chance: &mut Chance) -> usize {
    let (least, max) = (u64::from(args.record_size_max) / 8, u64::from(args.record_size_max));
    (least + chance.draw(max - least + 1)) as usize
}

/// Where Kafka's producers send a key: its hash by MurmurHash2 (32 bits, seed 0x9747b28c), without the sign.
fn partition_of(key: &[u8], partitions: usize) -> usize {
    (murmur2(key) & 0x7fff_ffff) as usize % partitions.max(1)
}

fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const FACTOR: u32 = 0x5bd1_e995;
    let (words, rest) = bytes.as_chunks::<4>();
    let mut hash = SEED ^ (bytes.len() as u32);
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(FACTOR);
        word ^= word >> 24;
        hash = hash.wrapping_mul(FACTOR) ^ word.wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        let rest = rest.iter().rev().fold(0, |word, byte| (word << 8) | u32::from(*byte));
        hash = (hash ^ rest).wrapping_mul(FACTOR);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(FACTOR);
    hash ^ (hash >> 15)
}

pub(super) fn run(args: &KeyedArgs, stdout: &mut impl Write) -> Result<Exit, Failure> {
    if !(0.001..=1e9).contains(&args.rate) {
        return Err(Failure::Usage {
            message: "--rate must be from 0.001 to 1000000000".to_owned(),
            hint: "say how many records per second all producers send together",
        });
    }
    let runtime = runtime(args.target.threads())?;
    let row = runtime.block_on(async {
        let (cluster, partitions) = args.target.open(usize::from(args.in_flight)).await?;
        let mut producers = Vec::new();
        for _ in 0..args.producers {
            let producer = cluster.apart();
            for at in &partitions {
                // All brokers are dialled before the clock runs.
                producer.leader(at).await?;
            }
            producers.push(producer);
        }
        let batches = Arc::new(Batches::draw(args, &partitions, wall_clock())?);
        let meter = Arc::new(Meter::new());
        let per_second = args.rate / batches.records_mean();
        let pace = Pace::open(None, Duration::from_secs(args.duration), per_second);
        let mut senders = JoinSet::new();
        for producer in producers.into_iter().flat_map(|one| std::iter::repeat_n(one, args.in_flight.into()))
        {
            let (pace, batches, meter) = (pace.clone(), Arc::clone(&batches), Arc::clone(&meter));
            let acks = args.acks;
            senders.spawn(async move {
                while let Some(due) = pace.next().await {
                    let Some((at, batch)) = batches.pick(due.index) else { continue };
                    let (cluster, at, meter) = (producer.clone(), at.clone(), Arc::clone(&meter));
                    let sender = Sender { cluster, at, acks, meter };
                    sender.send(due, batch).await.inspect_err(|_| pace.stop())?;
                }
                Ok::<_, Failure>(())
            });
        }
        tokio::select! {
            result = join(&mut senders) => result?,
            () = meter.tell() => {}
        }
        Ok::<_, Failure>(meter.result("keyed"))
    })?;
    row.print(args.format.format(), stdout)?;
    Ok(if row.has_errors() { Exit::Failed } else { Exit::Done })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use klamm_record::RecordBatch;
    use klamm_types::{PartitionId, TopicName};

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: KeyedArgs,
    }

    fn drawn(count: i32) -> Batches {
        use clap::Parser as _;
        let args = Line::parse_from(["keyed", "--topic", "t", "--rate", "1"]).args;
        let topic = TopicName::new("t").unwrap();
        let partitions: Vec<_> =
            (0..count).map(|id| TopicPartition::new(topic.clone(), PartitionId(id))).collect();
        Batches::draw(&args, &partitions, Timestamp(1)).unwrap()
    }

    /// Values of Kafka's own tests (`UtilsTest.testMurmur2`).
    #[test]
    fn keys_go_where_kafka_sends_them() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn a_batch_holds_only_keys_of_its_partition() {
        let batches = drawn(7);
        let mut sizes = BTreeSet::new();
        for (at, batches) in &batches.all {
            assert_eq!(batches.len(), BATCHES_EACH);
            for batch in batches {
                let parsed = RecordBatch::parse(batch.bytes()).unwrap();
                let mut records = parsed.records(1 << 20).unwrap();
                while let Some(record) = records.next_record().unwrap() {
                    assert_eq!(partition_of(record.key.unwrap(), 7), at.partition.0 as usize);
                    assert!((128..=1024).contains(&record.value.unwrap().len()));
                }
                sizes.insert(batch.records);
            }
        }
        assert!(sizes.len() > 4 && sizes.iter().all(|size| (1..=16).contains(size)), "{sizes:?}");
    }

    #[test]
    fn every_batch_has_its_turn() {
        let batches = drawn(7);
        let picked: BTreeSet<_> =
            (0..1_000).filter_map(|index| Some(std::ptr::from_ref(batches.pick(index)?.1))).collect();
        assert_eq!(picked.len(), 7 * BATCHES_EACH);
    }
}
