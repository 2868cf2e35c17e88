//! The administration of Klamm from the command line: `klamm <noun> <verb>`.
//!
//! **For:** people and scripts. Data goes to stdout, everything else to stderr; `--output json` is stable.
//!
//! **Not for:** deciding anything: a command asks and shows.
//!
//! **Called by:** the program `klamm`. **Calls:** `client`, that is, the public protocol only; the files of a stopped
//! node (`log`), which no public interface can show.
//!
//! Exit codes: 0 done, 1 refused or damaged, 2 wrong usage, 3 no broker answers. An error is one line that ends in what
//! to try next.
//!
//! Whoever reads stdout may go away at any time, as `head` does: that is no error.

mod commands;
mod exit;
mod output;
mod session;

pub use commands::{AdminCommand, run};
pub use exit::Exit;
