//! Online changes of who votes.

use std::time::Duration;

use bytes::Bytes;
use klamm_metadata::MetadataImage;
use klamm_pb::controller::v1 as pb;
use klamm_rpc::stubs::controller::v1::quorum_client::QuorumClient;
use klamm_rpc::{Deadline, RpcError};

use crate::fixture::*;

const DIRECTORY: [u8; 16] = [4; 16];

impl Cluster {
    fn add_voter(&self, id: i32) -> Option<pb::Refusal> {
        self.add_voter_within(id, 20_000)
    }

    fn add_voter_within(&self, id: i32, timeout_ms: u32) -> Option<pb::Refusal> {
        let address = self.addresses[&id].clone();
        let request = pb::AddVoterRequest {
            caller: Some(caller(99)),
            timeout_ms,
            node_id: id,
            directory_id: Bytes::from_static(&DIRECTORY),
            host: address.host,
            port: u32::from(address.port),
        };
        let mut client = QuorumClient::new(self.channel(self.active()));
        self.calls.block_on(client.add_voter(request)).unwrap().into_inner().refusal
    }

    fn ask_for_voter_without_waiting(&self, id: i32) {
        let address = self.addresses[&id].clone();
        let request = pb::AddVoterRequest {
            caller: Some(caller(99)),
            timeout_ms: 2_000,
            node_id: id,
            directory_id: Bytes::from_static(&DIRECTORY),
            host: address.host,
            port: u32::from(address.port),
        };
        let mut client = QuorumClient::new(self.channel(self.active()));
        let deadline = Deadline::after(Duration::from_millis(500));
        let answer = self.calls.block_on(deadline.run(client.add_voter(deadline.request(request))));
        assert_eq!(answer.unwrap_err(), RpcError::TimedOut);
    }

    fn observing_controllers(&self) -> Vec<i32> {
        let observers = self.describe().observers;
        observers
            .iter()
            .filter(|observer| !observer.host.is_empty())
            .map(|observer| observer.node_id)
            .collect()
    }

    fn wait_until(&self, condition: impl Fn(&Self) -> bool) {
        let deadline = Deadline::after(PATIENCE);
        while !condition(self) {
            assert!(!deadline.is_over(), "it does not come");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn remove_voter(&self, id: i32, directory_id: [u8; 16]) -> Option<pb::Refusal> {
        let request = pb::RemoveVoterRequest {
            caller: Some(caller(99)),
            timeout_ms: 20_000,
            node_id: id,
            directory_id: Bytes::copy_from_slice(&directory_id),
        };
        let mut client = QuorumClient::new(self.channel(self.active()));
        self.calls.block_on(client.remove_voter(request)).unwrap().into_inner().refusal
    }

    fn voters(&self) -> Vec<i32> {
        self.describe().voters.iter().map(|voter| voter.node_id).collect()
    }
}

#[test]
fn a_node_joins_and_another_leaves_while_changes_go_on() {
    let mut cluster = Cluster::start(3);
    for number in 0..50 {
        accepted(cluster.submit(append("m", &number.to_string())));
    }
    cluster.prepare(4);
    cluster.start_node(4);
    assert_eq!(cluster.add_voter(4), None);
    assert_eq!(cluster.voters(), [1, 2, 3, 4]);
    let again = cluster.add_voter(4).unwrap();
    assert_eq!(again.code, i32::from(pb::RefusalCode::DuplicateVoter));
    accepted(cluster.submit(append("m", "with four")));

    let wrong_disk = cluster.remove_voter(4, [9; 16]).unwrap();
    assert_eq!(wrong_disk.code, i32::from(pb::RefusalCode::VoterNotFound));
    let active = cluster.active();
    let leaves = (1..=3).find(|id| *id != active).unwrap();
    assert_eq!(cluster.remove_voter(leaves, [0; 16]), None);
    cluster.kill(leaves);
    let expected: Vec<i32> = (1..=4).filter(|id| *id != leaves).collect();
    assert_eq!(cluster.voters(), expected);

    // The newcomer counts: with one of the others gone it makes the majority.
    let other = (1..=3).find(|id| *id != active && *id != leaves).unwrap();
    cluster.kill(other);
    let offset = accepted(cluster.submit(append("m", "last")));
    let (image, _) = cluster.image(4, MetadataImage::empty(), offset);
    let list = value(&image, "m", "list").unwrap();
    assert!(list.starts_with("0,1,2,") && list.ends_with("49,with four,last"), "{list}");
}

#[test]
fn a_node_takes_the_place_of_one_that_is_gone_for_good() {
    let mut cluster = Cluster::start(3);
    accepted(cluster.submit(set("m", "k", "1")));
    let active = cluster.active();
    let gone = (1..=3).find(|id| *id != active).unwrap();
    cluster.kill(gone);
    cluster.prepare(4);
    // Nobody listens there: a vote for it would be one that nobody casts.
    assert!(cluster.add_voter_within(4, 300).is_some());
    assert_eq!(cluster.voters(), [1, 2, 3]);
    // Nor does it stay as one that only follows, even if the caller does not wait for the answer.
    assert_eq!(cluster.observing_controllers(), [0; 0]);
    cluster.ask_for_voter_without_waiting(4);
    cluster.wait_until(|cluster| cluster.observing_controllers() == [4]);
    cluster.wait_until(|cluster| cluster.observing_controllers().is_empty());
    cluster.start_node(4);
    assert_eq!(cluster.add_voter(4), None);
    assert_eq!(cluster.remove_voter(gone, [0; 16]), None);
    let offset = accepted(cluster.submit(set("m", "k", "2")));
    let (image, _) = cluster.image(4, MetadataImage::empty(), offset);
    assert_eq!(value(&image, "m", "k"), Some("2"));
}

#[test]
fn a_leader_that_is_removed_makes_way() {
    let cluster = Cluster::start(3);
    accepted(cluster.submit(set("m", "k", "1")));
    let removed = cluster.active();
    assert_eq!(cluster.remove_voter(removed, [0; 16]), None);
    cluster.wait_for(removed, |status| !status.is_active);
    let offset = accepted(cluster.submit(set("m", "k", "2")));
    assert_ne!(cluster.active(), removed);
    assert!(!cluster.voters().contains(&removed));
    let (image, _) = cluster.image(cluster.active(), MetadataImage::empty(), offset);
    assert_eq!(value(&image, "m", "k"), Some("2"));
}

#[test]
fn the_last_voter_stays() {
    let cluster = Cluster::start(1);
    cluster.active();
    let refusal = cluster.remove_voter(1, [0; 16]).unwrap();
    assert_eq!(refusal.code, i32::from(pb::RefusalCode::InvalidRequest));
    accepted(cluster.submit(set("m", "k", "v")));
}
