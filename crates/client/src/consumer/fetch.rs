//! One fetch at one leader.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm_protocol::messages::FetchRequest;
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use klamm_protocol::{ApiKey, Uuid};
use klamm_types::{BrokerId, Offset, TopicPartition};

use super::{ConsumerOptions, Fetched};
use crate::connection::Connection;
use crate::view::Leader;

/// How much longer than the leader may wait the client waits.
const GRACE: Duration = Duration::from_secs(5);
/// The first version that names topics by id alone.
const BY_ID_MIN: i16 = 13;

/// What is to be fetched from one leader.
pub(super) struct Share {
    broker: BrokerId,
    connection: Connection,
    /// Partitions, offsets to begin with, and topic ids.
    pub(super) asked: Vec<(TopicPartition, Offset, Uuid)>,
}

impl Share {
    pub(super) fn new(leader: &Leader) -> Self {
        Self { broker: leader.broker, connection: leader.connection.clone(), asked: Vec::new() }
    }

    pub(super) async fn fetch(self, options: ConsumerOptions) -> Fetched {
        let has_ids = self.asked.iter().all(|(_, _, id)| !id.is_zero());
        let newest = if has_ids { i16::MAX } else { BY_ID_MIN - 1 };
        let request = self.request(&options);
        let limit = options.wait_max + GRACE;
        let answer = match self.connection.newest(ApiKey::Fetch, newest) {
            Ok(version) => match self.connection.start(&request, version, limit).await {
                Ok(pending) => pending.wait().await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        Fetched { broker: self.broker, asked: self.asked, answer }
    }

    fn request(&self, options: &ConsumerOptions) -> FetchRequest {
        let mut topics: BTreeMap<&str, FetchTopic> = BTreeMap::new();
        for (at, offset, topic_id) in &self.asked {
            let topic = topics.entry(at.topic.as_str()).or_insert_with(|| FetchTopic {
                topic: at.topic.to_string(),
                topic_id: *topic_id,
                partitions: Vec::new(),
            });
            topic.partitions.push(FetchPartition {
                partition: at.partition.0,
                fetch_offset: offset.0,
                partition_max_bytes: options.partition_bytes_max,
                ..FetchPartition::default()
            });
        }
        FetchRequest {
            max_wait_ms: i32::try_from(options.wait_max.as_millis()).unwrap_or(i32::MAX),
            min_bytes: options.bytes_min,
            max_bytes: options.bytes_max,
            isolation_level: options.isolation.to_wire(),
            // No incremental session (KIP-227).
            session_id: 0,
            session_epoch: -1,
            topics: topics.into_values().collect(),
            ..FetchRequest::default()
        }
    }
}
