//! The in-sync set: what is committed, and the one change that may be under way (KIP-497).
//!
//! While a change is under way its outcome is unknown, so the leader waits for everybody who is or may be in the
//! set: the **maximal** set. That keeps the relation on which everything rests: whoever the controller may elect
//! is somebody the leader has waited for.
//!
//! ```text
//!              propose                         Accepted, or metadata with a higher partition epoch
//!  Committed ───────────▶ Pending{Sent} ──────────────────────────────────────────────▶ Committed
//!      ▲                   │  │   ▲ │ Fenced, InvalidUpdateVersion, Unknown, Invalid, NewLeaderElected
//!      │ IneligibleReplica │  │   │ └──────────────▶ Pending{AwaitingMetadata}
//!      │ to the only       │  │   │
//!      │ attempt           │  │   └─ resend the same ── Pending{RetryAt} ◀── Lost, NotController, StaleBrokerEpoch
//!      └───────────────────┘  │ IneligibleReplica after a lost attempt
//!                             └──▶ Pending{Withdraw}: propose the committed set under the same partition epoch
//! ```
//!
//! A lost attempt may still reach the controller. So a refusal of a later attempt does not prove that the change
//! never happens: the replica that was ineligible may be eligible again when the lost one arrives. Only another
//! change under the same partition epoch rules that out, and that is what withdrawing proposes.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

use klamm_types::{BrokerId, Timestamp};

use crate::effect::IsrProposal;
use crate::event::IsrRefusal;

/// The kind of a change of the in-sync set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IsrChange {
    /// Replicas join.
    Expand,
    /// Replicas leave.
    Shrink,
    /// The set stays; an earlier proposal is made impossible.
    Withdraw,
    /// The set stays; the leader of an unclean election confirms its log.
    ConfirmRecovery,
}

/// Where a proposal is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Delivery {
    /// On its way, or being answered.
    Sent,
    /// Lost or refused by a node that could not decide; to be sent again.
    RetryAt(Timestamp),
    /// Decided one way or the other; the metadata will tell.
    AwaitingMetadata,
}

/// A change that is under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PendingIsr {
    pub(crate) committed: BTreeSet<BrokerId>,
    pub(crate) maximal: BTreeSet<BrokerId>,
    pub(crate) change: IsrChange,
    pub(crate) proposal: IsrProposal,
    pub(crate) attempts: u32,
    pub(crate) delivery: Delivery,
}

/// The in-sync set as the leader sees it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum IsrState {
    /// No change is under way.
    Committed(BTreeSet<BrokerId>),
    /// One change is under way.
    Pending(PendingIsr),
}

/// What an answer to a proposal means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The change is not and will not be applied.
    RollBack,
    /// It may be applied yet: make it impossible.
    Withdraw,
    /// Decided; wait to hear how.
    AwaitMetadata,
    /// As before, and somebody should look.
    AwaitMetadataAlarmed,
    /// Undecided: send the same again.
    Resend,
}

impl IsrState {
    /// The set that the metadata has, as far as this leader knows.
    #[must_use]
    pub fn committed(&self) -> &BTreeSet<BrokerId> {
        match self {
            Self::Committed(members) => members,
            Self::Pending(pending) => &pending.committed,
        }
    }

    /// Everybody who is or may be in the set.
    #[must_use]
    pub fn maximal(&self) -> &BTreeSet<BrokerId> {
        match self {
            Self::Committed(members) => members,
            Self::Pending(pending) => &pending.maximal,
        }
    }

    /// The change under way.
    #[must_use]
    pub fn pending(&self) -> Option<&PendingIsr> {
        match self {
            Self::Committed(_) => None,
            Self::Pending(pending) => Some(pending),
        }
    }

    /// Puts a change under way.
    pub(crate) fn propose(&mut self, change: IsrChange, proposal: IsrProposal) {
        let proposed = proposal.members.iter().map(|member| member.broker);
        let maximal = self.maximal().iter().copied().chain(proposed).collect();
        if let Self::Pending(pending) = self {
            assert!(change == IsrChange::Withdraw, "R-6: {change:?} proposed while {pending:?} is under way");
        }
        let committed = self.committed().clone();
        let delivery = Delivery::Sent;
        *self = Self::Pending(PendingIsr { committed, maximal, change, proposal, attempts: 1, delivery });
    }
}

impl PendingIsr {
    /// The kind of the change.
    #[must_use]
    pub fn change(&self) -> IsrChange {
        self.change
    }

    /// The proposal, as it was and will be sent.
    #[must_use]
    pub fn proposal(&self) -> &IsrProposal {
        &self.proposal
    }

    /// Where it is.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// What a refusal of this proposal means.
    pub(crate) fn judge(&self, refusal: IsrRefusal) -> Verdict {
        match refusal {
            // A member of the committed set that became ineligible has left the set by now.
            IsrRefusal::IneligibleReplica if self.change == IsrChange::Withdraw => Verdict::AwaitMetadata,
            // B46: takes the last attempt's refusal for that of all.
            IsrRefusal::IneligibleReplica if self.attempts == 1 || cfg!(mutant = "B46") => Verdict::RollBack,
            IsrRefusal::IneligibleReplica => Verdict::Withdraw,
            IsrRefusal::FencedLeaderEpoch
            | IsrRefusal::InvalidUpdateVersion
            | IsrRefusal::UnknownTopicOrPartition
            | IsrRefusal::NewLeaderElected => Verdict::AwaitMetadata,
            IsrRefusal::InvalidRequest => Verdict::AwaitMetadataAlarmed,
            IsrRefusal::StaleBrokerEpoch | IsrRefusal::NotController => Verdict::Resend,
        }
    }
}

/// Two that hash alike behave alike but for the pace of retries: the id of the proposal only tells answers apart,
/// and of the attempts only matters whether there was more than one.
impl Hash for PendingIsr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.committed.hash(state);
        self.maximal.hash(state);
        self.change.hash(state);
        let proposal = &self.proposal;
        (proposal.broker_epoch, proposal.leader_epoch, proposal.partition_epoch).hash(state);
        proposal.members.hash(state);
        (self.attempts > 1).hash(state);
        std::mem::discriminant(&self.delivery).hash(state);
    }
}
