//! What a partition needs of others, and how they answer.

use std::fmt;

use bytes::Bytes;
use klamm_replica::{FetchId, FetchRefusal, FollowerFetch, IsrProposal};
use klamm_types::{BrokerId, Offset};

use crate::partition::PartitionHandle;

/// Sends the fetches of followers to their leaders.
///
/// Every call comes with the partition's lock held: an implementation takes note of it and returns; it neither waits
/// nor calls into a partition. Each fetch is answered by [`PartitionHandle::on_fetch_answer`], with
/// [`FetchOutcome::Unreachable`] if the leader gave no answer, unless it was replaced or cancelled.
pub trait FollowerFetches: Send + Sync + fmt::Debug {
    /// Asks `leader` for the records that follow `fetch.offset`. It replaces any earlier fetch of the partition.
    fn send(&self, partition: &PartitionHandle, id: FetchId, leader: BrokerId, fetch: FollowerFetch);

    /// The answer to the fetch is no longer wanted.
    fn cancel(&self, partition: &PartitionHandle, id: FetchId);
}

/// Sends proposals of in-sync sets to the controller.
///
/// Called as [`FollowerFetches`] are. Each proposal is answered by [`PartitionHandle::on_isr_answer`], with
/// [`IsrAnswer::Lost`](klamm_replica::IsrAnswer::Lost) if it is not known what became of it, and each attempt is
/// delivered to the controller at most once.
pub trait IsrProposals: Send + Sync + fmt::Debug {
    /// Sends the proposal.
    fn propose(&self, partition: &PartitionHandle, proposal: IsrProposal);
}

/// What became of a fetch.
#[derive(Clone, Debug)]
pub enum FetchOutcome {
    /// The leader answered.
    Records {
        /// Batches from the one that holds the offset asked for; empty if there was nothing in time. The last one may
        /// be cut off.
        records: Bytes,
        /// The leader's high watermark.
        high_watermark: Offset,
        /// The leader's first offset.
        log_start_offset: Offset,
    },
    /// The leader refused.
    Refused(FetchRefusal),
    /// No answer: connection lost, or not in time, or one that does not decode.
    Unreachable,
}
