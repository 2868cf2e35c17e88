//! Three nodes in one process on our store: what they acknowledged outlives a power cut of the leader.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm_controller::raft::{
    ControllerNode, EncodedRecords, EntryPayload, LogReader, LogStore, TypeConfig, Vote,
};
use klamm_log::fs::{CrashPlan, MemoryFs};
use openraft::error::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use openraft::{Config, OptionalSend, Raft, RaftLogReader, SnapshotPolicy};

use crate::fixture::{memory, open};
use crate::state_machine::LastApplied;

type Node = Raft<TypeConfig, LastApplied>;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// The nodes that can be reached: calls go straight to them.
#[derive(Clone, Default)]
struct Network(Arc<Mutex<BTreeMap<u64, Node>>>);

struct Line {
    network: Network,
    target: u64,
}

impl Line {
    fn target(&self) -> Result<Node, Unreachable<TypeConfig>> {
        let nodes = self.network.0.lock().unwrap();
        nodes.get(&self.target).cloned().ok_or_else(|| Unreachable::new(&std::fmt::Error))
    }
}

fn unreachable<E: std::error::Error + 'static>(error: &E) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(error))
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Line;

    async fn new_client(&mut self, target: u64, _: &ControllerNode) -> Line {
        Line { network: self.clone(), target }
    }
}

impl RaftNetworkV2<TypeConfig> for Line {
    type SnapshotData = ();

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.target()?.append_entries(request).await.map_err(|error| unreachable(&error))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.target()?.vote(request).await.map_err(|error| unreachable(&error))
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: SnapshotOf<TypeConfig, ()>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        panic!("no snapshot is ever made here");
    }
}

async fn start(id: u64, fs: &MemoryFs, network: &Network) -> (Node, LogReader) {
    let config = Config {
        heartbeat_interval: 50,
        election_timeout_min: 200,
        election_timeout_max: 400,
        snapshot_policy: SnapshotPolicy::Never,
        ..Config::default()
    };
    let store: LogStore = open(fs);
    let reader = store.reader();
    let config = Arc::new(config.validate().unwrap());
    let node = Node::new(id, config, network.clone(), store, LastApplied::default()).await.unwrap();
    network.0.lock().unwrap().insert(id, node.clone());
    (node, reader)
}

/// Writes by way of whoever leads; returns the index and the leader. A write that failed may yet be there.
async fn write(nodes: &BTreeMap<u64, (Node, LogReader)>, text: &str) -> (u64, u64) {
    let attempts = async {
        for id in nodes.keys().cycle() {
            let records = EncodedRecords(text.to_owned().into());
            if let Ok(written) = nodes[id].0.client_write(records).await {
                assert_eq!(written.data.index, written.log_id.index);
                return (written.log_id.index, *id);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        unreachable!("the nodes are tried for ever")
    };
    tokio::time::timeout(PATIENCE, attempts).await.unwrap()
}

#[test]
fn acknowledged_writes_outlive_a_power_cut_of_the_leader() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let network = Network::default();
        let mut disks: BTreeMap<u64, MemoryFs> = (1..=3).map(|id| (id, memory())).collect();
        let mut nodes = BTreeMap::new();
        for (id, fs) in &disks {
            nodes.insert(*id, start(*id, fs, &network).await);
        }
        let voters: BTreeMap<u64, ControllerNode> =
            disks.keys().map(|id| (*id, ControllerNode::default())).collect();
        nodes[&1].0.initialize(voters).await.unwrap();
        let mut acknowledged = BTreeMap::new();
        for round in 0..4 {
            let mut leader = 0;
            for number in 0..50 {
                let text = format!("round {round}, write {number}");
                let (index, written_by) = write(&nodes, &text).await;
                acknowledged.insert(index, text);
                leader = written_by;
            }
            // The leader's power fails: only what it synced is on its disk, and it comes back with that.
            let cut = disks[&leader].crash_point().power_cut(&CrashPlan::nothing_pending());
            network.0.lock().unwrap().remove(&leader);
            let (node, reader) = nodes.remove(&leader).unwrap();
            node.shutdown().await.unwrap();
            drop((node, reader));
            let text = format!("round {round}, without node {leader}");
            let (index, _) = write(&nodes, &text).await;
            acknowledged.insert(index, text);
            nodes.insert(leader, start(leader, &cut, &network).await);
            disks.insert(leader, cut);
        }
        let last = *acknowledged.last_key_value().unwrap().0;
        for (node, reader) in nodes.values_mut() {
            node.wait(Some(PATIENCE)).applied_index_at_least(Some(last), "catches up").await.unwrap();
            let held: BTreeMap<u64, EntryPayload> = (reader.try_get_log_entries(..).await.unwrap())
                .into_iter()
                .map(|entry| (entry.log_id.index, entry.payload))
                .collect();
            for (index, text) in &acknowledged {
                let expected = EntryPayload::Normal(EncodedRecords(text.clone().into()));
                assert_eq!(held.get(index), Some(&expected), "entry {index}");
            }
        }
        for (node, _) in nodes.values() {
            node.shutdown().await.unwrap();
        }
    });
}
