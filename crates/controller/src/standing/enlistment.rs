//! The task that finds out what a controller may have forgotten, and brings it back to full standing.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use klamm_metadata::{FeatureRange, feature_to_pb};
use klamm_pb::raft::v1 as pb;
use klamm_rpc::{Backoff, NodeIdentity};
use klamm_types::QuorumId;
use openraft::raft::VoteRequest;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Standing;
use super::decision::{Decision, Memory, decide, quorum_of_majority};
use crate::error::EnlistError;
use crate::raft::transport::RaftTransport;
use crate::raft::wire::{self, WireError};
use crate::raft::{ControllerNode, LogId, LogReader, Lost, LostRecord, Raft, Vote, WatchReceiver as _};
use crate::status::ControllerStatus;

/// How long silent controllers are waited for before it is said, and how often it is said again.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a node that is behind waits for what it lacks before it asks who has it.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The task of one controller.
pub(crate) struct Enlistment {
    pub(crate) raft: Raft,
    pub(crate) transport: RaftTransport,
    pub(crate) reader: LogReader,
    pub(crate) lost: LostRecord,
    pub(crate) founders: BTreeMap<u64, ControllerNode>,
    pub(crate) this: u64,
    pub(crate) may_be_new: bool,
    pub(crate) standing: watch::Sender<Standing>,
    pub(crate) status: watch::Sender<ControllerStatus>,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Enlisted {
    /// There is no quorum yet, and this node is one of those that found it.
    Founder,
    /// There is one.
    Member,
}

impl Enlistment {
    /// Brings this node to full standing, however long that takes.
    ///
    /// # Errors
    /// If Raft or its disk has stopped.
    pub(crate) async fn run(self) -> Result<Enlisted, EnlistError> {
        let at_start = *self.standing.borrow();
        let enlisted = match at_start {
            Standing::Whole => Enlisted::Member,
            Standing::Behind(_) => {
                self.catch_up().await?;
                Enlisted::Member
            }
            Standing::Blank | Standing::Doubtful => self.recall(at_start).await?,
        };
        self.wait_for(Vec::new());
        self.raft.runtime_config().elect(true);
        self.standing.send_replace(Standing::Whole);
        self.status.send_modify(|status| status.is_enlisted = true);
        Ok(enlisted)
    }

    /// Asks everybody until it is clear what this node may have forgotten, and gets that back.
    async fn recall(&self, at_start: Standing) -> Result<Enlisted, EnlistError> {
        let mut others = BTreeMap::new();
        let mut pauses = Backoff::between_nodes();
        let mut told = Instant::now();
        loop {
            let own = remembered(&self.raft).await?;
            let silent = match decide(self.this, &self.founders, &own, &others) {
                Decision::Found if !self.may_be_new || self.belongs() => return Err(EnlistError::NotNew),
                Decision::Found => return Ok(Enlisted::Founder),
                Decision::Join => {
                    self.lost.save(Lost::Nothing).await?;
                    return Ok(Enlisted::Member);
                }
                // It has voted in the quorum, or its log has no files; and nobody has an entry.
                Decision::Recall { until: None, .. } if own.last.is_none() && self.belongs() => {
                    return Err(EnlistError::NotNew);
                }
                Decision::Recall { until, vote } => {
                    tracing::warn!(
                        until = %until.map_or_else(|| "nothing".to_owned(), |until| until.to_string()),
                        "this controller's disk is empty or its log was cut: it votes for nobody who has less than the others have"
                    );
                    self.promise(until, vote.filter(|_| at_start == Standing::Blank)).await?;
                    self.catch_up().await?;
                    return Ok(Enlisted::Member);
                }
                Decision::WaitForFounders => {
                    others.clear();
                    self.other_founders()
                }
                Decision::Split(quorums) => {
                    self.tell_split(quorums);
                    others.clear();
                    self.other_founders()
                }
                Decision::Orphaned { .. } if self.belongs() => return Err(EnlistError::NotNew),
                Decision::Orphaned { id, quorum } => {
                    self.tell_orphaned(id, quorum);
                    others.clear();
                    self.other_founders()
                }
                Decision::Ask(silent) => silent,
            };
            let names: Vec<_> =
                silent.iter().map(|(id, node)| format!("{id}@{}:{}", node.host, node.port)).collect();
            if told.elapsed() >= PATIENCE {
                told = Instant::now();
                self.tell_waiting(at_start, &names.join(","), &others);
            }
            self.wait_for(names);
            tokio::time::sleep(pauses.next_pause()).await;
            others.extend(self.ask_all(&silent).await);
            self.settle(&others);
        }
    }

