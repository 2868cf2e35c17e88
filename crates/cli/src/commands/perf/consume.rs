//! `klamm perf consume`.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_client::{ApiError, ClientError, Cluster, Isolation, OffsetSpec};
use klamm_protocol::messages::FetchRequest;
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use klamm_protocol::messages::fetch_response::PartitionData;
use klamm_protocol::{ApiKey, ErrorCode};
use klamm_record::{BatchError, Batches};
use klamm_types::{Offset, TopicPartition};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::produce::join;
use super::report::Meter;
use super::target::TargetArgs;
use crate::exit::{Exit, Failure};
use crate::session::{FormatArgs, runtime};

/// How long a failed reader waits before it goes on.
const PAUSE: Duration = Duration::from_millis(10);

/// What to read.
#[derive(Debug, clap::Args)]
pub struct ConsumeArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Bytes of one answer.
    #[arg(long, default_value_t = 1 << 20, value_name = "BYTES", value_parser = clap::value_parser!(i32).range(1..))]
    fetch_size: i32,
    /// How many records to read; to the end of what there is at the start if not given.
    #[arg(long, value_name = "N")]
    records: Option<u64>,
    /// How many seconds to read at most.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    duration: u64,
    /// Check the checksum of every batch.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    format: FormatArgs,
}

pub(super) fn run(args: &ConsumeArgs, stdout: &mut impl Write) -> Result<Exit, Failure> {
    let runtime = runtime(args.target.threads())?;
    let row = runtime.block_on(async {
        let (cluster, partitions) = args.target.open(64).await?;
        let specs = |spec| partitions.iter().map(|at| (at.clone(), spec)).collect::<Vec<_>>();
        let starts = cluster.offsets(&specs(OffsetSpec::Earliest), Isolation::ReadUncommitted).await;
        let ends = cluster.offsets(&specs(OffsetSpec::Latest), Isolation::ReadUncommitted).await;
        let meter = Arc::new(Meter::new());
        let deadline = Instant::now() + Duration::from_secs(args.duration);
        let share = args.records.map(|records| records.div_ceil(partitions.len().max(1) as u64));
        let mut readers = JoinSet::new();
        for ((at, start), end) in starts.into_iter().zip(ends.into_values()) {
            let reader = Reader {
                cluster: cluster.clone(),
                at,
                next: start?.offset.unwrap_or(Offset::ZERO),
                end: end?.offset.unwrap_or(Offset::ZERO),
                left: share.unwrap_or(u64::MAX),
                fetch_size: args.fetch_size,
                check: args.check,
                meter: Arc::clone(&meter),
            };
            readers.spawn(async move {
                // Time is over: what was read counts.
                timeout_at(deadline, reader.read()).await.unwrap_or(Ok(()))
            });
        }
        tokio::select! {
            result = join(&mut readers) => result?,
            () = meter.tell() => {}
        }
        Ok::<_, Failure>(meter.result("consume"))
    })?;
    row.print(args.format.format(), stdout)?;
    Ok(if row.has_errors() { Exit::Failed } else { Exit::Done })
}

/// Reads one partition.
struct Reader {
    cluster: Cluster,
    at: TopicPartition,
    next: Offset,
    end: Offset,
    left: u64,
    fetch_size: i32,
    check: bool,
    meter: Arc<Meter>,
}

impl Reader {
    async fn read(mut self) -> Result<(), Failure> {
        while self.next < self.end && self.left > 0 {
            let start = Instant::now();
            match self.fetch().await {
                Ok(bytes) => {
                    let records = self.count(&bytes)?;
                    self.left = self.left.saturating_sub(records);
                    self.meter.done(records, bytes.len() as u64, Some(start.elapsed()));
                }
                Err(error) if error.is_retryable() => {
                    self.meter.failed(&error);
                    self.cluster.mark_stale(&self.at);
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Walks over the batches' headers, as a consumer must at least.
    fn count(&mut self, bytes: &Bytes) -> Result<u64, ClientError> {
        let before = self.next;
        let mut records = 0;
        for batch in Batches::new(bytes) {
            let damaged = |source| ClientError::Batch { partition: self.at.clone(), source };
            let batch = match batch {
                Ok(batch) => batch,
                // The answer's size limit may cut the last batch.
                Err(BatchError::Truncated { .. }) if self.next > before => break,
                Err(source) => return Err(damaged(source)),
            };
            if self.check {
                batch.verify_crc().map_err(damaged)?;
            }
            records += u64::from(batch.record_count().unsigned_abs());
            self.next = self.next.max(batch.next_offset());
        }
        Ok(records)
    }

    async fn fetch(&self) -> Result<Bytes, ClientError> {
        let leader = self.cluster.leader(&self.at).await?;
        let newest = if leader.topic_id.is_zero() { 12 } else { i16::MAX };
        let version = leader.connection.newest(ApiKey::Fetch, newest)?;
        let partition = FetchPartition {
            partition: self.at.partition.0,
            fetch_offset: self.next.0,
            partition_max_bytes: self.fetch_size,
            ..FetchPartition::default()
        };
        let topic = FetchTopic {
            topic: self.at.topic.to_string(),
            topic_id: leader.topic_id,
            partitions: vec![partition],
        };
        let request = FetchRequest {
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: self.fetch_size,
            session_epoch: -1,
            topics: vec![topic],
            ..FetchRequest::default()
        };
        let timeout = self.cluster.options().request_timeout;
        let answer = leader.connection.start(&request, version, timeout).await?.wait().await?;
        ApiError::check(answer.error_code, None)?;
        let partition: Option<PartitionData> =
            answer.responses.into_iter().flat_map(|topic| topic.partitions).next();
        let partition = partition.ok_or(ApiError { code: ErrorCode::NetworkException, message: None })?;
        ApiError::check(partition.error_code, None)?;
        Ok(partition.records.and_then(|records| records.as_bytes().cloned()).unwrap_or_default())
    }
}
