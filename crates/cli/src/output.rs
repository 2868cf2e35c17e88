//! The two forms in which commands print.

pub(crate) mod bytes;
pub(crate) mod columns;
pub(crate) mod json;
pub(crate) mod table;

/// A form of output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people; may change from version to version.
    #[default]
    Table,
    /// For programs; field names are stable.
    Json,
}
