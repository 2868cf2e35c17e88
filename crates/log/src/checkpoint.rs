//! The small files beside the segments, in Kafka's formats.
//!
//! | file | where | holds |
//! | --- | --- | --- |
//! | `recovery-point-offset-checkpoint` | log directory | per partition, the offset below which all is durable |
//! | `replication-offset-checkpoint` | log directory | per partition, the high watermark |
//! | `log-start-offset-checkpoint` | log directory | per partition, the log start, where it is past the first segment |
//! | `meta.properties` | log directory | whose directory this is |
//! | `.kafka_cleanshutdown` | log directory | left by an orderly shutdown |
//! | `directory-siblings` | log directory | the identities of all log directories of the broker; not Kafka's |
//! | `leader-epoch-checkpoint` | partition | the leader epochs and their first offsets |
//! | `partition.metadata` | partition | the topic's id |
//!
//! Each is replaced as a whole: after a crash it holds the old content or the new.

mod clean_shutdown;
mod epochs;
mod meta_properties;
mod offsets;
mod partition_metadata;
mod siblings;
mod table;

pub use clean_shutdown::CleanShutdown;
pub use epochs::{LEADER_EPOCH_FILE, read_epochs, write_epochs};
pub use meta_properties::MetaProperties;
pub use offsets::OffsetCheckpoint;
pub(crate) use partition_metadata::render_topic_id;
pub use partition_metadata::{PARTITION_METADATA_FILE, read_topic_id};
pub(crate) use siblings::Siblings;
