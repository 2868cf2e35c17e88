//! The front behind a live listener, as clients on raw sockets see it. The ids in the names of tests (`w01` and so
//! on) are those of the table of malformed input that every listener is held against; each such test asks a good
//! question on another connection before and after.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "a test waits for the real clock, with a deadline")]

mod answers;
mod handlers;
mod harness;
mod lifecycle;
mod limits;
mod malformed;
mod sharing;