    /// Whether this node belongs to a quorum.
    fn belongs(&self) -> bool {
        self.transport.identity.quorum().get().is_some()
    }

    fn other_founders(&self) -> BTreeMap<u64, ControllerNode> {
        let others = self.founders.iter().filter(|(id, _)| **id != self.this);
        others.map(|(id, node)| (*id, node.clone())).collect()
    }

    /// Binds this node to the quorum of a majority. Until it is bound or enlisted, the node's broker follows nobody: it might
    /// be one that was founded beside the quorum.
    fn settle(&self, others: &BTreeMap<u64, Memory>) {
        if let Some(quorum) = quorum_of_majority(&self.founders, others) {
            // An error is told by whoever takes the metadata.
            let _ = self.transport.identity.quorum().settle(quorum);
        }
    }

    /// Has the status name whom this node waits for.
    fn wait_for(&self, awaited: Vec<String>) {
        self.status.send_if_modified(|status| {
            let differs = status.awaited != awaited;
            status.awaited = awaited;
            differs
        });
    }

    fn tell_waiting(&self, at_start: Standing, awaited: &str, others: &BTreeMap<u64, Memory>) {
        if at_start == Standing::Doubtful {
            tracing::warn!(
                awaited,
                "this controller may have lost the end of its log, and votes when these have said what they have"
            );
        } else if others.values().all(Memory::is_blank) {
            tracing::warn!(
                awaited,
                "this controller has an empty disk: when these have said that theirs are empty, too, it founds the quorum"
            );
        } else {
            tracing::warn!(
                awaited,
                "this controller has an empty disk and others have not: it votes when these have said what they have"
            );
        }
    }

    fn tell_split(&self, [(one, its), (other, others)]: [(u64, QuorumId); 2]) {
        if let Some(held_back) = self.transport.foreign.take() {
            tracing::error!(
                %one, quorum_of_one = %its, %other, quorum_of_other = %others, held_back,
                "two controllers belong to different quorums: stop the one that was founded with empty disks beside the \
                 other, and empty its disk; until then this controller, which has nothing, takes part in neither"
            );
        }
    }

    fn tell_orphaned(&self, controller: u64, quorum: QuorumId) {
        if let Some(held_back) = self.transport.foreign.take() {
            tracing::error!(
                controller, %quorum, held_back,
                "no controller has any metadata, and yet this one belongs to a quorum (quorum.id in its meta.properties): restore \
                 the metadata, or empty that controller, too, to begin anew"
            );
        }
    }

    /// What another controller remembers; `None` if it does not say.
    async fn ask(&self, id: u64, node: &ControllerNode) -> Option<Memory> {
        match self.transport.recall(id, node).await {
            Ok(answer) => match memory_from_pb(answer) {
                Ok(memory) => Some(memory),
                Err(error) => {
                    tracing::warn!(controller = id, %error, "what a controller remembers makes no sense");
                    None
                }
            },
            Err(error) => {
                tracing::debug!(controller = id, %error, "a controller does not say what it remembers");
                None
            }
        }
    }

    /// Writes down how far this node must catch up, and votes as it may have voted, so that it cannot vote otherwise.
    async fn promise(&self, until: Option<LogId>, vote: Option<Vote>) -> Result<(), EnlistError> {
        // First this: a crash before the vote leaves an empty log, which asks again.
        self.lost.save(until.map_or(Lost::Nothing, Lost::UpTo)).await?;
        if let Some(vote) = vote {
            let answer = self.raft.vote(VoteRequest::new(vote, until)).await.map_err(EnlistError::raft)?;
            if !answer.vote_granted {
                return Err(EnlistError::Vote { vote: vote.to_string(), own: answer.vote.to_string() });
            }
        }
        if let Some(until) = until {
            self.standing.send_replace(Standing::Behind(until));
        }
        Ok(())
    }

