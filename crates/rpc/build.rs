//! Generates the service stubs from `proto/`. The messages are those of `klamm-pb`: nothing is defined twice.

use std::error::Error;
use std::path::Path;

/// The files that define services, so that a new one is a deliberate line here.
const FILES: [&str; 7] = [
    "metadata/v1/feed.proto",
    "raft/v1/raft.proto",
    "controller/v1/lifecycle.proto",
    "controller/v1/partition.proto",
    "controller/v1/admin.proto",
    "replication/v1/replication.proto",
    "controller/v1/quorum.proto",
];

/// Where `klamm-pb` keeps the messages of a package.
const PACKAGES: [(&str, &str); 4] = [
    (".klamm.metadata.v1", "::klamm_pb::metadata::v1"),
    (".klamm.raft.v1", "::klamm_pb::raft::v1"),
    (".klamm.controller.v1", "::klamm_pb::controller::v1"),
    (".klamm.replication.v1", "::klamm_pb::replication::v1"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let descriptors = protox::compile(FILES, [root])?;
    let mut builder = tonic_prost_build::configure();
    for (package, module) in PACKAGES {
        builder = builder.extern_path(package, module);
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}
