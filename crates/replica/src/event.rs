//! What happens to a replica.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

use klamm_types::{BrokerEpoch, BrokerId, EpochEntry, LeaderEpoch, Offset, PartitionEpoch, Timestamp};

use crate::refusal::FetchRefusal;
use crate::registration::{BrokerStates, Registration, ReplicaConfig};

macro_rules! correlation {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub u64);
    };
}

correlation!(
    /// Names an append that a client waits for. Chosen by the body, unique while it is pending.
    AppendTicket
);
correlation!(
    /// Names a request to delete records. Chosen by the body, unique while it is pending.
    DeletionTicket
);
correlation!(
    /// Names a fetch that a follower waits to have answered. Chosen by the body of the leader.
    FetchTicket
);
correlation!(
    /// Names a fetch that this replica sent as a follower. Chosen by the replica; grows.
    FetchId
);
correlation!(
    /// Names a proposal of an in-sync set. Chosen by the replica; grows. Resending keeps the id.
    ProposalId
);

/// How much of a log a flush covers, see [`Effect::Flush`](crate::Effect::Flush).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlushToken {
    /// Exclusive end of what is on disk once the flush is done.
    pub end_offset: Offset,
    /// How often the log had been truncated when the flush was asked for.
    pub generation: u64,
}

/// When an append is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Acks {
    /// At once (`acks=0`): nobody reads the answer.
    None,
    /// When the leader has written it (`acks=1`).
    Leader,
    /// When it is committed (`acks=all`).
    All,
}

/// A client's wish to append.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AppendRequest {
    /// Names the append.
    pub ticket: AppendTicket,
    /// When it is acknowledged.
    pub acks: Acks,
    /// The leader epoch in which the caller wants to append, if it cares (coordinators do).
    pub leader_epoch: Option<LeaderEpoch>,
    /// Until when an `acks=all` append may wait for the followers. A sync of this replica's own
    /// may take five seconds longer.
    pub deadline: Timestamp,
    /// Until when the broker's session with the controller lasts. It is a fact of the broker, so it comes with
    /// the request instead of waking every partition with every heartbeat.
    pub lease_until: Timestamp,
}

/// A wish to delete the records before an offset: of retention, or of a client (KIP-107).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeletionRequest {
    /// Names the request; `None` if nobody waits (retention).
    pub ticket: Option<DeletionTicket>,
    /// First offset that stays; at most the high watermark.
    pub offset: Offset,
    /// Until when the request may wait for the followers.
    pub deadline: Timestamp,
}

/// A follower's fetch, as its leader gets it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FollowerFetch {
    /// The follower.
    pub broker: BrokerId,
    /// The follower's incarnation.
    pub broker_epoch: BrokerEpoch,
    /// The leader epoch in which it follows.
    pub leader_epoch: LeaderEpoch,
    /// Where it wants to go on. It holds everything before: this is the acknowledgement.
    pub offset: Offset,
    /// The epoch of its last record before `offset`, or [`LeaderEpoch::NONE`].
    pub last_epoch: LeaderEpoch,
    /// The first offset of its log.
    pub log_start_offset: Offset,
    /// Its high watermark: a leader with a higher one answers at once even without new records (KIP-1166).
    pub high_watermark: Offset,
}

/// Records that a follower was given, described.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchedRecords {
    /// Exclusive end of the records; the offset asked for if there are none.
    pub end_offset: Offset,
    /// The epochs that the records are of: each with the first offset at which it appears in them.
    pub epoch_starts: Vec<EpochEntry>,
    /// The leader's high watermark.
    pub high_watermark: Offset,
    /// The leader's first offset.
    pub log_start_offset: Offset,
}

impl Hash for FetchedRecords {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.end_offset, self.high_watermark, self.log_start_offset).hash(state);
        for start in &self.epoch_starts {
            (start.epoch, start.start_offset).hash(state);
        }
    }
}

/// What became of a follower's fetch.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum FetchAnswer {
    /// Records, or none because there were none in time.
    Records(FetchedRecords),
    /// The leader refused.
    Refused(FetchRefusal),
    /// No answer: connection lost, or the request timed out.
    Unreachable,
}

