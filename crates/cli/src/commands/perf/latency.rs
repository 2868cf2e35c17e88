//! `klamm perf latency`.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::{Cluster, Consumer, ConsumerOptions, Isolation, OffsetSpec, Position};
use klamm_record::{BatchBuilder, Compression, NewRecord};
use klamm_types::{Offset, TopicPartition};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::pace::{Due, Pace};
use super::produce::{Encoded, Sender, acks, join, wall_clock};
use super::report::Meter;
use super::target::TargetArgs;
use crate::exit::{Exit, Failure};
use crate::session::{FormatArgs, runtime};

/// How many records may be acknowledged and not yet read.
const UNREAD_MAX: usize = 1 << 16;
/// How long the last records may take to be read, after all are acknowledged.
const LAST_WAIT: Duration = Duration::from_secs(10);
/// The least value: a record carries its number.
const VALUE_MIN: usize = 8;
/// What records carry that are not the first of their batch.
const UNNUMBERED: u64 = u64::MAX;

/// What to send, and how fast.
#[derive(Debug, clap::Args)]
pub struct LatencyArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Bytes of each record's value.
    #[arg(long, default_value_t = 100, value_name = "BYTES")]
    record_size: usize,
    /// Bytes of each batch, which is one request and is due as a whole; at least one record.
    #[arg(long, default_value_t = 1, value_name = "BYTES")]
    batch_size: usize,
    /// Which replicas must have a record: all or 1 (the leader).
    #[arg(long, default_value = "all", value_name = "ACKS", value_parser = acks)]
    acks: i16,
    /// Records per second, by the clock.
    #[arg(long, default_value_t = 100.0, value_name = "N")]
    rate: f64,
    /// How many seconds to send.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    duration: u64,
    /// How many records may await their acknowledgement.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    in_flight: u16,
    #[command(flatten)]
    format: FormatArgs,
}

pub(super) fn run(args: &LatencyArgs, stdout: &mut impl Write) -> Result<Exit, Failure> {
    if args.rate <= 0.0 || args.acks == 0 {
        return Err(Failure::Usage {
            message: "a latency needs a rate above 0 and acknowledgements".to_owned(),
            hint: "give --rate and --acks other values",
        });
    }
    let runtime = runtime(args.target.threads())?;
    let (acknowledged, read) = runtime.block_on(measure(args))?;
    let format = args.format.format();
    let (acknowledged, read) = (acknowledged.result("acknowledged"), read.result("read"));
    acknowledged.print(format, stdout)?;
    read.print(format, stdout)?;
    Ok(if acknowledged.has_errors() || read.has_errors() { Exit::Failed } else { Exit::Done })
}

async fn measure(args: &LatencyArgs) -> Result<(Arc<Meter>, Arc<Meter>), Failure> {
    let (cluster, partitions) = args.target.open(usize::from(args.in_flight)).await?;
    let (due_sender, due) = mpsc::channel(UNREAD_MAX);
    let (size, batch_size) = (args.record_size.max(VALUE_MIN), args.batch_size);
    let batch_records = numbered(0, size, batch_size)?.records;
    let tail = Tail::open(&cluster, &partitions, batch_records, due).await?;
    let (acknowledged, read) = (Arc::new(Meter::new()), Arc::new(Meter::new()));
    let pace = Pace::open(None, Duration::from_secs(args.duration), args.rate / batch_records as f64);
    let mut tasks = JoinSet::new();
    for at in partitions.iter().cycle().take(usize::from(args.in_flight)) {
        let sender = Sender {
            cluster: cluster.clone(),
            at: at.clone(),
            acks: args.acks,
            meter: Arc::clone(&acknowledged),
        };
        let (pace, due_sender) = (pace.clone(), due_sender.clone());
        tasks.spawn(async move {
            while let Some(due) = pace.next().await {
                // The reader must know of a record before it can see it.
                if due_sender.send(due).await.is_err() {
                    return Ok(());
                }
                sender
                    .send(due, &numbered(due.index, size, batch_size)?)
                    .await
                    .inspect_err(|_| pace.stop())?;
            }
            Ok::<_, Failure>(())
        });
    }
    drop(due_sender);
    tasks.spawn(tail.run(Arc::clone(&read)));
    tokio::select! {
        result = join(&mut tasks) => result?,
        () = acknowledged.tell() => {}
    }
    Ok((acknowledged, read))
}