    /// Waits until all that this node may have acknowledged is on its disk. As long as it is not, the others are asked
    /// again: what none of them has any more, nobody can give.
    async fn catch_up(&self) -> Result<(), EnlistError> {
        self.wait_for(Vec::new());
        self.status.send_modify(|status| status.is_enlisted = true);
        let mut told = Instant::now();
        loop {
            let Standing::Behind(until) = *self.standing.borrow() else { return Ok(()) };
            if let Ok(reached) = tokio::time::timeout(ASK_AGAIN, self.reach(until)).await {
                reached?;
                self.lost.save(Lost::Nothing).await?;
                tracing::info!(%until, "this controller has again all that it may have acknowledged");
                return Ok(());
            }
            if told.elapsed() >= PATIENCE {
                told = Instant::now();
                tracing::warn!(
                    %until,
                    "this controller stands for no election, and votes only for who has this entry: it may have acknowledged it and does not have it"
                );
            }
            let Some(newest) = self.newest_of_all().await? else { continue };
            if newest < Some(until) {
                self.promise(newest, None).await?;
            }
            if newest.is_none() {
                return Ok(());
            }
        }
    }

    /// Waits for the entry `until`, or a later one.
    async fn reach(&self, until: LogId) -> Result<(), EnlistError> {
        let mut metrics = self.raft.metrics();
        loop {
            metrics.borrow_and_update();
            if self.reader.last_log_id()? >= Some(until) {
                return Ok(());
            }
            metrics.changed().await.map_err(EnlistError::raft)?;
        }
    }

    /// The newest entry that any other voter has; `None` if one of them does not say.
    async fn newest_of_all(&self) -> Result<Option<Option<LogId>>, EnlistError> {
        let own = remembered(&self.raft).await?;
        let mut others = BTreeMap::new();
        loop {
            match decide(self.this, &self.founders, &own, &others) {
                Decision::Ask(silent) => {
                    let answers = self.ask_all(&silent).await;
                    if answers.len() < silent.len() {
                        return Ok(None);
                    }
                    others.extend(answers);
                }
                Decision::Recall { until, .. } => return Ok(Some(until)),
                Decision::Join => return Ok(Some(None)),
                Decision::Found
                | Decision::WaitForFounders
                | Decision::Split(_)
                | Decision::Orphaned { .. } => return Ok(None),
            }
        }
    }

    async fn ask_all(&self, nodes: &BTreeMap<u64, ControllerNode>) -> BTreeMap<u64, Memory> {
        let asked = nodes.iter().map(|(id, node)| async move { (*id, self.ask(*id, node).await) });
        join_all(asked).await.into_iter().filter_map(|(id, memory)| Some((id, memory?))).collect()
    }
}

/// What this node remembers. What it may have forgotten is no part of that: whoever has it says so.
///
/// # Errors
/// If Raft has stopped.
pub(crate) async fn remembered_to_pb(
    raft: &Raft,
    identity: &NodeIdentity,
    features: &[FeatureRange],
) -> Result<pb::RecallResponse, EnlistError> {
    let memory = remembered(raft).await?;
    Ok(pb::RecallResponse {
        vote: memory.vote.as_ref().map(wire::vote_to_pb),
        last_log_id: memory.last.map(wire::log_id_to_pb),
        membership: memory.membership.as_ref().map(wire::membership_to_pb),
        quorum_id: wire::quorum_to_pb(identity.quorum().get()),
        features: features.iter().map(feature_to_pb).collect(),
    })
}

async fn remembered(raft: &Raft) -> Result<Memory, EnlistError> {
    let state = raft
        .with_raft_state(|state| {
            let membership = state.membership_state.effective().membership().clone();
            (*state.vote_ref(), state.log_ids.last().copied(), membership)
        })
        .await;
    let (vote, last, membership) = state.map_err(EnlistError::raft)?;
    Ok(Memory {
        vote: Some(vote).filter(|vote| vote.leader_id().term > 0),
        last,
        membership: Some(membership).filter(|membership| membership.voter_ids().next().is_some()),
        // Whoever asks names its own in the call.
        quorum: None,
    })
}

fn memory_from_pb(message: pb::RecallResponse) -> Result<Memory, WireError> {
    Ok(Memory {
        vote: message.vote.map(|vote| wire::vote_from_pb(Some(vote))).transpose()?,
        last: message.last_log_id.map(wire::log_id_from_pb).transpose()?,
        membership: message.membership.map(wire::membership_from_pb).transpose()?,
        quorum: wire::quorum_from_pb(&message.quorum_id)?,
    })
}
