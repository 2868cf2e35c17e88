//! Follows the metadata log and keeps its newest image.
