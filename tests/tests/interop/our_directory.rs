//! The log manager as these tests use it: one directory, partition 0 of every topic.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use klamm_log::fs::RealFs;
use klamm_log::{DirContent, Log, LogConfig, LogManager, ManagerOptions, ProducerLimits};
use klamm_types::{BrokerEpoch, BrokerId, PartitionId, Timestamp, TopicId, TopicName, TopicPartition};

/// What the broker's clock says in these tests: later than everything that is written.
pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// A log directory in service.
pub(crate) struct OurDirectory {
    manager: LogManager,
    /// What was in it at the start.
    pub(crate) content: DirContent,
}

impl OurDirectory {
    /// Opens a directory, new or old, for the node and the cluster that it belongs to.
    pub(crate) fn open(path: &Path) -> Self {
        let mut options = ManagerOptions::new(vec![path.to_owned()], BrokerId(1), &cluster_id(path));
        // Its records' timestamps are long past.
        options.producers = ProducerLimits { expiration_ms: i64::MAX, ..ProducerLimits::default() };
        let config = Arc::new(kept());
        let opened = LogManager::open(Arc::new(RealFs), options, &|_| Arc::clone(&config), NOW);
        let (manager, mut report) = opened.expect("a directory in service");
        let start = report.dirs.pop().expect("one directory");
        Self { manager, content: start.result.expect("a directory in service") }
    }

    /// Makes partition 0 of a topic.
    pub(crate) fn create(&self, topic: &str, config: LogConfig) -> Arc<Log> {
        let mut id = [0; 16];
        id[..topic.len()].copy_from_slice(topic.as_bytes());
        let topic = TopicName::new(topic).expect("a topic's name");
        let partition = TopicPartition::new(topic, PartitionId(0));
        self.manager.create(&partition, TopicId(id), Arc::new(config), NOW).expect("a new log")
    }

    /// The log in the directory `name`.
    pub(crate) fn existing(&self, name: &str) -> Arc<Log> {
        let partition = TopicPartition::parse_dir_name(name).expect("a partition's directory");
        self.manager.get(&partition).unwrap_or_else(|| panic!("{name} was not opened"))
    }

    /// Stops the directory's service in an orderly way.
    pub(crate) fn close(self) {
        self.manager.shut_down(BrokerEpoch(94)).expect("a clean stop");
    }
}

/// Settings under which nothing grows too old.
pub(crate) fn kept() -> LogConfig {
    LogConfig { retention_ms: None, ..LogConfig::default() }
}

fn cluster_id(path: &Path) -> String {
    let properties = fs::read_to_string(path.join("meta.properties")).unwrap_or_default();
    let id = properties.lines().find_map(|line| line.strip_prefix("cluster.id="));
    id.unwrap_or("interop").to_owned()
}
