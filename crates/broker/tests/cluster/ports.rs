//! The network and the controller of the cluster in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm_broker::partition::{
    FetchOutcome, FetchRefusal, FollowerFetch, FollowerFetches, Interest, IsrProposals, WakeUp,
};
use klamm_broker::{PartitionHandle, ReplicaManager};
use klamm_metadata::{MetadataImage, MetadataRecord, PartitionChanged, PartitionRegistration};
use klamm_replica::{FetchId, IsrAnswer, IsrProposal, IsrRefusal};
use klamm_types::{BrokerId, PartitionEpoch, PartitionId, TopicId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{delta_of, lock, provenance};

/// How long a leader holds a fetch that it has nothing for.
const HOLD: Duration = Duration::from_millis(100);

/// Who can be reached.
#[derive(Default)]
pub(crate) struct Network {
    managers: Mutex<BTreeMap<BrokerId, Arc<ReplicaManager>>>,
    cut: Mutex<BTreeSet<BrokerId>>,
    publishing: tokio::sync::Mutex<()>,
    /// How many proposals were refused because of a member.
    refused: std::sync::atomic::AtomicUsize,
}

impl Network {
    pub(crate) fn join(&self, id: BrokerId, manager: &Arc<ReplicaManager>) {
        lock(&self.managers).insert(id, Arc::clone(manager));
    }

    pub(crate) fn leave(&self, id: BrokerId) {
        lock(&self.managers).remove(&id);
    }

    /// Nobody gets fetches of this broker, nor it of others.
    pub(crate) fn cut(&self, id: i32) {
        lock(&self.cut).insert(BrokerId(id));
    }

    pub(crate) fn heal(&self, id: i32) {
        lock(&self.cut).remove(&BrokerId(id));
    }

    /// The brokers that are up and not cut off.
    pub(crate) fn reachable(&self) -> Vec<Arc<ReplicaManager>> {
        let cut = lock(&self.cut);
        let managers = lock(&self.managers);
        managers.iter().filter(|(id, _)| !cut.contains(id)).map(|(_, manager)| Arc::clone(manager)).collect()
    }

    /// How many proposals were refused because a member may not be in sync.
    pub(crate) fn refused_proposals(&self) -> usize {
        self.refused.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn leader(&self, follower: BrokerId, leader: BrokerId) -> Option<Arc<ReplicaManager>> {
        let cut = lock(&self.cut);
        if cut.contains(&follower) || cut.contains(&leader) {
            return None;
        }
        lock(&self.managers).get(&leader).cloned()
    }
}

type Sent<T> = mpsc::UnboundedSender<T>;

#[derive(Debug)]
struct Fetches(Sent<(PartitionHandle, FetchId, BrokerId, FollowerFetch)>);

impl FollowerFetches for Fetches {
    fn send(&self, partition: &PartitionHandle, id: FetchId, leader: BrokerId, fetch: FollowerFetch) {
        // The receiver goes with the broker.
        let _ = self.0.send((partition.clone(), id, leader, fetch));
    }

    fn cancel(&self, _: &PartitionHandle, _: FetchId) {
        // An answer that comes all the same is the partition's to ignore.
    }
}

#[derive(Debug)]
struct Proposals(Sent<(PartitionHandle, IsrProposal)>);

impl IsrProposals for Proposals {
    fn propose(&self, partition: &PartitionHandle, proposal: IsrProposal) {
        // The receiver goes with the broker.
        let _ = self.0.send((partition.clone(), proposal));
    }
}

/// Starts the ports of a broker.
pub(crate) fn start(
    me: BrokerId,
    network: &Arc<Network>,
    metadata: &Arc<Mutex<Arc<MetadataImage>>>,
    tasks: &mut JoinSet<()>,
) -> (Arc<dyn FollowerFetches>, Arc<dyn IsrProposals>) {
    let (fetches, mut sent) = mpsc::unbounded_channel();
    let net = Arc::clone(network);
    tasks.spawn(async move {
        let mut under_way = JoinSet::new();
        while let Some((partition, id, leader, fetch)) = sent.recv().await {
            let net = Arc::clone(&net);
            under_way.spawn(async move {
                let outcome = ask(&net, me, leader, &partition, &fetch).await;
                partition.on_fetch_answer(id, outcome);
            });
            while under_way.try_join_next().is_some() {}
        }
    });
    let (proposals, mut proposed) = mpsc::unbounded_channel::<(PartitionHandle, IsrProposal)>();
    let (net, metadata) = (Arc::clone(network), Arc::clone(metadata));
    tasks.spawn(async move {
        while let Some((partition, proposal)) = proposed.recv().await {
            let answer = decide(&metadata, &net, &partition, &proposal).await;
            partition.on_isr_answer(proposal.id, answer);
        }
    });
    (Arc::new(Fetches(fetches)), Arc::new(Proposals(proposals)))
}

async fn ask(
    network: &Network,
    me: BrokerId,
    leader: BrokerId,
    partition: &PartitionHandle,
    fetch: &FollowerFetch,
) -> FetchOutcome {
    let Some(manager) = network.leader(me, leader) else { return FetchOutcome::Unreachable };
    let name = partition.partition();
    let Ok(theirs) = manager.partition(partition.topic_id(), name.partition) else {
        return FetchOutcome::Refused(FetchRefusal::NotLeader);
    };
    let outcome = answer(&theirs, fetch).await;
    // A cut loses the answer, too.
    match network.leader(me, leader) {
        Some(_) => outcome.unwrap_or_else(FetchOutcome::Refused),
        None => FetchOutcome::Unreachable,
    }
}

async fn answer(theirs: &PartitionHandle, fetch: &FollowerFetch) -> Result<FetchOutcome, FetchRefusal> {
    let wake_up = WakeUp::new();
    let _watch = theirs.watch(Interest::Anything, &wake_up);
    let mut bounds = theirs.on_follower_fetch(fetch)?;
    let deadline = tokio::time::Instant::now() + HOLD;
    loop {
        let is_news = bounds.log_end_offset > fetch.offset
            || bounds.high_watermark > fetch.high_watermark
            || bounds.log_start_offset > fetch.log_start_offset;
        if is_news || tokio::time::timeout_at(deadline, wake_up.woken()).await.is_err() {
            break;
        }
        bounds = theirs.check_follower_fetch(fetch)?;
    }
    let Ok(slice) = theirs.read_for_follower(&bounds, 1 << 20) else { return Ok(FetchOutcome::Unreachable) };
    let records = slice.map(|slice| slice.to_vec().unwrap()).unwrap_or_default().into();
    let (high_watermark, log_start_offset) = (bounds.high_watermark, bounds.log_start_offset);
    Ok(FetchOutcome::Records { records, high_watermark, log_start_offset })
}

/// The controller's answer to a proposal.
async fn decide(
    metadata: &Mutex<Arc<MetadataImage>>,
    network: &Network,
    partition: &PartitionHandle,
    proposal: &IsrProposal,
) -> IsrAnswer {
    let (topic, number) = (partition.topic_id(), partition.partition().partition);
    let answer = decide_and_publish(metadata, network, |image| judge(image, topic, number, proposal)).await;
    if answer == IsrAnswer::Refused(IsrRefusal::IneligibleReplica) {
        network.refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    answer
}

fn judge(
    image: &MetadataImage,
    topic: TopicId,
    number: PartitionId,
    proposal: &IsrProposal,
) -> (Vec<MetadataRecord>, IsrAnswer) {
    let refuse = |refusal| (Vec::new(), IsrAnswer::Refused(refusal));
    let Some(old) = image.topics.partition(topic, number) else {
        return refuse(IsrRefusal::UnknownTopicOrPartition);
    };
    if proposal.leader_epoch != old.leader_epoch {
        return refuse(IsrRefusal::FencedLeaderEpoch);
    }
    if proposal.partition_epoch != old.partition_epoch {
        return refuse(IsrRefusal::InvalidUpdateVersion);
    }
    let is_eligible = |member: &klamm_replica::IsrMember| {
        let broker = image.cluster.broker(member.broker);
        let is_offline = image.offline.contains(member.broker, topic, number);
        broker.is_some_and(|broker| broker.is_active() && broker.epoch == member.broker_epoch) && !is_offline
    };
    if !proposal.members.iter().all(is_eligible) {
        return refuse(IsrRefusal::IneligibleReplica);
    }
    let isr: Vec<_> = proposal.members.iter().map(|member| member.broker).collect();
    let partition_epoch = PartitionEpoch(old.partition_epoch.0 + 1);
    let new = PartitionRegistration { isr: isr.clone(), partition_epoch, ..old.as_ref().clone() };
    let change = PartitionChanged::between(topic, number, old, &new);
    let accepted = IsrAnswer::Accepted {
        leader_epoch: new.leader_epoch,
        partition_epoch,
        in_sync_replicas: isr.into_iter().collect(),
        min_in_sync_replicas: 1,
    };
    (vec![MetadataRecord::PartitionChanged(change)], accepted)
}

/// Commits the facts that `decide` makes of the newest image, and lets every broker know, in order.
pub(crate) async fn decide_and_publish<T>(
    metadata: &Mutex<Arc<MetadataImage>>,
    network: &Network,
    decide: impl FnOnce(&MetadataImage) -> (Vec<MetadataRecord>, T),
) -> T {
    let _publishing = network.publishing.lock().await;
    let old = Arc::clone(&lock(metadata));
    let (records, outcome) = decide(&old);
    let delta = delta_of(&old, &records);
    let new = Arc::new(delta.clone().apply(provenance(&old, records.len())));
    *lock(metadata) = Arc::clone(&new);
    let delta = Arc::new(delta);
    let managers: Vec<_> = lock(&network.managers).values().cloned().collect();
    for manager in managers {
        manager.apply(Arc::clone(&delta), Arc::clone(&new)).await;
    }
    outcome
}
