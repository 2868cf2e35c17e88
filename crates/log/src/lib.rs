//! Segmented storage: one writer, many readers.

pub mod fs;
