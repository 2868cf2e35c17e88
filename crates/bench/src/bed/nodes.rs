//! Single nodes of a contender: what is done to them, and what they show.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use klamm_client::{
    Admin, ClientOptions, Cluster as Client, Endpoint, NewTopic, OwnedRecord, PartitionView, Producer,
    ProducerOptions, TopicView,
};
use klamm_tests::cluster::wait_for;
use klamm_types::{BrokerId, PartitionId, Timestamp, TopicName, TopicPartition};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::{Bed, Side, System};

/// How long a state of a cluster may take to come about: Kafka starts slowly with many partitions.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

impl Bed {
    pub(crate) fn ids(&self) -> impl Iterator<Item = u16> + use<> {
        1..=self.nodes
    }

    pub(crate) fn endpoint(&self, system: System, id: u16) -> Endpoint {
        match system {
            System::Kafka => Endpoint { host: "127.0.0.1".to_owned(), port: self.kafka.ports(id).client },
            System::Klamm | System::Bare => self.klamm.endpoint(id),
        }
    }

    /// The ports that its nodes listen on.
    pub(crate) fn ports(&self, system: System) -> Vec<u16> {
        let ports = |id: u16| match system {
            System::Kafka => {
                let ports = self.kafka.ports(id);
                vec![ports.client, ports.controller]
            }
            System::Klamm | System::Bare => vec![
                self.klamm.endpoint(id).port,
                self.klamm.controller_endpoint(id).port,
                self.klamm.admin_endpoint(id).port,
            ],
        };
        self.ids().flat_map(ports).collect()
    }

    /// Where one node has its partitions.
    pub(crate) fn data(&self, system: System, id: u16) -> PathBuf {
        match system {
            System::Kafka => self.kafka.data(id),
            System::Klamm | System::Bare => self.klamm.home(id).join("data"),
        }
    }

    /// Sends a signal to one node, and does not wait for what becomes of it.
    pub(crate) fn signal(&mut self, system: System, id: u16, signal: Signal) -> anyhow::Result<()> {
        let pid = match system {
            System::Kafka => self.kafka.pid(id),
            System::Klamm | System::Bare => self.klamm.node(id).pid(),
        };
        let pid = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        kill_process(pid.with_context(|| format!("node {id} does not run"))?, signal)?;
        Ok(())
    }

    /// Takes away what is left of a node that was killed.
    pub(crate) fn bury(&mut self, system: System, id: u16) -> anyhow::Result<()> {
        match system {
            System::Kafka => self.kafka.kill(id)?,
            System::Klamm | System::Bare => self.klamm.node(id).kill()?,
        }
        Ok(())
    }

    /// Starts a node again that has ended.
    pub(crate) fn start_again(&mut self, system: System, id: u16) -> anyhow::Result<()> {
        match system {
            System::Kafka => self.kafka.restart(id)?,
            System::Klamm | System::Bare => self.klamm.node(id).restart()?,
        }
        Ok(())
    }

    /// Waits until every running node serves and sees all that run.
    pub(crate) async fn wait_ready(&mut self, system: System) -> anyhow::Result<()> {
        match system {
            System::Kafka => self.kafka.wait_ready().await?,
            System::Klamm | System::Bare => self.klamm.wait_ready().await?,
        }
        Ok(())
    }

    /// The node that is the active controller.
    pub(crate) async fn controller(&mut self, system: System) -> anyhow::Result<u16> {
        let admin = self.side(system).admin;
        let active = wait_for("an active controller", PATIENCE, async || {
            let quorum = admin.describe_quorum().await.map_err(|error| error.to_string())?;
            let leader = quorum.leader.and_then(|id| u16::try_from(id.0).ok());
            leader.ok_or_else(|| "there is none".to_owned())
        });
        Ok(active.await?)
    }

    /// A node that is not the active controller: a fault there is nobody else's.
    pub(crate) async fn broker_only(&mut self, system: System) -> anyhow::Result<u16> {
        let active = self.controller(system).await?;
        self.ids().find(|id| *id != active).context("there is one node only")
    }

