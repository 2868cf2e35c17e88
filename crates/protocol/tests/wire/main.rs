//! The generated code against the listing, against two other implementations, and against hostile bytes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod encoding;
mod hostile;
mod oracle;
mod recode;
mod round_trip;
