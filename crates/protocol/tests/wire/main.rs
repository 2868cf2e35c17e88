//! The generated code against the listing, against two other implementations, and against hostile bytes.

mod encoding;
mod hostile;
mod oracle;
mod recode;
mod round_trip;
