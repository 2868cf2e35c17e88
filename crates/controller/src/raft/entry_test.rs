use super::super::error::EnvelopeError;
use super::*;

fn entry(term: u64, index: u64, payload: EntryPayload) -> Entry {
    Entry { log_id: LogId { leader_id: CommittedLeaderId::new(term), index }, payload }
}

fn joint_membership() -> Membership {
    let node =
        |id: u64, port| (id, ControllerNode { host: format!("c{id}"), port, directory_id: [id as u8; 16] });
    let configs = vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])];
    Membership::new(configs, BTreeMap::from([node(1, 9093), node(2, 9094), node(3, 9095)])).unwrap()
}

fn encoded(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(entry, &mut bytes).unwrap();
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_kind_of_entry_comes_back() {
    let records = EncodedRecords(Bytes::from_static(b"records"));
    let empty = Membership::default();
    for payload in [
        EntryPayload::Blank,
        EntryPayload::Normal(records),
        EntryPayload::Normal(EncodedRecords(Bytes::new())),
        EntryPayload::Membership(joint_membership()),
        EntryPayload::Membership(empty),
    ] {
        let entry = entry(i32::MAX as u64, (i64::MAX - 1) as u64, payload);
        let bytes = encoded(&entry);
        assert_eq!(decode(&RecordBatch::parse(&bytes).unwrap()).unwrap(), entry);
    }
}

/// Published bytes: they are read for ever.
#[test]
fn stored_entries_keep_their_bytes() {
    let blank = entry(5, 9, EntryPayload::Blank);
    let records = entry(5, 10, EntryPayload::Normal(EncodedRecords(Bytes::from_static(b"abc"))));
    let voters = entry(5, 11, EntryPayload::Membership(joint_membership()));
    for (entry, golden) in [
        (
            blank,
            "00000000000000090000003c0000000502288bcfa9002000000000ffffffffffffffffffffffffffffffffffff\
             ffffffffffffffffffffffff00000001140000000800004b000100",
        ),
        (
            records,
            "000000000000000a0000003b0000000502fa129f06000000000000ffffffffffffffffffffffffffffffffffff\
             ffffffffffffffffffffffff0000000112000000010661626300",
        ),
        (
            voters,
            "000000000000000b000000fb0000000502867f1f63002000000000ffffffffffffffffffffffffffffffffffff\
             ffffffffffffffffffffffff0000000190030000000800004b01fa024b4c525101000000ac94a3928400040001\
             020000000000000002000000000000000100000000000000020000000000000002000000000000000200000000\
             000000030000000000000003000000000000000100000000000000020000000000000063318523010101010101\
             010101010101010101010200000000000000020000000000000063328623020202020202020202020202020202\
             0203000000000000000200000000000000633387230303030303030303030303030303030300",
        ),
    ] {
        assert_eq!(hex(&encoded(&entry)), golden, "{entry}");
    }
}

#[test]
fn terms_indexes_and_sizes_out_of_range_are_refused() {
    let refusal = |entry: &Entry| match encode(entry, &mut Vec::new()) {
        Err(LogStoreError::Entry { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    let term = 1 << 31;
    assert!(
        matches!(refusal(&entry(term, 0, EntryPayload::Blank)), EntryError::Term { term: t } if t == term)
    );
    for index in [i64::MAX as u64, u64::MAX] {
        let error = refusal(&entry(0, index, EntryPayload::Blank));
        assert!(matches!(error, EntryError::Index { index: i } if i == index), "{error}");
    }
    let large = EncodedRecords(vec![0; ENTRY_BYTES_MAX + 1].into());
    let error = refusal(&entry(0, 0, EntryPayload::Normal(large)));
    assert!(matches!(error, EntryError::TooLarge { len, .. } if len == ENTRY_BYTES_MAX + 1), "{error}");
}

#[test]
fn batches_that_are_no_entries_are_refused() {
    let batch = |control: bool, key: Option<&[u8]>, value: Option<&[u8]>, count: usize| {
        let builder = BatchBuilder::new(Compression::NONE).leader_epoch(LeaderEpoch(1));
        let mut builder = if control { builder.control() } else { builder };
        for _ in 0..count {
            builder.append(&NewRecord::new(Timestamp::NONE, key, value)).unwrap();
        }
        builder.build().unwrap()
    };
    let refusal = |bytes: &[u8]| decode(&RecordBatch::parse(bytes).unwrap()).unwrap_err();
    let two = refusal(&batch(false, None, Some(b"x"), 2));
    assert!(matches!(two, EntryError::Header { records: 2, .. }), "{two}");
    let tombstone = refusal(&batch(false, None, None, 1));
    assert!(matches!(tombstone, EntryError::NoValue), "{tombstone}");
    let leader_change = refusal(&batch(true, Some(&[0, 0, 0, 2]), Some(b"x"), 1));
    assert!(matches!(leader_change, EntryError::ControlType { control_type: 2 }), "{leader_change}");
    let short_key = refusal(&batch(true, Some(&[0]), None, 1));
    assert!(matches!(short_key, EntryError::Control(_)), "{short_key}");
    let voters = refusal(&batch(true, Some(&control_key(MEMBERSHIP_CONTROL_TYPE)), Some(b"no"), 1));
    assert!(matches!(voters, EntryError::Envelope(EnvelopeError::Truncated { .. })), "{voters}");
}

#[test]
fn voters_without_nodes_are_refused() {
    let stored = MembershipV1 { configs: vec![vec![1, 2]], nodes: Vec::new() };
    let error = Membership::try_from(stored).unwrap_err();
    assert!(matches!(error, EntryError::Membership { .. }), "{error}");
}

#[test]
fn a_flipped_bit_of_a_batch_is_refused() {
    let mut bytes = encoded(&entry(1, 0, EntryPayload::Normal(EncodedRecords(Bytes::from_static(b"abc")))));
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    let error = decode(&RecordBatch::parse(&bytes).unwrap()).unwrap_err();
    assert!(matches!(error, EntryError::Batch(_)), "{error}");
}
