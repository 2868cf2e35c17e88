use bytes::Bytes;

use super::*;

fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(term), index }
}

fn header() -> pb::RaftHeader {
    pb::RaftHeader { cluster_id: "c".to_owned(), from_node: 1, to_node: 2, ..pb::RaftHeader::default() }
}

fn membership() -> Membership {
    let node =
        |id: u64| (id, ControllerNode { host: format!("c{id}"), port: 9093, directory_id: [id as u8; 16] });
    Membership::new(vec![BTreeSet::from([1, 2])], BTreeMap::from([node(1), node(2), node(3)])).unwrap()
}

#[test]
fn appends_come_back() {
    let request = AppendEntriesRequest {
        vote: new_vote(4, 1, true),
        prev_log_id: Some(log_id(3, 7)),
        entries: vec![
            Entry { log_id: log_id(4, 8), payload: EntryPayload::Blank },
            Entry {
                log_id: log_id(4, 9),
                payload: EntryPayload::Normal(EncodedRecords(Bytes::from_static(b"r"))),
            },
            Entry { log_id: log_id(4, 10), payload: EntryPayload::Membership(membership()) },
        ],
        leader_commit: None,
    };
    let back = append_request_from_pb(append_request_to_pb(request.clone(), header())).unwrap();
    assert_eq!(back.vote, request.vote);
    assert_eq!(back.prev_log_id, request.prev_log_id);
    assert_eq!(back.entries, request.entries);
    assert_eq!(back.leader_commit, None);
    let last = Some(log_id(4, 10));
    for response in [
        AppendEntriesResponse::Success,
        AppendEntriesResponse::PartialSuccess(Some(log_id(4, 9))),
        AppendEntriesResponse::Conflict,
        AppendEntriesResponse::HigherVote(new_vote(5, 2, false)),
    ] {
        let message = append_response_to_pb(response.clone(), last);
        assert_eq!(append_response_from_pb(message, last).unwrap(), response);
    }
}

#[test]
fn votes_come_back() {
    let mut request = VoteRequest::<TypeConfig>::new(new_vote(4, 1, false), Some(log_id(3, 7)));
    let message = vote_request_to_pb(&request, header(), true, true);
    assert!(message.pre_vote && message.leader_is_dead && !message.leadership_transfer);
    assert_eq!(vote_request_from_pb(message).unwrap(), request);
    request.leadership_transfer = true;
    let message = vote_request_to_pb(&request, header(), false, false);
    assert_eq!(vote_request_from_pb(message).unwrap(), request);
    let response = VoteResponse::new(new_vote(4, 1, false), None, true);
    assert_eq!(vote_response_from_pb(vote_response_to_pb(&response)).unwrap(), response);
}

#[test]
fn what_cannot_be_is_refused() {
    let vote = pb::Vote { term: 1, node_id: 1, committed: true };
    assert_eq!(vote_from_pb(None), Err(WireError::Missing { field: "vote" }));
    let term = i32::MAX as u64;
    let beyond = Some(pb::Vote { term, ..vote });
    assert_eq!(vote_from_pb(beyond), Err(WireError::OutOfRange { field: "term", value: term }));
    let far = pb::LogId { term: 1, node_id: 0, index: u64::MAX };
    assert_eq!(log_id_from_pb(far), Err(WireError::OutOfRange { field: "index", value: u64::MAX }));
    let entry = pb::Entry { log_id: Some(log_id_to_pb(log_id(1, 1))), payload: None };
    assert_eq!(entry_from_pb(entry), Err(WireError::Missing { field: "payload" }));
    let blank = |term, index| Entry { log_id: log_id(term, index), payload: EntryPayload::Blank };
    let append = |prev_log_id, entries| {
        let vote = new_vote(3, 1, true);
        let request = AppendEntriesRequest { vote, prev_log_id, entries, leader_commit: None };
        append_request_from_pb(append_request_to_pb(request, pb::RaftHeader::default())).map(|_| ())
    };
    assert_eq!(append(Some(log_id(1, 4)), vec![blank(1, 5), blank(3, 6)]), Ok(()));
    assert_eq!(append(None, vec![blank(1, 0)]), Ok(()));
    for (previous, entries, index, term) in [
        (Some(log_id(1, 4)), vec![blank(1, 9)], 9, 1),
        (Some(log_id(1, 4)), vec![blank(1, 5), blank(1, 5)], 5, 1),
        (Some(log_id(2, 4)), vec![blank(1, 5)], 5, 1),
        (Some(log_id(1, 4)), vec![blank(4, 5)], 5, 4),
        (None, vec![blank(1, 1)], 1, 1),
    ] {
        assert_eq!(append(previous, entries), Err(WireError::Order { index, term }));
    }
    let mut message = membership_to_pb(&membership());
    message.nodes[0].port = 65_536;
    assert_eq!(membership_from_pb(message.clone()), Err(WireError::Port { port: 65_536 }));
    message.nodes[0].port = 1;
    message.nodes[0].directory_id = Bytes::from_static(b"short");
    assert_eq!(membership_from_pb(message.clone()), Err(WireError::DirectoryId { len: 5 }));
    message.nodes.clear();
    assert!(matches!(membership_from_pb(message), Err(WireError::Membership { .. })));
}
