use std::path::Path;

use klamm_log::FileCache;
use klamm_log::fs::{MemoryFs, write_file};

use super::*;

fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(term), index }
}

fn vote(term: u64, node_id: u64, committed: bool) -> Vote {
    Vote::from_leader_id(LeaderId::new(term, node_id), committed)
}

fn full_state() -> QuorumState {
    QuorumState {
        vote: Some(vote(3, 2, true)),
        last_purged: Some(log_id(1, 4)),
        committed: Some(log_id(3, 7)),
        lost: Lost::Nothing,
        opening: None,
    }
}

fn file(fs: &MemoryFs) -> StateFile {
    let dir = Path::new("/data/log");
    fs.create_dir_all(dir).unwrap();
    let log_dir = LogDir::new(Arc::new(fs.clone()), Path::new("/data"), FileCache::new(10));
    StateFile::new(log_dir, dir.to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Published bytes: they are read for ever.
#[test]
fn stored_states_keep_their_bytes() {
    for (state, golden) in [
        (
            QuorumState::default(),
            "4b4c525101000000018b9544fa00010001004b4c52510100000001e9b7cdc300020001004b4c52510100000001\
             34f2677b0003000100",
        ),
        (
            full_state(),
            "4b4c5251010000001276ff7887000100010103000000000000000200000000000000014b4c5251010000001123\
             41de0c0002000101010000000000000004000000000000004b4c525101000000112eb2c3d50003000101030000\
             00000000000700000000000000",
        ),
    ] {
        let bytes = state.encode().unwrap();
        assert_eq!(hex(&bytes), golden);
        assert_eq!(QuorumState::decode(&bytes).unwrap(), state);
    }
}

#[test]
fn what_was_written_is_read_and_no_file_is_no_state() {
    let fs = MemoryFs::new();
    let file = file(&fs);
    assert_eq!(file.read().unwrap(), None);
    let lost = |lost| QuorumState { lost, ..full_state() };
    for state in [
        full_state(),
        QuorumState { vote: Some(vote(9, 1, false)), ..QuorumState::default() },
        lost(Lost::Unknown),
        lost(Lost::UpTo(log_id(5, 9))),
    ] {
        file.write(&state).unwrap();
        assert_eq!(file.read().unwrap(), Some(state));
    }
}

#[test]
fn a_damaged_file_is_refused_with_its_path() {
    let fs = MemoryFs::new();
    let file = file(&fs);
    let good = full_state().encode().unwrap();
    let mut damaged: Vec<Vec<u8>> = (0..good.len()).map(|len| good[..len].to_vec()).collect();
    damaged.extend((0..good.len() * 8).map(|bit| {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    }));
    damaged.push([good.as_slice(), b"x"].concat());
    for bytes in damaged {
        write_file(&fs, file.path(), &bytes).unwrap();
        let error = file.read().unwrap_err();
        assert!(matches!(&error, LogStoreError::State { .. }), "{error}");
        assert!(error.to_string().contains("/data/log/quorum-state"), "{error}");
    }
}

#[test]
fn a_file_that_is_too_long_is_refused() {
    let fs = MemoryFs::new();
    let file = file(&fs);
    write_file(&fs, file.path(), &vec![0; FILE_BYTES_MAX as usize + 1]).unwrap();
    let error = file.read().unwrap_err();
    assert!(matches!(&error, LogStoreError::Storage(error) if error.path == *file.path()), "{error}");
}
