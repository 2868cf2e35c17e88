//! The mutants. To add one: put the bug behind `#[cfg(mutant = "ID")]` and the right code behind its negation,
//! then add a row here that names the tests that must see it.

use crate::test_programs::Tests;

/// A known bug that can be built back in.
pub(crate) struct Mutant {
    /// Its name in `--cfg mutant="ID"`, from the list of historical bugs in the replication design.
    pub(crate) id: &'static str,
    /// The package that holds it.
    pub(crate) package: &'static str,
    /// What goes wrong with it.
    pub(crate) bug: &'static str,
    /// The tests that must see it.
    pub(crate) tests: Tests,
}

const LOG: &str = "klamm-log";

/// Every test of the package.
const ALL_TESTS: Tests = Tests { targets: &["--tests"], names: &[] };

/// All mutants, by id.
pub(crate) const MUTANTS: [Mutant; 6] = [
    Mutant {
        id: "B22",
        package: LOG,
        bug: "KAFKA-9196: the high watermark keeps a position in a segment that was rolled",
        tests: ALL_TESTS,
    },
    Mutant {
        id: "B24",
        package: LOG,
        bug: "KAFKA-10778: appends are accepted after an I/O error took the directory out of service",
        tests: ALL_TESTS,
    },
    Mutant {
        id: "B26",
        package: LOG,
        bug: "KAFKA-16541: the leader-epoch checkpoint is replaced without being flushed",
        tests: ALL_TESTS,
    },
    Mutant {
        id: "B28",
        package: LOG,
        bug: "ATC'20: a second fsync after a failed one counts as success",
        tests: ALL_TESTS,
    },
    Mutant {
        id: "B29",
        package: LOG,
        bug: "NATS 2.12.1: everything after a damaged batch in mid-log is deleted",
        tests: ALL_TESTS,
    },
    Mutant {
        id: "B39",
        package: LOG,
        bug: "etcd #14370: an append is acknowledged before it is flushed",
        tests: ALL_TESTS,
    },
];
