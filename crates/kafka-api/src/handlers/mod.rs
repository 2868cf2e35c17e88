//! One file per API.

pub(crate) mod api_versions;
pub(crate) mod describe_cluster;
pub(crate) mod find_coordinator;
pub(crate) mod metadata;
