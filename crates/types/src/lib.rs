//! The vocabulary of Klamm: ids, offsets, epochs and timestamps as types of their own.
//!
//! **For:** every number with a meaning that crosses a crate border. Arithmetic on these types is named and
//! checked, so that an offset cannot be added to a partition id, and an epoch cannot go backwards by accident.
//!
//! **Not for:** encodings (wire and disk formats convert at their own border) and anything that does I/O.
//!
//! **Called by:** every other crate. **Calls:** nothing.
//!
//! A range of offsets is half open: a bound that ends it is *exclusive* and is called `end`; an *inclusive*
//! bound is called `last`.

mod epoch;
mod ids;
mod leader_epochs;
mod offset;
mod time;
mod topic;

pub use epoch::{BrokerEpoch, CoordinatorEpoch, LeaderEpoch, PartitionEpoch, ProducerEpoch};
pub use ids::{BrokerId, PartitionId, ProducerId, QuorumId, TopicId, TopicIdError};
pub use leader_epochs::{EpochEndOffset, EpochEntry, EpochOrderError, LeaderEpochCache};
pub use offset::Offset;
pub use time::Timestamp;
pub use topic::{TopicName, TopicNameError, TopicPartition};
