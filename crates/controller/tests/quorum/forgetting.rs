//! Voters that have lost what they had acknowledged.

use std::path::Path;

use klamm_log::fs::{CrashPlan, LogFs as _, MemoryFs, read_file, write_file};
use klamm_metadata::MetadataImage;
use klamm_pb::raft::v1 as raft;
use klamm_rpc::stubs::raft::v1::raft_client::RaftClient;
use klamm_rpc::{Deadline, Lane};
use klamm_types::Offset;
use tokio::time::Instant;

use crate::fixture::*;

const STATE: &str = "/data/__cluster_metadata-0/quorum-state";
const LOG: &str = "/data/__cluster_metadata-0/00000000000000000000.log";

impl Cluster {
    /// What node `id` says that it remembers.
    fn recall(&self, id: i32) -> raft::RecallResponse {
        let request = raft::RecallRequest { header: Some(header(99, id)) };
        let deadline = Deadline::after(PATIENCE);
        let mut client = self.raft_client(id);
        self.calls.block_on(deadline.run(client.recall(deadline.request(request)))).unwrap()
    }

    /// Whether `voter` would help `candidate` to lead.
    fn would_vote(&self, voter: i32, candidate: i32) -> bool {
        let candidate_has = self.recall(candidate);
        let term = candidate_has.vote.map_or(0, |vote| vote.term) + 10;
        let request = raft::VoteRequest {
            header: Some(header(candidate, voter)),
            vote: Some(raft::Vote { term, node_id: candidate as u64, committed: false }),
            last_log_id: candidate_has.last_log_id,
            pre_vote: true,
            leader_is_dead: false,
            leadership_transfer: false,
        };
        let deadline = Deadline::after(PATIENCE);
        let mut client = self.raft_client(voter);
        let answer = self.calls.block_on(deadline.run(client.vote(deadline.request(request))));
        answer.is_ok_and(|answer| answer.granted)
    }

    fn raft_client(&self, id: i32) -> RaftClient<tonic::transport::Channel> {
        let _guard = self.calls.enter();
        RaftClient::new(self.channels.channel(&self.addresses[&id], Lane::Raft).unwrap())
    }

    /// Two nodes have accepted a change that the third one, which is down, does not have. Tells which, the active
    /// controller first, and where the change is.
    fn one_is_behind() -> (Self, [i32; 3], Offset) {
        let mut cluster = Self::start(3);
        let seen = accepted(cluster.submit(set("m", "k", "everybody has seen this")));
        let active = cluster.active();
        let [with, without]: [i32; 2] =
            (1..=3).filter(|id| *id != active).collect::<Vec<_>>().try_into().unwrap();
        cluster.wait_for(without, |status| status.committed_end_offset > seen);
        cluster.kill(without);
        let last = accepted(cluster.submit(set("m", "k", "two have seen this")));
        (cluster, [active, with, without], last)
    }

    /// All nodes have the change at `last` again, and go on.
    fn has_all(&self, last: Offset) {
        let next = accepted(self.submit(set("m", "next", "v")));
        assert!(next > last);
        for id in 1..=3 {
            let (image, _) = self.image(id, MetadataImage::empty(), next);
            assert_eq!(value(&image, "m", "k"), Some("two have seen this"), "node {id}");
        }
    }
}

fn header(from: i32, to: i32) -> raft::RaftHeader {
    raft::RaftHeader {
        cluster_id: CLUSTER.to_owned(),
        from_node: from as u64,
        to_node: to as u64,
        ..raft::RaftHeader::default()
    }
}

#[test]
fn a_voter_whose_disk_was_emptied_helps_nobody_who_lacks_what_it_had_acknowledged() {
    let (mut cluster, [active, with, without], last) = Cluster::one_is_behind();
    cluster.kill(active);
    cluster.kill(with);
    cluster.disks.insert(with, disk());
    cluster.start_node(with);
    cluster.start_node(without);
    assert!(!cluster.would_vote(with, without));
    assert!(!cluster.nodes[&with].status.borrow().is_active);
    cluster.start_node(active);
    cluster.has_all(last);
}

