//! Fetches, refusals and bounds, between the wire's messages and the types of `replica`.

use bytes::Bytes;
use klamm_pb::replication::v1 as pb;
use klamm_replica::{FetchRefusal, FollowerFetch};
use klamm_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionId, TopicId};

use crate::partition::PartitionHandle;

/// The partition that a fetch is about. The topic's id, not its name: a topic that is deleted and created again under
/// the same name is another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct PartitionKey {
    pub(crate) topic: TopicId,
    pub(crate) partition: PartitionId,
}

impl PartitionKey {
    pub(crate) fn of(partition: &PartitionHandle) -> Self {
        Self { topic: partition.topic_id(), partition: partition.partition().partition }
    }

    /// Which of `streams` streams (from 1) the partition's fetches go over: always the same.
    pub(crate) fn stream(self, streams: usize) -> usize {
        let [.., b2, b1, b0] = self.topic.0;
        let topic = u32::from_be_bytes([0, b2, b1, b0]);
        topic.wrapping_add(self.partition.0.unsigned_abs()) as usize % streams.max(1)
    }
}

/// A message of the peer that breaks the rules of the protocol.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("a topic id has {len} bytes, not 16")]
    TopicId { len: usize },
    #[error("fetch {fetch_id} is answered with nothing")]
    NoOutcome { fetch_id: u64 },
    #[error("the parts of the answer to fetch {fetch_id} have more than the {size_max} bytes of one batch")]
    PartsTooLarge { fetch_id: u64, size_max: usize },
    #[error("the first part of the answer to fetch {fetch_id} has no whole batch header")]
    PartTooSmall { fetch_id: u64 },
    #[error("the stream's first message does not open it")]
    NotOpened,
}

/// A fetch as it is sent.
pub(crate) fn fetch_to_pb(fetch_id: u64, key: PartitionKey, fetch: &FollowerFetch) -> pb::PartitionFetch {
    pb::PartitionFetch {
        fetch_id,
        topic_id: Bytes::copy_from_slice(&key.topic.0),
        partition_id: key.partition.0,
        broker_epoch: fetch.broker_epoch.0,
        leader_epoch: fetch.leader_epoch.0,
        offset: fetch.offset.0,
        last_epoch: fetch.last_epoch.0,
        log_start_offset: fetch.log_start_offset.0,
        high_watermark: fetch.high_watermark.0,
    }
}

/// A fetch as its leader sees it. The sender is the one that opened the stream.
pub(crate) fn fetch_from_pb(
    from: BrokerId,
    fetch: &pb::PartitionFetch,
) -> Result<(PartitionKey, FollowerFetch), WireError> {
    let len = fetch.topic_id.len();
    let topic = <[u8; 16]>::try_from(fetch.topic_id.as_ref()).map_err(|_| WireError::TopicId { len })?;
    let key = PartitionKey { topic: TopicId(topic), partition: PartitionId(fetch.partition_id) };
    let fetch = FollowerFetch {
        broker: from,
        broker_epoch: BrokerEpoch(fetch.broker_epoch),
        leader_epoch: LeaderEpoch(fetch.leader_epoch),
        offset: Offset(fetch.offset),
        last_epoch: LeaderEpoch(fetch.last_epoch),
        log_start_offset: Offset(fetch.log_start_offset),
        high_watermark: Offset(fetch.high_watermark),
    };
    Ok((key, fetch))
}

