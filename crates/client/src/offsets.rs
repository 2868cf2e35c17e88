//! Looking up offsets by time.

use std::collections::BTreeMap;

use klamm_protocol::ApiKey;
use klamm_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use klamm_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use klamm_types::{BrokerId, LeaderEpoch, Offset, Timestamp, TopicPartition};

use crate::backoff::Backoff;
use crate::cluster::Cluster;
use crate::error::{ApiError, ClientError};
use crate::view::Leader;

/// Which records a reader sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// All below the high watermark.
    #[default]
    ReadUncommitted,
    /// Those below the last stable offset that belong to no aborted transaction.
    ReadCommitted,
}

/// Which offset is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first offset that is kept.
    Earliest,
    /// The offset after the last one that the reader may see.
    Latest,
    /// That of the record with the greatest timestamp (KIP-734).
    MaxTimestamp,
    /// The first offset that lies on local disk (KIP-405).
    EarliestLocal,
    /// That of the first record at or after this time.
    At(Timestamp),
}

/// An offset that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionOffset {
    /// The offset; `None` if no record is as late as was asked for.
    pub offset: Option<Offset>,
    /// The record's timestamp, where a record was asked for.
    pub timestamp: Option<Timestamp>,
    /// The epoch of the leader that wrote the record, if the broker tells.
    pub leader_epoch: Option<LeaderEpoch>,
}

impl Isolation {
    pub(crate) fn to_wire(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

impl OffsetSpec {
    fn to_wire(self) -> i64 {
        match self {
            Self::Latest => -1,
            Self::Earliest => -2,
            Self::MaxTimestamp => -3,
            Self::EarliestLocal => -4,
            Self::At(timestamp) => timestamp.0,
        }
    }

    /// The first version of the API that knows it.
    fn version_min(self) -> i16 {
        match self {
            Self::MaxTimestamp => 7,
            Self::EarliestLocal => 8,
            Self::Latest | Self::Earliest | Self::At(_) => 1,
        }
    }
}

type Found = BTreeMap<TopicPartition, Result<PartitionOffset, ClientError>>;

/// The partitions that one leader is asked for.
struct Share {
    leader: Leader,
    queries: Vec<(TopicPartition, OffsetSpec)>,
}

impl Cluster {
    /// Asks the leaders of all partitions for offsets; what is temporary is tried again until the operation's time is
    /// over. Each partition has a result of its own.
    pub async fn offsets(
        &self,
        queries: &[(TopicPartition, OffsetSpec)],
        isolation: Isolation,
    ) -> BTreeMap<TopicPartition, Result<PartitionOffset, ClientError>> {
        let mut backoff = Backoff::for_operation(self.options());
        let mut found = Found::new();
        let mut open = queries.to_vec();
        loop {
            for share in self.by_leader(open, &mut found).await {
                self.ask_leader(share, isolation, &mut found).await;
            }
            let passing = |at: &TopicPartition| match found.get(at) {
                Some(Err(error)) => error.is_retryable(),
                Some(Ok(_)) | None => false,
            };
            open = queries.iter().filter(|(at, _)| passing(at)).cloned().collect();
            let cause = open.first().and_then(|(at, _)| found.get(at)?.as_ref().err().cloned());
            let Some(cause) = cause else { return found };
            if backoff.pause(cause).await.is_err() {
                return found;
            }
        }
    }

    /// Sorts the queries by leader; those without a leader get their errors.
    async fn by_leader(&self, open: Vec<(TopicPartition, OffsetSpec)>, found: &mut Found) -> Vec<Share> {
        let mut shares: BTreeMap<BrokerId, Share> = BTreeMap::new();
        for (at, spec) in open {
            match self.leader(&at).await {
                Ok(leader) => {
                    let share = shares.entry(leader.broker).or_insert(Share { leader, queries: Vec::new() });
                    share.queries.push((at, spec));
                }
                Err(error) => {
                    found.insert(at, Err(error));
                }
            }
        }
        shares.into_values().collect()
    }

    async fn ask_leader(&self, share: Share, isolation: Isolation, found: &mut Found) {
        let connection = &share.leader.connection;
        let needed = share.queries.iter().map(|(_, spec)| spec.version_min()).max().unwrap_or(1);
        let answer = match connection.newest(ApiKey::ListOffsets, i16::MAX) {
            Ok(version) if version >= needed => connection.call(&request(&share.queries, isolation)).await,
            _ => Err(ClientError::Unsupported {
                endpoint: connection.endpoint().clone(),
                api: ApiKey::ListOffsets,
            }),
        };
        for (at, _) in &share.queries {
            let result = match &answer {
                Ok(answer) => offset_of(answer, at).unwrap_or_else(|| {
                    Err(ClientError::Mismatch {
                        endpoint: connection.endpoint().clone(),
                        api: ApiKey::ListOffsets,
                    })
                }),
                Err(error) => Err(error.clone()),
            };
            if result.as_ref().is_err_and(ClientError::is_stale_view) {
                self.mark_stale(at);
            }
            found.insert(at.clone(), result);
        }
    }
}

fn request(queries: &[(TopicPartition, OffsetSpec)], isolation: Isolation) -> ListOffsetsRequest {
    let mut topics: BTreeMap<&str, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for (at, spec) in queries {
        topics.entry(at.topic.as_str()).or_default().push(ListOffsetsPartition {
            partition_index: at.partition.0,
            current_leader_epoch: -1,
            timestamp: spec.to_wire(),
        });
    }
    let topic = |(name, partitions): (&str, _)| ListOffsetsTopic { name: name.to_owned(), partitions };
    ListOffsetsRequest {
        replica_id: -1,
        isolation_level: isolation.to_wire(),
        topics: topics.into_iter().map(topic).collect(),
        timeout_ms: 5_000,
    }
}

fn offset_of(
    answer: &ListOffsetsResponse,
    at: &TopicPartition,
) -> Option<Result<PartitionOffset, ClientError>> {
    let topic = answer.topics.iter().find(|topic| topic.name == at.topic.as_str())?;
    let partition = topic.partitions.iter().find(|found| found.partition_index == at.partition.0)?;
    Some(from_wire(partition))
}

fn from_wire(partition: &ListOffsetsPartitionResponse) -> Result<PartitionOffset, ClientError> {
    ApiError::check(partition.error_code, None)?;
    Ok(PartitionOffset {
        offset: (partition.offset >= 0).then_some(Offset(partition.offset)),
        timestamp: (partition.timestamp >= 0).then_some(Timestamp(partition.timestamp)),
        leader_epoch: (partition.leader_epoch >= 0).then_some(LeaderEpoch(partition.leader_epoch)),
    })
}