    /// What those nodes know and serve that are not `victim`.
    pub(crate) fn others(&self, system: System, victim: u16) -> Client {
        let others = self.ids().filter(|id| *id != victim).map(|id| self.endpoint(system, id));
        impatient(others.collect())
    }
}

/// A client that notices soon when a broker is gone, and tries again soon; the same for all contenders.
pub(crate) fn impatient(bootstrap: Vec<Endpoint>) -> Client {
    let options = ClientOptions {
        client_id: "klamm-bench".to_owned(),
        connect_timeout: Duration::from_secs(1),
        request_timeout: Duration::from_secs(5),
        metadata_timeout: Duration::from_millis(500),
        retry_backoff: Duration::from_millis(2),
        retry_backoff_max: Duration::from_millis(20),
        operation_timeout: PATIENCE,
        in_flight_max: 1024,
        ..ClientOptions::default()
    };
    Client::new(bootstrap, options)
}

impl Side {
    pub(crate) fn endpoints(&self) -> anyhow::Result<Vec<Endpoint>> {
        Ok(Endpoint::parse_list(&self.bootstrap)?)
    }

    /// Creates a topic whose replicas are where `assignment` says, the leader of each partition first.
    pub(crate) async fn create_at(
        &self,
        name: &str,
        assignment: Vec<Vec<u16>>,
        configs: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let ids = |ids: Vec<u16>| ids.into_iter().map(|id| BrokerId(i32::from(id))).collect();
        let config = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let topic = NewTopic {
            assignment: assignment.into_iter().map(ids).collect(),
            configs: configs.iter().map(config).collect(),
            ..NewTopic::named(name)
        };
        for (name, result) in self.admin.create_topics(&[topic], false).await? {
            result.with_context(|| format!("create {name}"))?;
        }
        self.settled(name, 3).await
    }

    /// Waits until all partitions of a topic have `replicas` replicas in sync, and each has taken a record.
    pub(crate) async fn settled(&self, topic: &str, replicas: usize) -> anyhow::Result<()> {
        let cluster = impatient(self.endpoints()?);
        let view = wait_in_sync(&cluster, topic, replicas).await?;
        let options = ProducerOptions { delivery_timeout: PATIENCE, ..ProducerOptions::default() };
        let producer = Producer::new(cluster, options);
        let mut deliveries = Vec::new();
        for partition in &view.partitions {
            let at = at(topic, partition.partition.0)?;
            let record = OwnedRecord::of_value(Timestamp(0), Bytes::from_static(b"first"));
            deliveries.push(producer.send(&at, record).await?);
        }
        for delivery in deliveries {
            delivery.wait().await?;
        }
        Ok(())
    }
}

pub(crate) fn at(topic: &str, partition: i32) -> anyhow::Result<TopicPartition> {
    Ok(TopicPartition::new(TopicName::new(topic)?, PartitionId(partition)))
}

/// Waits until all partitions of a topic have leaders and `replicas` replicas in sync.
pub(crate) async fn wait_in_sync(
    cluster: &Client,
    topic: &str,
    replicas: usize,
) -> anyhow::Result<TopicView> {
    let is_settled = |partition: &PartitionView| {
        partition.leader.is_some() && partition.in_sync_replicas.len() >= replicas
    };
    wait_shown(cluster, topic, "all replicas are in sync", |view| view.partitions.iter().all(is_settled))
        .await
}

/// Waits until a topic shows what `is_wanted` wants, looking every two milliseconds.
pub(crate) async fn wait_shown(
    cluster: &Client,
    topic: &str,
    what: &str,
    is_wanted: impl Fn(&TopicView) -> bool,
) -> anyhow::Result<TopicView> {
    let (admin, start) = (Admin::new(cluster.clone()), Instant::now());
    loop {
        let view = admin.wait_for_leaders(topic).await?;
        if is_wanted(&view) {
            return Ok(view);
        }
        ensure!(start.elapsed() < PATIENCE, "{topic}: not seen in {} s: {what}", PATIENCE.as_secs());
        sleep(Duration::from_millis(2)).await;
    }
}
