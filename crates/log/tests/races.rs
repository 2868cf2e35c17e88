//! What once went wrong between two threads, on a full disk, or after one failed call: each case held still at the
//! one moment that matters.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "races/bed.rs"]
mod bed;
#[path = "races/flushing.rs"]
mod flushing;
#[path = "races/full_disk.rs"]
mod full_disk;
#[path = "races/hooked_fs.rs"]
mod hooked_fs;
#[path = "races/reading.rs"]
mod reading;
#[path = "races/transactions.rs"]
mod transactions;
#[path = "races/truncation.rs"]
mod truncation;
