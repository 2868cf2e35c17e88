//! Segmented storage: one writer, many readers.

pub mod config;
pub mod fs;
