//! Producing.
//!
//! One task per partition gathers records into batches and keeps up to five of them under way, in order. A batch keeps
//! its sequence numbers through all retries; after any fault everything under way is sent again in order, so that a
//! broker recognises what it has already (KIP-98) and nothing is lost, doubled or reordered. With acks other than all
//! there are no sequence numbers, and a retry may write a record twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use klamm_record::{BuildError, Compression};
use klamm_types::{Offset, Timestamp, TopicPartition};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::cluster::Cluster;
use crate::error::{ApiError, ClientError};

mod lane;
mod window;

use lane::{Item, Lane};

/// How many batches of one partition may be under way: as many as a broker remembers.
const IN_FLIGHT_MAX: usize = 5;
/// What the records waiting in one producer may take together, at most: the range of the semaphore's permits.
const BUFFER_BYTES_MAX: usize = 1 << 30;

/// How many replicas must have a record before it counts as delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// None: the broker does not answer.
    None,
    /// The leader.
    Leader,
    /// All in-sync replicas, and no fewer than `min.insync.replicas`.
    #[default]
    All,
}

/// Settings of a [`Producer`].
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// How many replicas must have a record; default all. Only then is the producer idempotent.
    pub acks: Acks,
    /// How batches are compressed; default not at all.
    pub compression: Compression,
    /// At which size a batch is closed, in bytes before compression; default 128 KiB. A larger record is sent alone.
    pub batch_bytes: usize,
    /// How long a batch waits for more records; default not at all.
    pub linger: Duration,
    /// How many batches of one partition may be under way, 1 to 5; default 5.
    pub in_flight_max: usize,
    /// How long a record may take from its batch's start to its acknowledgement; default 120 s
    /// (`delivery.timeout.ms`).
    pub delivery_timeout: Duration,
    /// How many bytes of records may wait in the producer before [`Producer::send`] waits; default 32 MiB, at most
    /// 1 GiB.
    pub buffer_bytes: usize,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            compression: Compression::NONE,
            batch_bytes: 128 << 10,
            linger: Duration::ZERO,
            in_flight_max: IN_FLIGHT_MAX,
            delivery_timeout: Duration::from_secs(120),
            buffer_bytes: 32 << 20,
        }
    }
}

/// A record to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Its timestamp, by the sender's clock.
    pub timestamp: Timestamp,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers, in this order.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// A record that is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Where; `None` if the broker does not tell: with acks 0, or for a repetition that it no longer remembers in full.
    pub offset: Option<Offset>,
}

/// Why a record did not arrive, or may not have.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProduceError {
    /// The broker refused the batch: it was not written.
    #[error("{partition}: {error}")]
    Refused {
        /// The partition.
        partition: TopicPartition,
        /// Why.
        error: ApiError,
    },
    /// Time is over; whether the record was written is unknown.
    #[error("{partition}: not delivered in time: {last}")]
    TimedOut {
        /// The partition.
        partition: TopicPartition,
        /// What stood in the way last.
        last: Box<ClientError>,
    },
    /// A batch before it failed for good, and what became of this one is unknown.
    #[error("{partition}: a batch before this one failed")]
    Behind {
        /// The partition.
        partition: TopicPartition,
    },
    /// The record fits into no batch.
    #[error("{partition}: {error}")]
    Build {
        /// The partition.
        partition: TopicPartition,
        /// Why.
        error: BuildError,
    },
    /// The cluster cannot be used: it gives no producer id, or lacks what a producer needs.
    #[error("{partition}: {error}")]
    Client {
        /// The partition.
        partition: TopicPartition,
        /// Why.
        error: ClientError,
    },
    /// The producer was dropped first; whether the record was written is unknown.
    #[error("the producer was closed")]
    Closed,
}

impl ProduceError {
    /// Whether the record is certainly not in the log.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Build { .. })
    }

    /// Whether sending the record again may succeed; it may then be in the log twice, unless the failure
    /// [is definite](Self::is_definite).
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { error, .. } => error.is_retryable(),
            Self::TimedOut { .. } | Self::Behind { .. } => true,
            Self::Client { error, .. } => error.is_retryable(),
            Self::Build { .. } | Self::Closed => false,
        }
    }
}

/// The fate of one record, to be waited for.
#[derive(Debug)]
#[must_use]
pub struct Delivery {
    fate: oneshot::Receiver<Result<Delivered, ProduceError>>,
}

impl Delivery {
    /// Waits for the acknowledgement.
    ///
    /// # Errors
    /// [`ProduceError`].
    pub async fn wait(self) -> Result<Delivered, ProduceError> {
        self.fate.await.unwrap_or(Err(ProduceError::Closed))
    }
}

/// Sends records to the partitions that the caller chooses. Cheap to clone; records under way when the last clone is
/// dropped are still sent.
#[derive(Clone, Debug)]
pub struct Producer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    cluster: Cluster,
    options: Arc<ProducerOptions>,
    room: Arc<Semaphore>,
    lanes: Mutex<HashMap<TopicPartition, mpsc::Sender<Item>>>,
}

impl Producer {
    /// A producer; nothing is asked of the cluster before the first record.
    #[must_use]
    pub fn new(cluster: Cluster, mut options: ProducerOptions) -> Self {
        options.in_flight_max = options.in_flight_max.clamp(1, IN_FLIGHT_MAX);
        options.buffer_bytes = options.buffer_bytes.clamp(1, BUFFER_BYTES_MAX);
        let room = Arc::new(Semaphore::new(options.buffer_bytes));
        let shared = Shared { cluster, options: Arc::new(options), room, lanes: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Queues a record behind those sent to the partition before it; waits while the buffer is full.
    ///
    /// # Errors
    /// [`ProduceError::Closed`] if the partition's task has ended, which it does only at a defect of its own.
    pub async fn send(&self, at: &TopicPartition, record: OwnedRecord) -> Result<Delivery, ProduceError> {
        let size = record.size().min(self.shared.options.buffer_bytes);
        let permits = u32::try_from(size).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.shared.room).acquire_many_owned(permits).await;
        let room = room.map_err(|_| ProduceError::Closed)?;
        let (done, fate) = oneshot::channel();
        let item = Item { record, done, room };
        self.lane(at).send(item).await.map_err(|_| ProduceError::Closed)?;
        Ok(Delivery { fate })
    }

    fn lane(&self, at: &TopicPartition) -> mpsc::Sender<Item> {
        let mut lanes = self.shared.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get(at) {
            return lane.clone();
        }
        let lane = Lane::spawn(self.shared.cluster.clone(), Arc::clone(&self.shared.options), at.clone());
        lanes.insert(at.clone(), lane.clone());
        lane
    }
}

impl OwnedRecord {
    /// A record without key and headers.
    #[must_use]
    pub fn of_value(timestamp: Timestamp, value: Bytes) -> Self {
        Self { timestamp, key: None, value: Some(value), headers: Vec::new() }
    }

    /// What it takes of the buffer: its bytes, and a little for each record so that empty ones count too.
    fn size(&self) -> usize {
        let optional = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|(key, value)| key.len() + optional(value)).sum();
        64 + optional(&self.key) + optional(&self.value) + headers
    }
}
