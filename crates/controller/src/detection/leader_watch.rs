//! A follower's eye on its leader: a stream that stays open for as long as the leader's process lives.
//!
//! ```text
//!   the stream ends -> the leader's listener refuses twice -> would a quorum vote for me? -> election
//! ```
//! The question comes first, so that a node that is alone with its belief disturbs nobody. Followers go one after the
//! other, so that they do not split the vote.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use klamm_pb::raft::v1 as pb;
use klamm_rpc::{Backoff, Lane};
use openraft::raft::VoteRequest;
use tokio::time::Instant;

use super::{DeadLeader, Probe, is_refused_twice, probe};
use crate::raft::transport::RaftTransport;
use crate::raft::wire::new_vote;
use crate::raft::{ControllerNode, Membership, Raft, ServerMetrics, WatchReceiver as _, wait_until};
use crate::standing::StandingWatch;

/// How long the next in the order of followers waits for the one before.
const STAGGER: Duration = Duration::from_millis(40);
/// How long the first election may take before it is tried again; each later one takes twice as long.
const ATTEMPT: Duration = Duration::from_millis(100);
/// The longest that one may take.
const ATTEMPT_MAX: Duration = Duration::from_millis(800);
/// After that long the election timeouts have taken over.
const PATIENCE: Duration = Duration::from_secs(4);

/// The task.
pub(crate) struct LeaderWatch {
    pub(crate) raft: Raft,
    pub(crate) transport: RaftTransport,
    pub(crate) dead_leader: Arc<DeadLeader>,
    pub(crate) this: u64,
    pub(crate) standing: StandingWatch,
}

/// The leader of a term.
#[derive(Clone, PartialEq, Debug)]
struct Leader {
    term: u64,
    id: u64,
    node: ControllerNode,
}

