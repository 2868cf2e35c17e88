//! What can go wrong between a published schema and the generated code.

use std::path::PathBuf;

/// A schema that is not understood, or a file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A version range that is none of `N`, `N-M`, `N+`, `none`.
    #[error("bad version range `{text}`")]
    BadVersions {
        /// The range as written.
        text: String,
    },
    /// A type that is neither a known scalar nor a structure's name.
    #[error("unknown type `{text}`")]
    UnknownType {
        /// The type as written.
        text: String,
    },
    /// A field of a structure type without a definition.
    #[error("{message}: no structure {name}")]
    UnknownStruct {
        /// The message.
        message: String,
        /// The missing structure.
        name: String,
    },
    /// A line of a listing that is not understood.
    #[error("{file}:{line}: {problem}: `{text}`")]
    BadLine {
        /// The listing.
        file: String,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
        /// The line itself.
        text: String,
    },
    /// A property of a message in the published JSON that is missing or of another type than expected.
    #[error("{message}: property `{property}` is missing or unexpected")]
    BadProperty {
        /// The message or its file.
        message: String,
        /// The property.
        property: &'static str,
    },
    /// A field that no Rust code is generated for.
    #[error("{message}.{field}: {problem}")]
    Unsupported {
        /// The message.
        message: String,
        /// The field.
        field: String,
        /// What is not supported.
        problem: &'static str,
    },
    /// The archive is not a readable ZIP file.
    #[error("archive: {problem} at byte {at}")]
    BadArchive {
        /// What is wrong.
        problem: &'static str,
        /// Where.
        at: usize,
    },
    /// JSON that does not parse.
    #[error("{file}: {source}")]
    BadJson {
        /// The file.
        file: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// rustfmt is missing or refused the generated code.
    #[error("rustfmt: {problem}")]
    Rustfmt {
        /// What it said.
        problem: String,
    },
    /// Committed code that differs from a fresh generation.
    #[error("not as generated: {}; run `cargo xtask codegen`", files.join(", "))]
    Stale {
        /// The names of the files.
        files: Vec<String>,
    },
}

impl SchemaError {
    /// Never: every cause lies in the input or the machine.
    pub fn is_retryable(&self) -> bool {
        false
    }
}
