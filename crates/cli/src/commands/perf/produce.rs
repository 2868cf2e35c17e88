//! `klamm perf produce`.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_client::{ApiError, ClientError, Cluster};
use klamm_protocol::messages::ProduceRequest;
use klamm_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use klamm_protocol::{ApiKey, Records};
use klamm_record::{BatchBuilder, Codec, CompressionError, NewRecord};
use klamm_types::{Timestamp, TopicPartition};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::pace::{Due, Pace};
use super::report::Meter;
use super::target::TargetArgs;
use crate::exit::{Exit, Failure};
use crate::session::{FormatArgs, runtime};

/// How long a failed sender waits before it goes on.
const PAUSE: Duration = Duration::from_millis(10);

/// What to send, and how fast.
#[derive(Debug, clap::Args)]
pub struct ProduceArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Bytes of each record's value.
    #[arg(long, default_value_t = 1024, value_name = "BYTES")]
    record_size: usize,
    /// Bytes of each batch before compression; one batch is one request.
    #[arg(long, default_value_t = 64 << 10, value_name = "BYTES")]
    batch_size: usize,
    /// none, gzip, snappy, lz4 or zstd.
    #[arg(long, default_value = "none", value_name = "CODEC", value_parser = codec)]
    compression: Codec,
    /// Which replicas must have a batch: all, 1 (the leader) or 0.
    #[arg(long, default_value = "all", value_name = "ACKS", value_parser = acks)]
    acks: i16,
    /// How many requests are under way to each partition, on each connection.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    in_flight: u16,
    /// How many connections to each broker, as of so many producers.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// How many records to send; as many as fit into the time if not given.
    #[arg(long, value_name = "N")]
    records: Option<u64>,
    /// How many seconds to send.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    duration: u64,
    /// Records per second by the clock; as fast as answers come if not given.
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    #[command(flatten)]
    format: FormatArgs,
}

fn codec(name: &str) -> Result<Codec, CompressionError> {
    name.parse()
}

pub(super) fn acks(text: &str) -> Result<i16, &'static str> {
    match text {
        "all" | "-1" => Ok(-1),
        "1" => Ok(1),
        "0" => Ok(0),
        _ => Err("one of all, 1, 0"),
    }
}

/// A batch that is sent again and again.
#[derive(Clone)]
pub(super) struct Encoded {
    bytes: Bytes,
    pub(super) records: u64,
}

impl Encoded {
    /// As many records of `record_size` bytes as come to `batch_size`, one at least.
    fn new(args: &ProduceArgs, now: Timestamp) -> Result<Self, Failure> {
        let mut builder = BatchBuilder::new(args.compression.into());
        let mut chance = Chance::default();
        loop {
            let value = chance.text(args.record_size);
            let record = NewRecord::new(now, None, Some(&value));
            if builder.record_count() > 0 && builder.size_with(&record) > args.batch_size {
                break;
            }
            builder.append(&record)?;
        }
        Self::of(builder)
    }

    pub(super) fn of(builder: BatchBuilder) -> Result<Self, Failure> {
        let records = u64::from(builder.record_count().unsigned_abs());
        Ok(Self { bytes: builder.build()?.into(), records })
    }

    /// The batch as it is sent.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// What is drawn: the same every time.
pub(super) struct Chance {
    state: u64,
}

impl Default for Chance {
    fn default() -> Self {
        Self { state: 0x9e37_79b9_7f4a_7c15 }
    }
}

impl Chance {
    /// One of `n` numbers (xorshift).
    pub(super) fn draw(&mut self, n: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 33) % n.max(1)
    }

    /// Lines of JSON as applications log them, with about as much for a codec to find.
    pub(super) fn text(&mut self, len: usize) -> Vec<u8> {
        const PATHS: [&str; 6] = ["/cart", "/search", "/login", "/orders/items", "/account", "/help/contact"];
        const AGENTS: [&str; 4] = ["Firefox/143.0", "Chrome/141.0.7390", "Safari/26.0", "curl/8.16"];
        let mut text = String::with_capacity(len + 200);
        while text.len() < len {
            let path = PATHS.get(self.draw(6) as usize).copied().unwrap_or_default();
            let agent = AGENTS.get(self.draw(4) as usize).copied().unwrap_or_default();
            text.push_str(&format!(
                "{{\"session\":\"{:08x}{:04x}\",\"user\":{},\"path\":\"{path}\",\"status\":{},\"ms\":{},\"agent\":\"{agent}\"}}\n",
                self.draw(1 << 31),
                self.draw(1 << 16),
                self.draw(100_000),
                [200, 200, 200, 304, 404, 500].get(self.draw(6) as usize).copied().unwrap_or(200),
                self.draw(2_000),
            ));
        }
        let mut bytes = text.into_bytes();
        bytes.truncate(len);
        bytes
    }
}

/// The clock of the records' timestamps.
#[expect(clippy::disallowed_methods, reason = "a load generator stamps its records as any producer does")]
pub(super) fn wall_clock() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