impl LeaderWatch {
    /// Watches one leader after the other, for ever.
    pub(crate) async fn run(self) {
        let mut metrics = self.raft.server_metrics();
        let mut pauses = Backoff::between_nodes();
        // Without a quorum the same death is found again and again.
        let mut told_term = None;
        loop {
            let leader = self.leader(&metrics.borrow_and_update());
            let Some(leader) = leader else {
                if metrics.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let ended = tokio::select! {
                ended = self.watch(&leader) => ended,
                changed = self.other_than(&leader) => match changed {
                    Some(()) => continue,
                    None => return,
                },
            };
            if ended {
                pauses.reset();
            }
            if is_refused_twice(&leader.address()).await {
                if told_term.replace(leader.term) != Some(leader.term) {
                    tracing::info!(leader = leader.id, term = leader.term, "the leader's process is gone");
                }
                self.dead_leader.set(leader.term);
                self.replace(&leader).await;
                self.dead_leader.clear();
            }
            tokio::time::sleep(pauses.next_pause()).await;
        }
    }

    /// Somebody else who leads.
    fn leader(&self, metrics: &ServerMetrics) -> Option<Leader> {
        let id = metrics.current_leader.filter(|leader| *leader != self.this)?;
        let node = metrics.membership_config.membership().get_node(&id)?.clone();
        Some(Leader { term: metrics.vote.leader_id.term, id, node })
    }

    /// Waits until `leader` does not lead any more, as far as this node knows; `None` if Raft has stopped.
    async fn other_than(&self, leader: &Leader) -> Option<()> {
        let mut metrics = self.raft.server_metrics();
        let other = |metrics: &ServerMetrics| {
            metrics.vote.leader_id.term != leader.term || metrics.current_leader != Some(leader.id)
        };
        wait_until(&mut metrics, other).await
    }

    /// Holds the stream until it ends; tells whether there was one.
    async fn watch(&self, leader: &Leader) -> bool {
        let connection = self.transport.connection(leader.id, &leader.node, Lane::Raft);
        let Ok(mut client) = connection.client() else { return false };
        let request = pb::WatchRequest { header: Some(connection.header()) };
        let Ok(answer) = client.watch(request).await else { return false };
        let mut stream = answer.into_inner();
        let mut begun = false;
        while let Ok(Some(_)) = stream.message().await {
            begun = true;
        }
        begun
    }

    /// Stands for election until somebody leads in a later term, or the leader shows up again. Whoever sees another
    /// candidate gives that one time, and every attempt gets more time than the one before: on a busy machine votes are
    /// slow, and a new candidacy would only undo the one that is under way.
    async fn replace(&self, leader: &Leader) {
        let started = Instant::now();
        let membership = self.raft.server_metrics().borrow_watched().membership_config.membership().clone();
        if !membership.voter_ids().any(|voter| voter == self.this) {
            return;
        }
        let rank = membership.voter_ids().filter(|voter| *voter != leader.id && *voter < self.this).count();
        let stagger = STAGGER * u32::try_from(rank).unwrap_or(u32::MAX);
        let (mut pause, mut attempt) = (stagger, ATTEMPT);
        let mut seen_term = leader.term;
        while started.elapsed() < PATIENCE {
            if self.is_replaced_within(pause, leader.term).await
                || probe(&leader.address()).await == Probe::Answered
            {
                return;
            }
            let vote = self.raft.server_metrics().borrow_watched().vote;
            let candidate = vote.leader_id.term > seen_term && vote.leader_id.voted_for != self.this;
            seen_term = seen_term.max(vote.leader_id.term);
            if !candidate
                && self.standing.get().may_stand()
                && self.would_win(leader, &membership).await
                && self.raft.trigger().elect(false).await.is_err()
            {
                return;
            }
            pause = attempt + stagger;
            attempt = (attempt * 2).min(ATTEMPT_MAX);
        }
    }

    /// Waits until somebody leads in a later term than `term`, but no longer than `pause`; tells whether somebody does.
    async fn is_replaced_within(&self, pause: Duration, term: u64) -> bool {
        let mut metrics = self.raft.server_metrics();
        let leads =
            |metrics: &ServerMetrics| metrics.vote.leader_id.term > term && metrics.current_leader.is_some();
        tokio::time::timeout(pause, wait_until(&mut metrics, leads)).await.is_ok()
    }

    /// Whether a quorum would vote for this node, given that the leader is dead.
    async fn would_win(&self, leader: &Leader, membership: &Membership) -> bool {
        let state =
            self.raft.with_raft_state(|state| (*state.vote_ref(), state.log_ids.last().copied())).await;
        let Ok((vote, last_log_id)) = state else { return false };
        let next_term = vote.leader_id.term.saturating_add(1);
        let request = VoteRequest::new(new_vote(next_term, self.this, false), last_log_id);
        let others = membership.voter_ids().filter(|voter| *voter != self.this && *voter != leader.id);
        let mut answers: FuturesUnordered<_> = others
            .filter_map(|voter| Some((voter, membership.get_node(&voter)?.clone())))
            .map(|(voter, node)| {
                let connection = self.transport.connection(voter, &node, Lane::Raft);
                let request = request.clone();
                async move { (voter, connection.ask_vote(&request, true, true).await) }
            })
            .collect();
        let mut granted = vec![self.this];
        while !is_quorum(membership, &granted) {
            match answers.next().await {
                Some((voter, Ok(answer))) if answer.vote_granted => granted.push(voter),
                Some(_) => {}
                None => return false,
            }
        }
        true
    }
}

impl Leader {
    fn address(&self) -> klamm_rpc::NodeAddress {
        klamm_rpc::NodeAddress::new(self.node.host.clone(), self.node.port)
    }
}

/// Whether `granted` is a majority of each set of voters.
fn is_quorum(membership: &Membership, granted: &[u64]) -> bool {
    let majority = |voters: &std::collections::BTreeSet<u64>| {
        granted.iter().filter(|voter| voters.contains(voter)).count() * 2 > voters.len()
    };
    membership.get_joint_config().iter().all(majority)
}