/// Why the controller did not take a proposal (KIP-497, KIP-841, KIP-903).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IsrRefusal {
    /// The sender's incarnation is not the registered one.
    StaleBrokerEpoch,
    /// The topic or partition is unknown.
    UnknownTopicOrPartition,
    /// The asked node is not the active controller, or is one that does not know it yet.
    NotController,
    /// The leader epoch is over.
    FencedLeaderEpoch,
    /// The proposal breaks a rule by itself.
    InvalidRequest,
    /// The partition epoch is over.
    InvalidUpdateVersion,
    /// A proposed member may not join. The proposal was *not* applied.
    IneligibleReplica,
    /// Applied, and it completed a reassignment that moved the leader.
    NewLeaderElected,
}

/// What became of a proposal.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum IsrAnswer {
    /// The registration after the proposal was applied.
    Accepted {
        /// The leader epoch.
        leader_epoch: LeaderEpoch,
        /// The partition epoch; higher than the proposal's, as an accepted proposal is a change.
        partition_epoch: PartitionEpoch,
        /// The committed in-sync set.
        in_sync_replicas: BTreeSet<BrokerId>,
        /// The effective minimum of in-sync replicas under which the controller decided who stays eligible. It
        /// holds until the metadata of this partition epoch comes: the leader may not know yet that it was raised.
        min_in_sync_replicas: usize,
    },
    /// The controller's refusal.
    Refused(IsrRefusal),
    /// No answer: it may have been applied, may yet be, or not.
    Lost,
}

/// An event. Everything that a replica learns, it learns from one of these.
///
/// **Order.** The body completes each log-writing effect ([`Append`](crate::Effect::Append),
/// [`AppendAsFollower`](crate::Effect::AppendAsFollower), [`TruncateTo`](crate::Effect::TruncateTo),
/// [`TruncateFullyAndStartAt`](crate::Effect::TruncateFullyAndStartAt)) and feeds its outcome (`Appended`,
/// `AppendDropped`, `AppendedAsFollower`, `FollowerAppendDropped`, `Truncated` or `LogFailed`) before any other event. Flushes,
/// fetches and proposals complete whenever they do, or never.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The metadata has a new image in which the partition, or a broker of it, changed. Images come in order;
    /// skipping some is fine.
    RegistrationChanged {
        /// The partition's settings, if they have changed since the image before. One image is one state: a leader that it
        /// deposes must not count by its minimum, and one whose in-sync set it shrinks must not count by the old one.
        config: Option<ReplicaConfig>,
        /// The partition.
        registration: Registration,
        /// The brokers of its replicas, from the same image.
        brokers: BrokerStates,
    },
    /// A client wants to append.
    AppendRequested(AppendRequest),
    /// The log took the append (or knew it already, by its producer sequence).
    Appended {
        /// Which append.
        ticket: AppendTicket,
        /// The offset of its first record.
        base_offset: Offset,
        /// Exclusive end of its records; below the log end if the log knew them already.
        end_offset: Offset,
    },
    /// The log refused the append before writing (sequence, size, ...). The body answers the client.
    AppendDropped {
        /// Which append.
        ticket: AppendTicket,
    },
    /// The log took the records of a fetch answer.
    AppendedAsFollower {
        /// The new log end.
        log_end_offset: Offset,
    },
    /// The log did not take the records of a fetch answer, and is as before (a full disk, records that do not go on
    /// where it ends): they are asked for again, later.
    FollowerAppendDropped,
    /// The log was truncated.
    Truncated {
        /// The new log end: the target, or the end of the last whole batch before it.
        log_end_offset: Offset,
    },
    /// What the token covers is on disk.
    Flushed(FlushToken),
    /// A follower asks for records.
    FollowerFetched {
        /// Names the fetch.
        ticket: FetchTicket,
        /// The fetch.
        fetch: FollowerFetch,
    },
    /// A fetch of this replica was answered.
    FetchAnswered {
        /// Which fetch.
        fetch: FetchId,
        /// The answer.
        answer: FetchAnswer,
    },
    /// A proposal of this replica was answered.
    IsrProposalAnswered {
        /// Which proposal.
        proposal: ProposalId,
        /// The answer.
        answer: IsrAnswer,
    },
    /// Records before an offset are to go.
    DeletionRequested(DeletionRequest),
    /// Time passed; see [`Replica::next_wakeup`](crate::Replica::next_wakeup).
    Tick,
    /// Reading or writing the log failed: it is out of service until the broker starts anew.
    LogFailed,
}