pub(super) fn run(args: &ProduceArgs, stdout: &mut impl Write) -> Result<Exit, Failure> {
    let runtime = runtime(args.target.threads())?;
    let row = runtime.block_on(async {
        let in_flight = usize::from(args.in_flight);
        let (cluster, partitions) = args.target.open(in_flight * 16).await?;
        let mut places = Vec::new();
        let clusters = (1..args.connections).map(|_| cluster.apart());
        for cluster in clusters.chain([cluster.clone()]) {
            for at in &partitions {
                // One after the other, before the clock runs: a broker need not take many connections at once.
                cluster.leader(at).await?;
                places.push((cluster.clone(), at.clone()));
            }
        }
        let batch = Encoded::new(args, wall_clock())?;
        let requests = args.records.map(|records| records.div_ceil(batch.records));
        let duration = Duration::from_secs(args.duration);
        let meter = Arc::new(Meter::new());
        let pace = match args.rate {
            Some(rate) if rate > 0.0 => Pace::open(requests, duration, rate / batch.records as f64),
            Some(_) => {
                return Err(Failure::Usage {
                    message: "--rate must be above 0".to_owned(),
                    hint: "leave it out to send as fast as answers come",
                });
            }
            None => Pace::closed(requests, duration),
        };
        let mut senders = JoinSet::new();
        for (cluster, at) in places.into_iter().flat_map(|place| std::iter::repeat_n(place, in_flight)) {
            let sender = Sender { cluster, at, acks: args.acks, meter: Arc::clone(&meter) };
            let (pace, batch) = (pace.clone(), batch.clone());
            senders.spawn(async move {
                while let Some(due) = pace.next().await {
                    sender.send(due, &batch).await.inspect_err(|_| pace.stop())?;
                }
                Ok::<_, Failure>(())
            });
        }
        tokio::select! {
            result = join(&mut senders) => result?,
            () = meter.tell() => {}
        }
        Ok::<_, Failure>(meter.result("produce"))
    })?;
    row.print(args.format.format(), stdout)?;
    Ok(if row.has_errors() { Exit::Failed } else { Exit::Done })
}

/// Waits for all tasks; gives the first failure.
pub(super) async fn join(tasks: &mut JoinSet<Result<(), Failure>>) -> Result<(), Failure> {
    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        // A task that panicked has said so on stderr.
        if let Ok(Err(failure)) = ended
            && result.is_ok()
        {
            result = Err(failure);
        }
    }
    result
}

/// Sends to one partition, one request after the other.
pub(super) struct Sender {
    pub(super) cluster: Cluster,
    pub(super) at: TopicPartition,
    pub(super) acks: i16,
    pub(super) meter: Arc<Meter>,
}

impl Sender {
    /// Sends one batch and counts what comes of it. Fails only for what will not pass.
    pub(super) async fn send(&self, due: Due, batch: &Encoded) -> Result<(), Failure> {
        match self.try_send(batch).await {
            Ok(()) => {
                let latency = (self.acks != 0).then(|| Instant::now() - due.at);
                self.meter.done(batch.records, batch.bytes.len() as u64, latency);
                Ok(())
            }
            Err(error) if error.is_retryable() => {
                self.meter.failed(&error);
                self.cluster.mark_stale(&self.at);
                sleep(PAUSE).await;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn try_send(&self, batch: &Encoded) -> Result<(), ClientError> {
        let leader = self.cluster.leader(&self.at).await?;
        let timeout = self.cluster.options().request_timeout;
        let partition = PartitionProduceData {
            index: self.at.partition.0,
            records: Some(Records::from(batch.bytes.clone())),
        };
        let topic = TopicProduceData {
            name: self.at.topic.to_string(),
            topic_id: leader.topic_id,
            partition_data: vec![partition],
        };
        let request = ProduceRequest {
            transactional_id: None,
            acks: self.acks,
            timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
            topic_data: vec![topic],
        };
        let newest = if leader.topic_id.is_zero() { 12 } else { i16::MAX };
        let version = leader.connection.newest(ApiKey::Produce, newest)?;
        if self.acks == 0 {
            return leader.connection.tell(&request, version).await;
        }
        let answer = leader.connection.start(&request, version, timeout).await?.wait().await?;
        for partition in answer.responses.iter().flat_map(|topic| &topic.partition_responses) {
            ApiError::check(partition.error_code, partition.error_message.as_deref())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use klamm_record::RecordBatch;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: ProduceArgs,
    }

    fn args(line: &str) -> ProduceArgs {
        use clap::Parser as _;
        Line::parse_from(line.split(' ')).args
    }

    #[test]
    fn a_batch_is_as_large_as_was_asked_for() {
        let batch =
            Encoded::new(&args("perf --topic t --record-size 100 --batch-size 1000"), Timestamp(1)).unwrap();
        let parsed = RecordBatch::parse(&batch.bytes).unwrap();
        parsed.verify_crc().unwrap();
        assert_eq!(u64::from(parsed.record_count().unsigned_abs()), batch.records);
        assert!(batch.bytes.len() <= 1000 && batch.bytes.len() > 800, "{}", batch.bytes.len());
    }

    #[test]
    fn a_record_larger_than_a_batch_is_sent_alone() {
        let batch =
            Encoded::new(&args("perf --topic t --record-size 5000 --batch-size 1000"), Timestamp(1)).unwrap();
        assert_eq!(batch.records, 1);
    }

    #[test]
    fn a_codec_finds_in_it_what_it_finds_in_logs() {
        let encoded = |codec| {
            let line = format!("perf --topic t --batch-size 1048576 --compression {codec}");
            Encoded::new(&args(&line), Timestamp(1)).unwrap().bytes.len() as f64
        };
        let plain = encoded("none");
        let (lz4, zstd) = (encoded("lz4") / plain, encoded("zstd") / plain);
        assert!((0.3..0.5).contains(&lz4) && (0.15..0.3).contains(&zstd), "lz4 {lz4:.2}, zstd {zstd:.2}");
    }
}
