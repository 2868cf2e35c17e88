//! What each node shows to clients.

use std::collections::BTreeMap;

use klamm_client::{ClientOptions, Connection, Endpoint};
use klamm_protocol::Uuid;
use klamm_protocol::messages::MetadataRequest;
use klamm_protocol::messages::metadata_response::MetadataResponsePartition;
use klamm_tests::cluster::{Cluster, wait_for};

use super::SECOND;

/// A topic as one node shows it: its id, and its partitions by number.
pub(crate) type TopicView = (Uuid, BTreeMap<i32, MetadataResponsePartition>);

/// One node's view, asked of that node alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct View {
    pub(crate) brokers: Vec<i32>,
    pub(crate) topics: BTreeMap<String, TopicView>,
}

pub(crate) struct Viewer {
    connection: Connection,
}

impl Viewer {
    pub(crate) async fn open(endpoint: Endpoint) -> Result<Self, String> {
        let options = ClientOptions::default();
        let connection = Connection::open(endpoint, &options).await.map_err(|error| error.to_string())?;
        Ok(Self { connection })
    }

    pub(crate) async fn look(&self) -> Result<View, String> {
        let request =
            MetadataRequest { topics: None, allow_auto_topic_creation: false, ..MetadataRequest::default() };
        let answer = self.connection.call(&request).await.map_err(|error| error.to_string())?;
        let mut brokers: Vec<_> = answer.brokers.iter().map(|broker| broker.node_id).collect();
        brokers.sort_unstable();
        let mut view = View { brokers, topics: BTreeMap::new() };
        for topic in answer.topics {
            let partitions = topic.partitions.into_iter().map(|mut partition| {
                partition.isr_nodes.sort_unstable();
                partition.offline_replicas.sort_unstable();
                (partition.partition_index, partition)
            });
            view.topics.insert(topic.name.unwrap_or_default(), (topic.topic_id, partitions.collect()));
        }
        Ok(view)
    }
}

/// Waits until all nodes show the same, and gives it.
pub(crate) async fn agreed(cluster: &Cluster) -> View {
    wait_for("all nodes show the same", 30 * SECOND, async || {
        let mut views = Vec::new();
        for id in cluster.ids() {
            let view = Viewer::open(cluster.endpoint(id)).await?.look().await?;
            views.push((id, view));
        }
        let (first, view) = views.first().cloned().ok_or("no node")?;
        for (id, other) in &views {
            if *other != view {
                return Err(format!("node {id} and node {first} differ: {}", difference(other, &view)));
            }
        }
        Ok(view)
    })
    .await
    .unwrap()
}

fn difference(one: &View, other: &View) -> String {
    if one.brokers != other.brokers {
        return format!("brokers {:?} and {:?}", one.brokers, other.brokers);
    }
    let names = one.topics.keys().chain(other.topics.keys());
    let name = names.into_iter().find(|name| one.topics.get(*name) != other.topics.get(*name));
    let name = name.cloned().unwrap_or_default();
    format!("topic {name}: {:?} and {:?}", one.topics.get(&name), other.topics.get(&name))
}
