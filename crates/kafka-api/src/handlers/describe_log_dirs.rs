//! DescribeLogDirs (35): the log directories of this broker, and what lies in them (KIP-113, KIP-827, KIP-1066).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_broker::LogDirStatus;
use klamm_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use klamm_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use klamm_protocol::{ErrorCode, VersionRange};

use crate::context::RequestContext;
use crate::data_plane::DataPlane;
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// A size that is not known.
const UNKNOWN_BYTES: i64 = -1;

/// The handler.
#[derive(Debug)]
pub(crate) struct DescribeLogDirsHandler {
    plane: Arc<DataPlane>,
}

impl DescribeLogDirsHandler {
    /// A handler over these partitions.
    pub(crate) fn new(plane: Arc<DataPlane>) -> Self {
        Self { plane }
    }
}

impl Handler for DescribeLogDirsHandler {
    type Request = DescribeLogDirsRequest;

    const VERSIONS: VersionRange = DescribeLogDirsRequest::VERSIONS;
    const ACCESS: Access = Access::Cluster(Operation::Describe);

    fn handle(
        &self,
        _context: RequestContext,
        request: DescribeLogDirsRequest,
    ) -> Ticket<DescribeLogDirsResponse> {
        let plane = Arc::clone(&self.plane);
        // A disk that hangs must not hang the connection's task.
        Ticket::later(async move {
            let answer = tokio::task::spawn_blocking(move || describe(&plane, request)).await;
            answer.map_or(Answer::Close, Answer::Response)
        })
    }
}

/// Partitions by topic, both in order.
type Contents = BTreeMap<String, BTreeMap<i32, DescribeLogDirsPartition>>;

fn describe(plane: &DataPlane, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let wanted = request.topics.map(|topics| {
        let wanted = topics.into_iter().map(|topic| (topic.topic, topic.partitions.into_iter().collect()));
        wanted.collect::<HashMap<String, HashSet<i32>>>()
    });
    let mut contents: HashMap<PathBuf, Contents> = HashMap::new();
    for handle in plane.replicas.partitions() {
        let (topic, partition) = (handle.partition().topic.as_str(), handle.partition().partition.0);
        let is_wanted = wanted
            .as_ref()
            .is_none_or(|wanted| wanted.get(topic).is_some_and(|partitions| partitions.contains(&partition)));
        if !is_wanted {
            continue;
        }
        let described = handle.describe();
        let entry = DescribeLogDirsPartition {
            partition_index: partition,
            partition_size: signed(described.size_bytes),
            offset_lag: signed(described.offset_lag),
            is_future_key: false,
        };
        let topics = contents.entry(described.log_dir).or_default();
        topics.entry(topic.to_owned()).or_default().insert(partition, entry);
    }
    let is_cordoned =
        plane.image().cluster.broker(plane.cluster.broker).is_some_and(|broker| broker.cordoned);
    let results = plane.replicas.log_dirs().statuses().into_iter().map(|dir| {
        let contents = contents.remove(&dir.path).unwrap_or_default();
        result_of(&dir, contents, is_cordoned)
    });
    DescribeLogDirsResponse {
        throttle_time_ms: 0,
        error_code: ErrorCode::None as i16,
        results: results.collect(),
    }
}

fn result_of(dir: &LogDirStatus, contents: Contents, is_cordoned: bool) -> DescribeLogDirsResult {
    let log_dir = dir.path.to_string_lossy().into_owned();
    if dir.failure.is_some() {
        let error_code = ErrorCode::KafkaStorageError as i16;
        return DescribeLogDirsResult { error_code, log_dir, ..DescribeLogDirsResult::default() };
    }
    let topics = contents.into_iter().map(|(name, partitions)| DescribeLogDirsTopic {
        name,
        partitions: partitions.into_values().collect(),
    });
    let (total_bytes, usable_bytes) = space_of(&dir.path);
    DescribeLogDirsResult {
        error_code: ErrorCode::None as i16,
        log_dir,
        topics: topics.collect(),
        total_bytes,
        usable_bytes,
        is_cordoned,
    }
}

/// The size of the volume, and what of it may be used.
fn space_of(dir: &Path) -> (i64, i64) {
    let Ok(volume) = rustix::fs::statvfs(dir) else { return (UNKNOWN_BYTES, UNKNOWN_BYTES) };
    let bytes = |blocks: u64| signed(blocks.saturating_mul(volume.f_frsize));
    (bytes(volume.f_blocks), bytes(volume.f_bavail))
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use klamm_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;

    use super::*;
    use crate::data_bed::DataBed;

    async fn ask(bed: &DataBed, version: i16, wanted: Option<&[(&str, &[i32])]>) -> DescribeLogDirsResponse {
        let topics = wanted.map(|wanted| {
            let topic = |(topic, partitions): &(&str, &[i32])| DescribableLogDirTopic {
                topic: (*topic).to_owned(),
                partitions: partitions.to_vec(),
            };
            wanted.iter().map(topic).collect()
        });
        let handler = DescribeLogDirsHandler::new(bed.plane.clone());
        let response = bed.ask(&handler, version, DescribeLogDirsRequest { topics }).await;
        let mut writer = klamm_protocol::Writer::new();
        response.encode(version, &mut writer).unwrap();
        response
    }

    fn contents(response: &DescribeLogDirsResponse) -> Vec<(&str, i32)> {
        let topics = response.results.iter().flat_map(|dir| &dir.topics);
        topics.flat_map(|t| t.partitions.iter().map(|p| (t.name.as_str(), p.partition_index))).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn directories_tell_their_partitions_and_space() {
        let bed = DataBed::new().await;
        for version in DescribeLogDirsRequest::VERSIONS.iter() {
            let response = ask(&bed, version, None).await;
            assert_eq!((response.error_code, response.results.len()), (0, 1));
            assert_eq!(contents(&response), [("t", 0), ("t", 1)]);
            let dir = &response.results[0];
            assert!(dir.log_dir.ends_with("data") && !dir.is_cordoned);
            assert!(0 < dir.usable_bytes && dir.usable_bytes <= dir.total_bytes);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_what_is_asked_for_is_told() {
        let bed = DataBed::new().await;
        let some = ask(&bed, 5, Some(&[("t", &[1, 2, 7]), ("nobody", &[0])])).await;
        assert_eq!(contents(&some), [("t", 1)]);
        let nothing = ask(&bed, 5, Some(&[])).await;
        assert_eq!((contents(&nothing), nothing.results.len()), (Vec::new(), 1));
    }
}
