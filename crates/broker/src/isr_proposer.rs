//! Brings proposals of in-sync sets to the active controller, many in one request.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use klamm_pb::controller::v1 as pb;
use klamm_pb::metadata::v1::LeaderRecovery;
use klamm_replica::{IsrAnswer, IsrProposal, IsrRefusal, ProposalId};
use klamm_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, PartitionId, TopicId};
use tokio::sync::Notify;
use tracing::debug;

use crate::PartitionHandle;
use crate::controller_client::{ControllerClient, ControllerError};
use crate::partition::IsrProposals;

/// The most proposals in one request.
const PROPOSALS_MAX: usize = 1_000;
/// How long a request may wait for a controller and its answer. What is not answered by then counts as lost, and the
/// partitions send the same again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Takes proposals from partitions and brings each attempt to the controller at most once; each is answered exactly
/// once. One request is on its way at a time: what comes meanwhile goes with the next.
#[derive(Debug, Default)]
pub struct IsrProposer {
    queue: Mutex<Vec<Proposed>>,
    news: Notify,
}

/// A proposal and who waits for its answer.
struct Proposed {
    topic: TopicId,
    partition: PartitionId,
    proposal: IsrProposal,
    proposer: Box<dyn Proposer>,
}

/// Who made a proposal.
trait Proposer: Send {
    fn answer(&self, id: ProposalId, answer: IsrAnswer);
}

impl Proposer for PartitionHandle {
    fn answer(&self, id: ProposalId, answer: IsrAnswer) {
        self.on_isr_answer(id, answer);
    }
}

impl fmt::Debug for Proposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, partition, proposal, .. } = self;
        f.debug_struct("Proposed")
            .field("topic", topic)
            .field("partition", partition)
            .field("proposal", proposal)
            .finish_non_exhaustive()
    }
}

impl IsrProposals for IsrProposer {
    fn propose(&self, partition: &PartitionHandle, proposal: IsrProposal) {
        self.push(Proposed {
            topic: partition.topic_id(),
            partition: partition.partition().partition,
            proposal,
            proposer: Box::new(partition.clone()),
        });
    }
}

impl IsrProposer {
    /// A proposer without proposals. They wait until [`run`](Self::run) takes them.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Brings proposals to the controller until `shutdown` completes. What is then on its way is answered as lost.
    pub async fn run(self: Arc<Self>, client: ControllerClient, shutdown: impl Future<Output = ()>) {
        let bring = async {
            loop {
                self.news.notified().await;
                for (broker_epoch, proposed) in self.take() {
                    bring(&client, broker_epoch, proposed).await;
                }
            }
        };
        tokio::select! {
            biased;
            () = shutdown => {}
            () = bring => {}
        }
    }

    fn push(&self, proposed: Proposed) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push(proposed);
        self.news.notify_one();
    }

    /// All that waits, in requests: a request is of one incarnation of the broker.
    fn take(&self) -> Vec<(BrokerEpoch, Batch)> {
        let queue = std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner));
        let mut requests: BTreeMap<BrokerEpoch, Vec<Batch>> = BTreeMap::new();
        for proposed in queue {
            let batches = requests.entry(proposed.proposal.broker_epoch).or_default();
            match batches.last_mut() {
                Some(batch) if batch.0.len() < PROPOSALS_MAX => batch.0.push(proposed),
                _ => batches.push(Batch(vec![proposed])),
            }
        }
        let requests = requests.into_iter();
        requests.flat_map(|(epoch, batches)| batches.into_iter().map(move |batch| (epoch, batch))).collect()
    }
}

/// Proposals of one request. Whatever is not answered when it goes is answered as lost.
#[derive(Debug)]
struct Batch(Vec<Proposed>);

impl Batch {
    /// Gives each proposal its answer; those that the controller left out are lost.
    fn answer(mut self, answers: Vec<pb::IsrAnswer>) {
        let mut by_partition: BTreeMap<(Bytes, i32), pb::IsrAnswer> = BTreeMap::new();
        for answer in answers {
            by_partition.insert((answer.topic_id.clone(), answer.partition_id), answer);
        }
        for proposed in self.0.drain(..) {
            let key = (Bytes::copy_from_slice(&proposed.topic.0), proposed.partition.0);
            let answer = by_partition.remove(&key).and_then(from_pb).unwrap_or(IsrAnswer::Lost);
            proposed.proposer.answer(proposed.proposal.id, answer);
        }
    }

