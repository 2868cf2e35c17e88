//! The generator of `klamm-protocol`'s message code.
//!
//! **For:** `cargo xtask codegen` (listing to Rust), `cargo xtask codegen --import JAR` (published schemas to
//! listing), the check that committed code equals a fresh generation, and the sampler by which tests build
//! valid messages of every version. **Not for:** anything at run time; no product crate depends on it.
//!
//! **Called by:** xtask, and tests of `klamm-protocol`. **Calls:** rustfmt, as a child process.
//!
//! The road is: JSON in the archive → [`import`] → [`schema::Message`] → [`listing`] (committed, reviewed) →
//! [`layout::Layout`] → [`emit`] → rustfmt → committed Rust. The listing holds facts only; descriptions stay
//! behind in the archive.

mod archive;
mod emit;
mod error;
mod files;
mod import;
pub mod layout;
pub mod listing;
pub mod sample;
pub mod schema;

pub use error::SchemaError;
pub use files::{Paths, check, generate, import, layouts};
