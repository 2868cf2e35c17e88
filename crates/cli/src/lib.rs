//! The administration of Klamm from the command line: `klamm <noun> <verb>`.
//!
//! **For:** people and scripts. Data goes to stdout, everything else to stderr; `--output json` is stable.
//!
//! **Not for:** deciding anything: a command asks and shows.
//!
//! **Called by:** the program `klamm`. **Calls:** the files of a stopped node (`log`), which no public interface can
//! show.
//!
//! Whoever reads stdout may go away at any time, as `head` does: that is no error.

mod commands;
mod exit;
mod output;

pub use commands::{AdminCommand, run};
pub use exit::Exit;