    /// Gives all proposals the same answer.
    fn answer_all(mut self, answer: &IsrAnswer) {
        for proposed in self.0.drain(..) {
            proposed.proposer.answer(proposed.proposal.id, answer.clone());
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        for proposed in self.0.drain(..) {
            proposed.proposer.answer(proposed.proposal.id, IsrAnswer::Lost);
        }
    }
}

async fn bring(client: &ControllerClient, broker_epoch: BrokerEpoch, batch: Batch) {
    let proposals = batch.0.iter().map(to_pb).collect();
    match client.alter_partition(broker_epoch, proposals, REQUEST_TIMEOUT).await {
        Ok(answers) => batch.answer(answers),
        Err(error) => {
            debug!(%error, proposals = batch.0.len(), "proposals of in-sync sets are not decided");
            batch.answer_all(&undecided(&error));
        }
    }
}

/// What a request that was not decided means for each of its proposals.
fn undecided(error: &ControllerError) -> IsrAnswer {
    match error {
        ControllerError::Refused { code, .. } => match refusal(*code) {
            Some(refusal) => IsrAnswer::Refused(refusal),
            None => IsrAnswer::Lost,
        },
        error if error.is_without_effect() => IsrAnswer::Refused(IsrRefusal::NotController),
        _ => IsrAnswer::Lost,
    }
}

fn to_pb(proposed: &Proposed) -> pb::IsrProposal {
    let IsrProposal { leader_epoch, partition_epoch, members, .. } = &proposed.proposal;
    let isr = members
        .iter()
        .map(|member| pb::IsrMember { broker_id: member.broker.0, broker_epoch: member.broker_epoch.0 });
    pb::IsrProposal {
        topic_id: Bytes::copy_from_slice(&proposed.topic.0),
        partition_id: proposed.partition.0,
        leader_epoch: leader_epoch.0,
        partition_epoch: partition_epoch.0,
        isr: isr.collect(),
        // A proposal always confirms the leader's log.
        recovery: LeaderRecovery::Recovered.into(),
    }
}

/// What an answer says; `None` if it makes no sense.
fn from_pb(answer: pb::IsrAnswer) -> Option<IsrAnswer> {
    if let Some(refused) = answer.refusal.filter(|refused| refused.code() != pb::RefusalCode::None) {
        return refusal(refused.code()).map(IsrAnswer::Refused);
    }
    let state = answer.state?;
    Some(IsrAnswer::Accepted {
        leader_epoch: LeaderEpoch(state.leader_epoch),
        partition_epoch: PartitionEpoch(state.partition_epoch),
        in_sync_replicas: state.isr.into_iter().map(BrokerId).collect(),
        min_in_sync_replicas: usize::try_from(state.min_insync_replicas).ok()?,
    })
}

/// The refusals that leave no doubt about what became of a proposal; any other may hide an accepted one.
fn refusal(code: pb::RefusalCode) -> Option<IsrRefusal> {
    Some(match code {
        pb::RefusalCode::StaleBrokerEpoch | pb::RefusalCode::BrokerIdNotRegistered => {
            IsrRefusal::StaleBrokerEpoch
        }
        pb::RefusalCode::UnknownTopicId | pb::RefusalCode::UnknownTopicOrPartition => {
            IsrRefusal::UnknownTopicOrPartition
        }
        pb::RefusalCode::NotController => IsrRefusal::NotController,
        pb::RefusalCode::FencedLeaderEpoch => IsrRefusal::FencedLeaderEpoch,
        pb::RefusalCode::InvalidRequest => IsrRefusal::InvalidRequest,
        pb::RefusalCode::InvalidUpdateVersion => IsrRefusal::InvalidUpdateVersion,
        pb::RefusalCode::IneligibleReplica => IsrRefusal::IneligibleReplica,
        pb::RefusalCode::NewLeaderElected => IsrRefusal::NewLeaderElected,
        _ => return None,
    })
}

#[cfg(test)]
#[path = "isr_proposer_test.rs"]
mod tests;