/// A batch of as many records as come to `batch_size`, one at least, of which the first carries its number.
fn numbered(index: u64, size: usize, batch_size: usize) -> Result<Encoded, Failure> {
    let mut value = vec![b'.'; size];
    let mut builder = BatchBuilder::new(Compression::NONE);
    let now = wall_clock();
    loop {
        let number = if builder.record_count() == 0 { index } else { UNNUMBERED };
        if let Some(head) = value.first_chunk_mut::<VALUE_MIN>() {
            *head = number.to_be_bytes();
        }
        let record = NewRecord::new(now, None, Some(&value));
        if builder.record_count() > 0 && builder.size_with(&record) > batch_size {
            return Encoded::of(builder);
        }
        builder.append(&record)?;
    }
}

/// Reads what is being written.
struct Tail {
    consumer: Consumer,
    /// How many records come with each number.
    batch_records: u64,
    due: mpsc::Receiver<Due>,
    /// Since when the records that were not read yet have been due.
    unread: BTreeMap<u64, Instant>,
}

impl Tail {
    /// A reader at the end of all partitions.
    async fn open(
        cluster: &Cluster,
        partitions: &[TopicPartition],
        batch_records: u64,
        due: mpsc::Receiver<Due>,
    ) -> Result<Self, Failure> {
        let mut consumer = Consumer::new(cluster, ConsumerOptions::default());
        let ends: Vec<_> = partitions.iter().map(|at| (at.clone(), OffsetSpec::Latest)).collect();
        for (at, end) in cluster.offsets(&ends, Isolation::ReadUncommitted).await {
            consumer.assign(at, Position::Offset(end?.offset.unwrap_or(Offset::ZERO)));
        }
        Ok(Self { consumer, batch_records, due, unread: BTreeMap::new() })
    }

    async fn run(mut self, meter: Arc<Meter>) -> Result<(), Failure> {
        let mut last_end = None;
        loop {
            let records = self.consumer.poll(Duration::from_millis(100)).await?;
            let now = Instant::now();
            let all_sent = loop {
                match self.due.try_recv() {
                    Ok(due) => drop(self.unread.insert(due.index, due.at)),
                    Err(mpsc::error::TryRecvError::Empty) => break false,
                    Err(mpsc::error::TryRecvError::Disconnected) => break true,
                }
            };
            for record in records {
                let value = record.value.unwrap_or_default();
                let index = value.first_chunk::<VALUE_MIN>().map(|bytes| u64::from_be_bytes(*bytes));
                // Others may write to the topic too.
                if let Some(at) = index.and_then(|index| self.unread.remove(&index)) {
                    let bytes = value.len() as u64 * self.batch_records;
                    meter.done(self.batch_records, bytes, Some(now - at));
                }
            }
            if all_sent {
                let end = *last_end.get_or_insert(now + LAST_WAIT);
                if self.unread.is_empty() || now >= end {
                    self.unread.values().for_each(|_| meter.failed(&"a record was not read in time"));
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use klamm_record::RecordBatch;

    use super::*;

    #[test]
    fn a_batch_has_one_number_whatever_its_size() {
        for (batch_size, records) in [(1, 1), (1_000, 8)] {
            let batch = numbered(5, 100, batch_size).unwrap();
            assert_eq!(batch.records, records);
            let parsed = RecordBatch::parse(batch.bytes()).unwrap();
            let (mut left, mut values) = (parsed.records(1 << 20).unwrap(), Vec::new());
            while let Some(record) = left.next_record().unwrap() {
                values.push(u64::from_be_bytes(*record.value.unwrap().first_chunk().unwrap()));
            }
            assert_eq!(values.iter().filter(|value| **value == 5).count(), 1);
            assert!(values.iter().skip(1).all(|value| *value == UNNUMBERED), "{values:?}");
        }
    }
}
