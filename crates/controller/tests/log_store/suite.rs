//! Openraft's storage suite.

use std::path::Path;
use std::sync::Arc;

use klamm_controller::raft::{LogStore, LogStoreError, TypeConfig};
use klamm_log::fs::RealFs;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use crate::fixture::{block_on, memory, try_open, try_open_at};
use crate::state_machine::LastApplied;

struct InMemory;
struct OnDisk;

fn opened(store: Result<LogStore, LogStoreError>) -> LogStore {
    store.unwrap_or_else(|error| panic!("the store does not open: {error}"))
}

impl StoreBuilder<TypeConfig, LogStore, LastApplied> for InMemory {
    async fn build(&self) -> Result<((), LogStore, LastApplied), StorageError<TypeConfig>> {
        Ok(((), opened(try_open(&memory())), LastApplied::default()))
    }
}

impl StoreBuilder<TypeConfig, LogStore, LastApplied, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, LogStore, LastApplied), StorageError<TypeConfig>> {
        let dir = TempDir::new().unwrap();
        let store = opened(try_open_at(Arc::new(RealFs), Path::new(dir.path())));
        Ok((dir, store, LastApplied::default()))
    }
}

#[test]
fn the_suite_passes_in_memory() {
    block_on(Suite::<TypeConfig, LogStore, LastApplied, InMemory, ()>::test_all(InMemory)).unwrap();
}

#[test]
fn the_suite_passes_on_the_disk() {
    block_on(Suite::<TypeConfig, LogStore, LastApplied, OnDisk, TempDir>::test_all(OnDisk)).unwrap();
}