#[test]
fn a_voter_whose_log_was_cut_helps_nobody_who_lacks_what_it_had_acknowledged() {
    let (mut cluster, [active, with, without], last) = Cluster::one_is_behind();
    // As a power cut leaves it, so that the end of the log is read again; and there a bit has changed.
    let cut = cluster.disks[&with].crash_point().power_cut(&CrashPlan::nothing_pending());
    cluster.kill(active);
    cluster.kill(with);
    damage_the_end(&cut);
    cluster.disks.insert(with, cut);
    cluster.start_node(with);
    cluster.start_node(without);
    assert!(!cluster.would_vote(with, without));
    assert!(!cluster.nodes[&with].status.borrow().is_active);
    cluster.start_node(active);
    cluster.has_all(last);
}

fn damage_the_end(fs: &MemoryFs) {
    let end = fs.stat(Path::new(LOG)).unwrap().unwrap().len;
    fs.flip(Path::new(LOG), end - 1, 1).unwrap();
}

#[test]
fn a_quorum_is_not_founded_without_one_of_its_founders() {
    let mut cluster = Cluster::planned(3, |_| ());
    cluster.start_node(1);
    cluster.start_node(2);
    assert!(!cluster.would_vote(1, 2) && !cluster.would_vote(2, 1));
    let features = cluster.recall(1).features;
    assert_eq!(cluster.recall(1), raft::RecallResponse { features, ..raft::RecallResponse::default() });
    cluster.start_node(3);
    accepted(cluster.submit(set("m", "k", "v")));
    // Once founded it does without one.
    cluster.kill(3);
    accepted(cluster.submit(set("m", "k", "2")));
}

/// A bound that nobody can meet: who had that entry has been replaced by an empty node since.
#[test]
fn a_voter_waits_for_nothing_that_nobody_has_any_more() {
    let mut cluster = Cluster::start(3);
    let last = accepted(cluster.submit(set("m", "k", "two have seen this")));
    let active = cluster.active();
    let behind = (1..=3).find(|id| *id != active).unwrap();
    for id in 1..=3 {
        cluster.wait_for(id, |status| status.committed_end_offset > last);
    }
    let disk = cluster.disks[&behind].crash_point().power_cut(&CrashPlan::nothing_pending());
    cluster.kill(behind);
    lose_up_to(&disk, 1_000, 1_000_000);
    let with_loss = state_bytes(&disk).len();
    cluster.disks.insert(behind, disk);
    cluster.start_node(behind);
    assert!(!cluster.would_vote(behind, active));
    let started = Instant::now();
    while state_bytes(&cluster.disks[&behind]).len() >= with_loss {
        assert!(started.elapsed() < PATIENCE, "it waits for what nobody has");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    cluster.kill(active);
    let next = accepted(cluster.submit(set("m", "next", "v")));
    assert!(next > last);
}

/// Adds to the state file that entries up to this one were lost.
fn lose_up_to(fs: &MemoryFs, term: u64, index: u64) {
    let mut state = state_bytes(fs);
    let mut checked = vec![0, 6, 0, 1, 1];
    checked.extend(term.to_le_bytes());
    checked.extend(index.to_le_bytes());
    state.extend(b"KLRQ\x01");
    state.extend((checked.len() as u32 - 4).to_be_bytes());
    state.extend(crc32c::crc32c(&checked).to_be_bytes());
    state.extend(checked);
    write_file(fs, Path::new(STATE), &state).unwrap();
}

fn state_bytes(fs: &MemoryFs) -> Vec<u8> {
    read_file(fs, Path::new(STATE), 4_096).unwrap()
}

/// The way out when a voter is gone for good while another one has lost its disk: an empty one in its place.
#[test]
fn an_empty_node_in_the_place_of_a_lost_one_sets_an_emptied_voter_free() {
    let mut cluster = Cluster::start(3);
    let last = accepted(cluster.submit(set("m", "k", "two have seen this")));
    let active = cluster.active();
    for id in 1..=3 {
        cluster.wait_for(id, |status| status.committed_end_offset > last);
    }
    let emptied: Vec<i32> = (1..=3).filter(|id| *id != active).collect();
    for id in &emptied {
        cluster.kill(*id);
        cluster.disks.insert(*id, disk());
    }
    cluster.start_node(emptied[0]);
    assert!(!cluster.would_vote(emptied[0], active));
    cluster.start_node(emptied[1]);
    cluster.has_all(last);
}
