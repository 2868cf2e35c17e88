//! Follows the metadata log and keeps its newest image.
//!
//! ```text
//!   MetadataFeed of a controller ──▶ MetadataLoader ──▶ (delta, image) ──▶ MetadataCache, then each MetadataPublisher
//! ```

mod cache;
mod feed;
mod lately_dead;
mod loader;
mod marks;
mod publisher;
mod suspects;

pub use cache::{MetadataCache, NotApplied};
pub use feed::FeedError;
pub use loader::{LoaderFault, MetadataLoader};
pub use publisher::MetadataPublisher;
pub use suspects::{NOTICE_TIME, SUSPICION_TIME};
