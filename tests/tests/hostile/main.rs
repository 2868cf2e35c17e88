//! The rows of the malformed-input table that a client without a login can send, against a live node: each on a
//! connection of its own, with a good write and a good read on another connection before and after it.
//!
//! Rows about frames and headers (W01 to W12, W53, W54) and about batches (W31 to W42) have tests with more cases in
//! `crates/kafka-api`; this holds the whole node to them, its controller and its disk included.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod administration;
mod bed;
mod frames;
mod records;

use bed::Bed;

#[tokio::test]
async fn nothing_that_a_client_sends_harms_a_node() {
    let mut bed = Bed::start().await;
    frames::send_all(&mut bed).await;
    records::send_all(&mut bed).await;
    administration::send_all(&mut bed).await;
    bed.finish().await;
}
