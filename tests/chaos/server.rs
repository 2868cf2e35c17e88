//! The server under test: ours, as processes or in containers, or Apache Kafka for comparison.

use std::path::{Path, PathBuf};
use std::time::Duration;

use klamm_client::{Admin, ClientOptions, Cluster as Client, Endpoint};
use klamm_tests::cluster::{Cluster, wait_for};
use klamm_tests::containers::Deployment;
use klamm_tests::kafka::Kafka;

/// Three nodes that run.
#[derive(Debug)]
pub(crate) enum Server {
    Klamm(Cluster),
    /// Its nodes can be killed, and nothing else can be done to them.
    Kafka(Kafka),
    /// Nor to these.
    Containers(Deployment),
}

impl Server {
    pub(crate) fn ids(&self) -> Vec<u16> {
        match self {
            Self::Klamm(cluster) => cluster.ids().collect(),
            Self::Kafka(kafka) => kafka.ids().collect(),
            Self::Containers(deployment) => deployment.ids().collect(),
        }
    }

    /// Where clients begin: all nodes, by their ids.
    pub(crate) fn bootstrap(&self) -> Vec<Endpoint> {
        match self {
            Self::Klamm(cluster) => cluster.bootstrap(),
            Self::Kafka(kafka) => kafka.bootstrap(),
            Self::Containers(deployment) => deployment.bootstrap(),
        }
    }

    pub(crate) fn endpoint(&self, id: u16) -> Endpoint {
        self.bootstrap()[usize::from(id) - 1].clone()
    }

    /// Where one node has its partitions.
    pub(crate) fn data(&self, id: u16) -> PathBuf {
        match self {
            Self::Klamm(cluster) => cluster.home(id).join("data"),
            Self::Kafka(kafka) => kafka.data(id),
            Self::Containers(deployment) => deployment.data(id).unwrap(),
        }
    }

    /// Where the directories of all nodes are.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Klamm(cluster) => cluster.path(),
            Self::Kafka(kafka) => kafka.path(),
            Self::Containers(deployment) => deployment.engine().path(),
        }
    }

    pub(crate) fn client(&self) -> Client {
        match self {
            Self::Klamm(cluster) => cluster.client(),
            Self::Kafka(_) | Self::Containers(_) => Client::new(self.bootstrap(), ClientOptions::default()),
        }
    }

    pub(crate) fn admin(&self) -> Admin {
        Admin::new(self.client())
    }

    pub(crate) async fn active_controller(&self) -> u16 {
        let admin = self.admin();
        let active = wait_for("an active controller", Duration::from_secs(60), async || {
            let quorum = admin.describe_quorum().await.map_err(|error| error.to_string())?;
            let leader = quorum.leader.and_then(|id| u16::try_from(id.0).ok());
            leader.ok_or_else(|| "there is none".to_owned())
        });
        active.await.unwrap()
    }

    /// Waits until every running node serves and sees all others that run.
    pub(crate) async fn wait_ready(&mut self) {
        match self {
            Self::Klamm(cluster) => cluster.wait_ready().await.unwrap(),
            Self::Kafka(kafka) => kafka.wait_ready().await.unwrap(),
            Self::Containers(deployment) => deployment.wait_ready().await.unwrap(),
        }
    }

    /// Ends a node at once, and waits until it is gone.
    pub(crate) fn kill(&mut self, id: u16) {
        match self {
            Self::Klamm(cluster) => cluster.node(id).kill().unwrap(),
            Self::Kafka(kafka) => kafka.kill(id).unwrap(),
            Self::Containers(deployment) => deployment.kill(id).unwrap(),
        }
    }

    /// Starts a node again that has ended.
    pub(crate) fn restart(&mut self, id: u16) {
        match self {
            Self::Klamm(cluster) => cluster.node(id).restart().unwrap(),
            Self::Kafka(kafka) => kafka.restart(id).unwrap(),
            Self::Containers(deployment) => deployment.restart(id).unwrap(),
        }
    }

    /// Our nodes, to which more can be done than to be killed.
    pub(crate) fn klamm(&mut self) -> &mut Cluster {
        match self {
            Self::Klamm(cluster) => cluster,
            Self::Kafka(_) | Self::Containers(_) => panic!("these nodes are only killed here"),
        }
    }
}
