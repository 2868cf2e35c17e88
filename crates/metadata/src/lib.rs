//! Facts and views of the cluster.
//!
//! **For:** the records of the metadata log ([`MetadataRecord`]), the view that they add up to ([`MetadataImage`]),
//! and what a step from one view to the next means for one broker ([`LocalReplicaChanges`]).
//!
//! ```text
//!   log entry --decode--> facts --MetadataDelta::replay--> (delta, new image) --> publishers
//!   snapshot  --decode--> facts --MetadataDelta::replay--> image --MetadataDelta::between--> the same
//! ```
//!
//! **Not for:** decisions (`control` makes them) and I/O: bytes come in and go out as values.
//!
//! **Called by:** `control`, `controller`, `broker`, `kafka-api`. **Calls:** `pb`, `types`.
//!
//! **Invariants** (`docs/invariants.md`): R-9 epochs only grow, and R-10 one replay, whose outcome depends on the
//! facts alone; INV7 the sets of a partition are disjoint where they must be.

mod convert;
mod delta;
mod image;
mod local_changes;
mod partition;
mod persistent_map;
mod record;
mod registration;
mod snapshot;

pub use convert::{
    BATCH_BYTES_MAX, RecordError, decode_batch, encode_batch, endpoint_from_pb, endpoint_to_pb,
    feature_from_pb, feature_to_pb, from_batch, recovery_from_pb, recovery_to_pb, to_batch,
};
pub use delta::{MetadataDelta, PartitionStep, ReplayError};
pub use image::{
    BrokerLoad, ClusterImage, ConfigurationsImage, FeaturesImage, METADATA_VERSION, METADATA_VERSION_LEVELS,
    MetadataImage, MetadataProvenance, OFFLINE_REPLICAS_LEVEL, OfflineReplicasImage, ProducerIdsImage,
    QUORUM_ID_LEVEL, TopicImage, TopicsImage, UNCLEAN_EPOCH_LEVEL, supported_features,
};
pub use local_changes::{DeletedReplica, LocalReplicaChanges, ReplicaChange};
pub use partition::{LeaderRecovery, PartitionError, PartitionRegistration};
pub use persistent_map::PersistentMap;
pub use record::{BrokerChanged, ConfigResource, MetadataRecord, PartitionChanged, ReplicasOffline};
pub use registration::{
    BrokerRegistration, DirectoryId, Endpoint, FeatureRange, IncarnationId, SecurityProtocol,
};
pub use snapshot::{SnapshotError, SnapshotReader, SnapshotWriter, snapshot_records};
