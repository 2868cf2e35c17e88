//! `directory-siblings`: which log directories a broker has had, as each of them knows it.

use std::collections::BTreeSet;
use std::path::Path;

use uuid::Uuid;

use super::meta_properties::{id_text, parse_id};
use super::table::{read, render};
use crate::error::{Describe as _, LogError};
use crate::fs::{LogFs, replace_file};

/// The identities of all log directories that a broker had when it last registered, kept in each of them.
///
/// A disk that was replaced comes up empty, with an identity of its own, as one does that was added. Only what the others
/// remember tells the two apart, and the logs that are gone from those that never were.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Siblings(pub(crate) BTreeSet<Uuid>);

impl Siblings {
    /// The name of the file in a log directory. Kafka passes over it.
    const FILE: &str = "directory-siblings";

    /// Reads the file of `dir`; nothing if there is none. One that does not read names a directory that is nowhere: nobody can
    /// tell any more that none is missing.
    ///
    /// # Errors
    /// The disk's errors.
    pub(crate) fn read(fs: &dyn LogFs, dir: &Path) -> Result<Self, LogError> {
        let path = dir.join(Self::FILE);
        match read(fs, &path, parse_id) {
            Ok(rows) => Ok(Self(rows.into_iter().flatten().collect())),
            Err(LogError::Damaged { .. }) => Ok(Self([Uuid::nil()].into())),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file of `dir`. Durable on return.
    ///
    /// # Errors
    /// The disk's errors.
    pub(crate) fn write(&self, fs: &dyn LogFs, dir: &Path) -> Result<(), LogError> {
        let path = dir.join(Self::FILE);
        let text = render(self.0.iter().map(|id| id_text(*id)));
        Ok(replace_file(fs, &path, text.as_bytes()).describe("replace", &path)?)
    }
}