/// A refusal as it is sent.
pub(crate) fn refusal_to_pb(refusal: FetchRefusal) -> pb::FetchRefusal {
    use pb::fetch_refusal::Reason;
    let reason = match refusal {
        FetchRefusal::FencedLeaderEpoch { current } => {
            Reason::FencedLeaderEpoch(pb::CurrentLeaderEpoch { leader_epoch: current.0 })
        }
        FetchRefusal::UnknownLeaderEpoch { current } => {
            Reason::UnknownLeaderEpoch(pb::CurrentLeaderEpoch { leader_epoch: current.0 })
        }
        FetchRefusal::NotLeader => Reason::NotLeader(pb::NotLeader {}),
        FetchRefusal::NotReplica => Reason::NotReplica(pb::NotReplica {}),
        FetchRefusal::StaleBrokerEpoch { current } => {
            Reason::StaleBrokerEpoch(pb::CurrentBrokerEpoch { broker_epoch: current.0 })
        }
        FetchRefusal::OffsetOutOfRange { log_start_offset, log_end_offset } => {
            Reason::OffsetOutOfRange(pb::LogBounds {
                log_start_offset: log_start_offset.0,
                log_end_offset: log_end_offset.0,
            })
        }
        FetchRefusal::Diverging { epoch, end_offset, high_watermark } => {
            Reason::Diverging(pb::DivergingEpoch {
                epoch: epoch.0,
                end_offset: end_offset.0,
                high_watermark: high_watermark.0,
            })
        }
        FetchRefusal::LogFailed => Reason::LogFailed(pb::LogFailed {}),
    };
    pb::FetchRefusal { reason: Some(reason) }
}

/// A refusal as its follower sees it; `None` if it is of a kind that this version does not know.
pub(crate) fn refusal_from_pb(refusal: &pb::FetchRefusal) -> Option<FetchRefusal> {
    use pb::fetch_refusal::Reason;
    Some(match refusal.reason.as_ref()? {
        Reason::FencedLeaderEpoch(at) => {
            FetchRefusal::FencedLeaderEpoch { current: LeaderEpoch(at.leader_epoch) }
        }
        Reason::UnknownLeaderEpoch(at) => {
            FetchRefusal::UnknownLeaderEpoch { current: LeaderEpoch(at.leader_epoch) }
        }
        Reason::NotLeader(_) => FetchRefusal::NotLeader,
        Reason::NotReplica(_) => FetchRefusal::NotReplica,
        Reason::StaleBrokerEpoch(at) => {
            FetchRefusal::StaleBrokerEpoch { current: BrokerEpoch(at.broker_epoch) }
        }
        Reason::OffsetOutOfRange(bounds) => FetchRefusal::OffsetOutOfRange {
            log_start_offset: Offset(bounds.log_start_offset),
            log_end_offset: Offset(bounds.log_end_offset),
        },
        Reason::Diverging(at) => FetchRefusal::Diverging {
            epoch: LeaderEpoch(at.epoch),
            end_offset: Offset(at.end_offset),
            high_watermark: Offset(at.high_watermark),
        },
        Reason::LogFailed(_) => FetchRefusal::LogFailed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_survives_the_wire() {
        let key = PartitionKey { topic: TopicId([7; 16]), partition: PartitionId(3) };
        let fetch = FollowerFetch {
            broker: BrokerId(2),
            broker_epoch: BrokerEpoch(11),
            leader_epoch: LeaderEpoch(4),
            offset: Offset(100),
            last_epoch: LeaderEpoch::NONE,
            log_start_offset: Offset(10),
            high_watermark: Offset(90),
        };
        let sent = fetch_to_pb(5, key, &fetch);
        assert_eq!(fetch_from_pb(BrokerId(2), &sent), Ok((key, fetch)));
        let cut = pb::PartitionFetch { topic_id: Bytes::from_static(b"short"), ..sent };
        assert_eq!(fetch_from_pb(BrokerId(2), &cut), Err(WireError::TopicId { len: 5 }));
    }

    #[test]
    fn every_refusal_survives_the_wire() {
        let (epoch, offset) = (LeaderEpoch(9), Offset(77));
        for refusal in [
            FetchRefusal::FencedLeaderEpoch { current: epoch },
            FetchRefusal::UnknownLeaderEpoch { current: epoch },
            FetchRefusal::NotLeader,
            FetchRefusal::NotReplica,
            FetchRefusal::StaleBrokerEpoch { current: BrokerEpoch(8) },
            FetchRefusal::OffsetOutOfRange { log_start_offset: Offset(1), log_end_offset: offset },
            FetchRefusal::Diverging { epoch, end_offset: offset, high_watermark: Offset(5) },
            FetchRefusal::LogFailed,
        ] {
            assert_eq!(refusal_from_pb(&refusal_to_pb(refusal)), Some(refusal));
        }
        assert_eq!(refusal_from_pb(&pb::FetchRefusal { reason: None }), None);
    }
}
