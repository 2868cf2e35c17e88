//! Generates the message structs from `proto/` with a compiler in Rust: no `protoc` is needed.

use std::error::Error;
use std::path::Path;

/// Every file, so that a new one is a deliberate line here.
const FILES: [&str; 10] = [
    "metadata/v1/records.proto",
    "metadata/v1/snapshot.proto",
    "metadata/v1/feed.proto",
    "raft/v1/raft.proto",
    "controller/v1/caller.proto",
    "controller/v1/lifecycle.proto",
    "controller/v1/partition.proto",
    "controller/v1/admin.proto",
    "replication/v1/replication.proto",
    "controller/v1/quorum.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new("../../proto");
    for file in FILES {
        println!("cargo::rerun-if-changed={}", root.join(file).display());
    }
    let descriptors = protox::compile(FILES, [root])?;
    prost_build::Config::new().bytes(["."]).compile_fds(descriptors)?;
    Ok(())
}
