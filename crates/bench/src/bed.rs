//! The contenders of a run, side by side on this machine, both up all the time.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use klamm_client::{
    Admin, ClientOptions, Cluster as Client, Endpoint, Isolation, NewTopic, OffsetSpec, OwnedRecord,
    Producer, ProducerOptions,
};
use klamm_tests::cluster::{Cluster, ClusterSpec};
use klamm_tests::kafka::{Kafka, KafkaSpec};
use klamm_tests::tools::Jars;
use klamm_types::{PartitionId, Timestamp, TopicName, TopicPartition};
use tokio::time::{Instant, sleep};

pub(crate) mod nodes;

/// Kafka takes this of the broker, whatever the topic says.
const DELETE_DELAY: (&str, &str) = ("log.segment.delete.delay.ms", "100");
/// How long a deleted topic's files may stay.
const DELETION_TIME_MAX: Duration = Duration::from_secs(120);

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    Klamm,
    Kafka,
    /// The same work without a broker.
    Bare,
}

/// Both clusters, of as many nodes.
pub(crate) struct Bed {
    pub(crate) klamm: Cluster,
    pub(crate) kafka: Kafka,
    pub(crate) nodes: u16,
}

/// What is needed to put load on one of them.
pub(crate) struct Side {
    pub(crate) bootstrap: String,
    pub(crate) pids: Vec<u32>,
    pub(crate) admin: Admin,
}

impl Bed {
    /// Starts both with their defaults, but that files go soon after they are deleted.
    pub(crate) async fn start(jars: &Jars, nodes: u16) -> anyhow::Result<Self> {
        // As the peer's recipe says: internal topics on as many brokers as there are.
        let replicas = nodes.min(3).to_string();
        let spec = KafkaSpec::as_shipped(nodes)
            .with("offsets.topic.replication.factor", &replicas)
            .with("default.replication.factor", &replicas)
            .with(DELETE_DELAY.0, DELETE_DELAY.1);
        let kafka = Kafka::start(jars, &spec).await.context("start Kafka")?;
        let spec = ClusterSpec { nodes, ..ClusterSpec::default() }.with(DELETE_DELAY.0, DELETE_DELAY.1);
        let klamm = Cluster::start(&spec).await;
        Ok(Self { klamm: klamm.context("start Klamm")?, kafka, nodes })
    }

    pub(crate) fn side(&mut self, system: System) -> Side {
        let (bootstrap, pids) = match system {
            System::Kafka => (self.kafka.bootstrap(), self.kafka.pids()),
            System::Klamm | System::Bare => {
                let ids: Vec<u16> = self.klamm.ids().collect();
                let pids = ids.iter().filter_map(|id| self.klamm.node(*id).pid()).collect();
                (self.klamm.bootstrap(), pids)
            }
        };
        let list: Vec<String> = bootstrap.iter().map(Endpoint::to_string).collect();
        Side { bootstrap: list.join(","), pids, admin: Admin::new(client(bootstrap)) }
    }

    /// Deletes a topic, and waits until its files are gone: the work of it is nobody else's.
    pub(crate) async fn delete(&mut self, system: System, topic: &str) -> anyhow::Result<()> {
        let side = self.side(system);
        for (name, result) in side.admin.delete_topics(&[topic.to_owned()]).await? {
            result.with_context(|| format!("delete {name}"))?;
        }
        let start = Instant::now();
        let prefix = format!("{topic}-");
        for directory in self.data_directories(system) {
            while has_entry(&directory, &prefix)? {
                ensure!(start.elapsed() < DELETION_TIME_MAX, "the files of {topic} do not go");
                sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }

    fn data_directories(&self, system: System) -> Vec<PathBuf> {
        match system {
            System::Kafka => self.kafka.ids().map(|id| self.kafka.data(id)).collect(),
            System::Klamm => self.klamm.ids().map(|id| self.klamm.home(id).join("data")).collect(),
            System::Bare => Vec::new(),
        }
    }

    /// A directory on the file system on which the contenders keep their data.
    pub(crate) fn scratch(&self) -> &Path {
        self.kafka.path()
    }
}

fn client(bootstrap: Vec<Endpoint>) -> Client {
    let options = ClientOptions {
        client_id: "klamm-bench".to_owned(),
        request_timeout: Duration::from_secs(60),
        retry_backoff: Duration::from_millis(2),
        retry_backoff_max: Duration::from_millis(10),
        operation_timeout: Duration::from_secs(120),
        ..ClientOptions::default()
    };
    Client::new(bootstrap, options)
}

impl Side {
    /// Creates a topic, and waits until its leaders lead.
    pub(crate) async fn create(
        &self,
        name: &str,
        partitions: i32,
        replicas: i16,
        configs: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let config = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let configs = configs.iter().map(config).collect();
        let topic = NewTopic {
            partitions: Some(partitions),
            replication_factor: Some(replicas),
            configs,
            ..NewTopic::named(name)
        };
        for (name, result) in self.admin.create_topics(&[topic], false).await? {
            result.with_context(|| format!("create {name}"))?;
        }
        let view = self.admin.wait_for_leaders(name).await?;
        // A broker may be told of as a leader before it has heard of it; then it refuses this, and is asked again.
        let topic = TopicName::new(name)?;
        let partitions =
            view.partitions.iter().map(|view| TopicPartition::new(topic.clone(), view.partition));
        let ends: Vec<_> = partitions.map(|at| (at, OffsetSpec::Latest)).collect();
        let ends = self.admin.cluster().offsets(&ends, Isolation::ReadUncommitted).await;
        ends.into_values().try_for_each(|end| end.map(drop))?;
        Ok(())
    }

    /// Waits until all replicas of partition 0 have taken a record.
    pub(crate) async fn acknowledged(&self, topic: &str, limit: Duration) -> anyhow::Result<()> {
        let at = TopicPartition::new(TopicName::new(topic)?, PartitionId(0));
        let options = ProducerOptions { delivery_timeout: limit, ..ProducerOptions::default() };
        let producer = Producer::new(client(Endpoint::parse_list(&self.bootstrap)?), options);
        let record = OwnedRecord::of_value(Timestamp(0), Bytes::from_static(b"first"));
        producer.send(&at, record).await?.wait().await?;
        Ok(())
    }
}

fn has_entry(directory: &Path, prefix: &str) -> anyhow::Result<bool> {
    for entry in fs::read_dir(directory)? {
        if entry?.file_name().to_string_lossy().starts_with(prefix) {
            return Ok(true);
        }
    }
    Ok(false)
}
