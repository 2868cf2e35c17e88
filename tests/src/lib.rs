//! What the end-to-end and interoperability tests of Klamm stand on.
//!
//! **For:** finding foreign tools (Python, Java, Maven, a C++ compiler), installing the pinned packages that a
//! test drives, and saying in one place that a test was skipped because one of them is missing; starting, killing
//! and pausing clusters of real nodes, writing to them and checking that they kept what they acknowledged.
//!
//! **Not for:** test cases; those are in `tests/tests/`. Nothing here knows the inside of a node.
//!
//! **Called by:** `tests/tests/`. **Calls:** `klamm server` and the machine's own tools, as child processes; `client`.
//!
//! The shape of a test that needs something:
//!
//! ```no_run
//! use klamm_tests::{skip, tools};
//!
//! # fn main() {
//! let environment = tools::PythonEnvironment::with("clients", &["kafka-python==2.2.15"]);
//! let Some(python) = skip::unless("reads_what_kafka_python_wrote", environment) else { return };
//! let status = python.command().arg("write_batches.py").status();
//! # let _ = status;
//! # }
//! ```

pub mod cluster;
pub mod containers;
pub mod disk;
pub mod distribution;
pub mod kafka;
pub mod node_process;
pub mod ports;
pub mod replicas;
pub mod requests;
pub mod skip;
pub mod tools;
pub mod workload;
