//! The decisions of the active controller.
//!
//! **For:** turning a request into facts. Each decision takes the newest image, what is known of the brokers' liveness, the
//! request, the time and a source of randomness, and returns a [`ControlResult`]: records to append, and the answer
//! to give once they are committed. Equal inputs give equal results, byte for byte.
//!
//! **Not for:** changing an image (only `MetadataDelta::replay` does), clocks, sockets, the quorum.
//!
//! **Called by:** `controller`, and by the simulation. **Calls:** `metadata`, `types`.
//!
//! ```text
//!   request ──> *Control(image, config) ──> Err(refusal)
//!                                      └──> ControlResult { records, response }
//!                                               │ entries, appended in the term of the image
//!                                               v
//!                                     commit, replay, answer
//! ```
//!
//! **Invariants** (`docs/invariants.md`), asserted on everything that is decided: INV7, INV8, R-9.

mod alter_partition;
mod balancer;
mod cluster_control;
mod config;
mod configuration_control;
mod draft;
mod election;
mod feature_control;
mod invariants;
mod liveness;
mod offline_replicas;
mod partition_change;
mod placement;
mod producer_id_control;
mod randomness;
mod reassignment;
mod recovery;
mod refusal;
mod replication_control;
mod result;
mod settings;
mod topics;

pub use alter_partition::{
    AlterPartitionError, AlterPartitionRequest, IsrAnswer, IsrMember, IsrProposal, IsrRefusal, PartitionState,
};
pub use balancer::LeaderBalancer;
pub use cluster_control::{
    BrokerStanding, ClusterControl, HeartbeatRequest, LifecycleError, RecoveryVerdict, RegisterRequest,
    Registered,
};
pub use config::{ControlConfig, ControlConfigError};
pub use configuration_control::{
    AlterResource, ConfigError, ConfigOperation, ConfigRefusal, ConfigSchema, ConfigurationControl,
};
pub use election::{ElectionError, ElectionKind, ElectionOutcomes};
pub use feature_control::{FeatureControl, FeatureError, FeatureUpdate, FeatureUpdateKind};
pub use invariants::{check_image, check_partition};
pub use liveness::{Evidence, Liveness, Suspicion};
pub use offline_replicas::{OfflineReplica, OfflineReport, OfflineReportError};
pub use placement::{Placement, PlacementError, ReplicaPlacer, UsableBroker};
pub use producer_id_control::{PRODUCER_ID_BLOCK, ProducerIdBlock, ProducerIdControl, ProducerIdError};
pub use randomness::{Randomness, SplitMix64};
pub use reassignment::{Reassignment, ReassignmentError};
pub use recovery::{LogReport, LogReports, LostLog, LostLogs, Recovered};
pub use refusal::{Refusal, Refused};
pub use replication_control::ReplicationControl;
pub use result::{ControlResult, ENTRY_RECORDS_MAX};
pub use settings::{
    DEFAULT_WRITE_CACHING, MIN_INSYNC_REPLICAS, UNCLEAN_LEADER_ELECTION_ENABLE, WRITE_CACHING,
};
pub use topics::{
    CreatedTopic, DeletedTopic, GrowTopic, NewTopic, RECORDS_PER_REQUEST_MAX, TopicError, TopicReference,
};
