use std::path::Path;

use klamm_log::fs::{MemoryFs, RealFs};

use super::*;
use crate::sources::Sources;

fn config(voters: &str, more: &[&str]) -> NodeConfig {
    let settings = [
        "node.id=1",
        "process.roles=broker,controller",
        "controller.listener.names=CONTROLLER",
        "listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093",
        voters,
        "log.dirs=/a,/b",
    ];
    let overrides = settings.iter().chain(more).map(|text| (*text).to_owned()).collect();
    NodeConfig::new(&Sources { overrides, ..Sources::default() }.load().unwrap()).unwrap()
}

const ALONE: &str = "controller.quorum.voters=1@127.0.0.1:9093";
const TWO: &str = "controller.quorum.voters=1@127.0.0.1:9093,2@127.0.0.1:9094";

#[test]
fn a_node_alone_makes_up_its_cluster_and_remembers_it() {
    let fs = MemoryFs::new();
    let first = format_directories(&fs, &config(ALONE, &[])).unwrap();
    assert!(crate::node_config::is_cluster_id(&first.cluster_id), "{}", first.cluster_id);
    assert_eq!(first.formatted, [Path::new("/a"), Path::new("/b")]);
    let again = format_directories(&fs, &config(ALONE, &[])).unwrap();
    assert_eq!((again.cluster_id, again.formatted.len()), (first.cluster_id.clone(), 0));
    assert_eq!(again.metadata_directory_id, first.metadata_directory_id);
    let more = format_directories(&fs, &config(ALONE, &["log.dirs=/a,/b,/c"])).unwrap();
    assert_eq!((more.cluster_id, more.formatted), (first.cluster_id, vec![PathBuf::from("/c")]));
}

#[test]
fn nodes_that_must_agree_are_told_how() {
    let fs = MemoryFs::new();
    let refused = format_directories(&fs, &config(TWO, &[])).unwrap_err();
    assert!(matches!(refused, StorageError::NoClusterId { .. }), "{refused}");
    let id = "4L6g3nShT-eMCtK--X86sw";
    let given = format!("klamm.cluster.id={id}");
    assert_eq!(format_directories(&fs, &config(TWO, &[&given])).unwrap().cluster_id, id);
    // From then on the directories say it.
    assert_eq!(format_directories(&fs, &config(TWO, &[])).unwrap().cluster_id, id);
    let other =
        format_directories(&fs, &config(TWO, &["klamm.cluster.id=AAAAAAAAAAAAAAAAAAAAAA"])).unwrap_err();
    assert!(matches!(other, StorageError::OfAnotherCluster { .. }), "{other}");
    let node = format_directories(&fs, &config(TWO, &["node.id=2"])).unwrap_err();
    assert!(matches!(node, StorageError::OfAnotherNode { .. }), "{node}");
}

#[test]
fn kafkas_metadata_is_not_taken_for_ours() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(KAFKA_METADATA_DIR)).unwrap();
    let dirs = format!("log.dirs={}", dir.path().display());
    let refused = format_directories(&RealFs, &config(ALONE, &[&dirs])).unwrap_err();
    assert!(matches!(refused, StorageError::OfKafka { .. }), "{refused}");
}

#[test]
fn the_controllers_log_is_apart_from_the_partitions() {
    assert_eq!(controller_dir(&config(ALONE, &[])), Path::new("/a/metadata"));
    assert_eq!(controller_dir(&config(ALONE, &["metadata.log.dir=/b"])), Path::new("/b/metadata"));
    assert_eq!(controller_dir(&config(ALONE, &["metadata.log.dir=/m"])), Path::new("/m"));
}

#[test]
fn ids_can_stand_on_a_command_line() {
    for _ in 0..200 {
        let id = random_cluster_id();
        assert!(crate::node_config::is_cluster_id(&id) && !id.starts_with('-'), "{id}");
    }
}
