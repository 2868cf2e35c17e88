//! One file per API.

pub(crate) mod api_versions;
