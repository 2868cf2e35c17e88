//! Blocks of producer ids.
