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

const CONTROL: &str = "klamm-control";

/// The tables of decisions, and the random histories.
const DECISIONS: Tests = Tests { targets: &["--test", "decisions"], names: &[] };

const fn control(id: &'static str, bug: &'static str) -> Mutant {
    Mutant { id, package: CONTROL, bug, tests: DECISIONS }
}

/// All mutants, by id.
pub(crate) const MUTANTS: [Mutant; 14] = [
    control("B09", "KIP-841: the controller admits a fenced member to the in-sync set"),
    control("B10", "KIP-903: a member that restarted since is admitted under its old epoch"),
    control("B11", "KAFKA-14154: a controller that knows less calls newer epochs fenced"),
    control("B15", "KIP-966: the last replica of the in-sync set stays in it whatever it lost"),
    control("B16", "KIP-966: the ELR is kept when the in-sync set is full again"),
    control("B17", "KIP-966: the ELR is kept when min.insync.replicas changes"),
    control("B18", "the last known leader is elected although it is dead"),
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
    control("B44", "KAFKA-15353: a proposal that was built twice has become empty and is taken"),
];
