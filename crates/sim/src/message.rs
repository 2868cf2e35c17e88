//! What travels between the nodes of the simulated cluster.

use bytes::Bytes;
use klamm_control::{AlterPartitionRequest, BrokerStanding, HeartbeatRequest, RegisterRequest};
use klamm_replica::{FetchAnswer, FetchId, FollowerFetch, IsrAnswer, ProposalId};
use klamm_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionId};

/// A place that messages come from and go to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Address {
    Broker(BrokerId),
    /// The active controller, wherever it is.
    Quorum,
    /// A producer, by its number.
    Producer(usize),
}

/// Which start of a broker's process. Answers to an earlier one are dropped, as its connections are gone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Life(pub u32);

/// Which replica of a broker's process. One that was taken away and given back is another, to which nothing belongs that
/// the former had asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Post {
    pub(crate) life: Life,
    pub(crate) number: u32,
}

#[derive(Clone, Debug)]
pub(crate) enum Message {
    Register {
        life: Life,
        request: RegisterRequest,
    },
    Registered {
        life: Life,
        /// `None`: refused, to be tried again.
        epoch: Option<BrokerEpoch>,
    },
    Heartbeat {
        life: Life,
        sent_us: u64,
        request: HeartbeatRequest,
    },
    Standing {
        life: Life,
        /// When the heartbeat that this answers was sent: the lease counts from then.
        sent_us: u64,
        /// `None`: the registration is not the current one.
        standing: Option<BrokerStanding>,
        /// How many entries of the metadata log are committed.
        committed: usize,
    },
    /// So many entries of the metadata log are committed.
    Feed {
        committed: usize,
    },
    Propose {
        post: Post,
        partition: PartitionId,
        proposal: ProposalId,
        request: AlterPartitionRequest,
    },
    ProposalAnswer {
        post: Post,
        partition: PartitionId,
        proposal: ProposalId,
        answer: IsrAnswer,
    },
    Fetch {
        post: Post,
        partition: PartitionId,
        id: FetchId,
        fetch: FollowerFetch,
    },
    FetchAnswer {
        post: Post,
        partition: PartitionId,
        id: FetchId,
        answer: FetchAnswer,
        records: Bytes,
    },
    Produce {
        producer: usize,
        attempt: u64,
        partition: PartitionId,
        batch: Bytes,
    },
    ProduceAnswer {
        attempt: u64,
        outcome: ProduceOutcome,
    },
}

/// What a broker answers to a producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ProduceOutcome {
    /// On enough disks, from this offset on, says the leader of this epoch.
    Acknowledged(Offset, LeaderEpoch),
    /// To be sent again.
    Retriable,
    /// The producer's sequence does not continue what the log has, says the leader of this epoch.
    OutOfOrder(LeaderEpoch),
}
