//! Interoperability on real bytes: what other encoders wrote is read here, and what is written here is read by them.
//!
//! The generators, the golden files and a description of both are in `tests/interop`.

mod clients;
mod dump_tool;
mod expected;
mod golden_batches;
mod golden_segments;
mod kafka_directory;
mod kafka_log;
mod kafka_tools;
mod our_batches;
mod our_directory;
mod our_dump;
mod our_log;
