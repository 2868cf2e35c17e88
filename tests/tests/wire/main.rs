//! The wire codec judged by Kafka's own serialisers.
//!
//! Samples of every message in every version, whole and damaged, go to a small Java program that decodes them
//! with the classes of `kafka-clients` and encodes the result again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod every_version;
mod judge;
mod verdicts;
