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

const REPLICA: &str = "klamm-replica";

const fn replica(id: &'static str, bug: &'static str) -> Mutant {
    Mutant { id, package: REPLICA, bug, tests: ALL_TESTS }
}

/// These tests of the log on a faulty disk in memory.
const fn on_a_faulty_disk(names: &'static [&'static str]) -> Tests {
    Tests { targets: &["--test", "storage"], names }
}

const CONTROLLER: &str = "klamm-controller";

/// Failing disks, and every crash of a scripted life.
const LOG_STORE: Tests = Tests { targets: &["--test", "log_store"], names: &["crash", "faults"] };

const fn controller(id: &'static str, bug: &'static str) -> Mutant {
    Mutant { id, package: CONTROLLER, bug, tests: LOG_STORE }
}

/// Controllers that die and come back.
const fn quorum(id: &'static str, bug: &'static str) -> Mutant {
    let tests = Tests { targets: &["--test", "quorum"], names: &["election::"] };
    Mutant { id, package: CONTROLLER, bug, tests }
}

/// All mutants, by id.
pub(crate) const MUTANTS: [Mutant; 42] = [
    control("B09", "KIP-841: the controller admits a fenced member to the in-sync set"),
    control("B10", "KIP-903: a member that restarted since is admitted under its old epoch"),
    control("B11", "KAFKA-14154: a controller that knows less calls newer epochs fenced"),
    control("B15", "KIP-966: the last replica of the in-sync set stays in it whatever it lost"),
    control("B16", "KIP-966: the ELR is kept when the in-sync set is full again"),
    control("B17", "KIP-966: the ELR is kept when min.insync.replicas changes"),
    control("B18", "the last known leader is elected although it is dead"),
    Mutant {
        id: "B21",
        package: LOG,
        bug: "KAFKA-9807: the last stable offset of an answer is looked up after its high watermark",
        tests: Tests { targets: &["--test", "races"], names: &["reading::the_bounds_of_an_answer"] },
    },
    Mutant {
        id: "B22",
        package: LOG,
        bug: "KAFKA-9196: the high watermark keeps a position in a segment that was rolled",
        tests: on_a_faulty_disk(&["model::"]),
    },
    Mutant {
        id: "B24",
        package: LOG,
        bug: "KAFKA-10778: appends are accepted after an I/O error took the directory out of service",
        tests: on_a_faulty_disk(&["faults::an_io_error"]),
    },
    Mutant {
        id: "B26",
        package: LOG,
        bug: "KAFKA-16541: the leader-epoch checkpoint is replaced without being flushed",
        tests: on_a_faulty_disk(&["crash::crash_enumeration_short"]),
    },
    Mutant {
        id: "B28",
        package: LOG,
        bug: "ATC'20: a second fsync after a failed one counts as success",
        tests: on_a_faulty_disk(&["faults::an_io_error"]),
    },
    Mutant {
        id: "B29",
        package: LOG,
        bug: "NATS 2.12.1: everything after a damaged batch in mid-log is deleted",
        tests: on_a_faulty_disk(&["rot::"]),
    },
    Mutant {
        id: "B32",
        package: LOG,
        bug: "Redpanda #3039: who only copied batches does not know their producers when it leads",
        tests: Tests { targets: &["--test", "log"], names: &["a_follower_that_leads"] },
    },
    Mutant {
        id: "B39",
        package: LOG,
        bug: "etcd #14370: an append is acknowledged before it is flushed",
        tests: on_a_faulty_disk(&["faults::an_io_error"]),
    },
    controller("B40", "openraft a9f696a9: an append is acknowledged before it is flushed"),
    controller("B40-vote", "openraft ee460f37: a vote is granted before it is on the disk"),
    controller("B40-purge", "entries go before it is on the disk that they were purged"),
    Mutant {
        id: "B41",
        package: CONTROLLER,
        bug: "openraft cecb5de8: a truncation overtakes the completion of the appends before it",
        tests: Tests { targets: &["--test", "log_store"], names: &["concurrency::"] },
    },
    quorum(
        "B42",
        "openraft #1511: a leader that starts again decides before it has applied what was committed",
    ),
    quorum("B43", "KAFKA-15489: a leader that reaches no quorum goes on as the active controller"),
    control("B44", "KAFKA-15353: a proposal that was built twice has become empty and is taken"),
    replica("B01", "KIP-101: a follower falls back to its high watermark instead of comparing epochs"),
    replica("B02", "KIP-279: a follower believes the leader's end of an epoch that it does not have"),
    replica("B03", "KIP-320: a leader serves fetches of any leader epoch"),
    replica("B04", "KAFKA-7415: a new leader that has written nothing leaves no epoch behind"),
    replica("B05", "KAFKA-7128: a follower joins from the high watermark, short of the epoch start"),
    replica("B06", "a follower joins on what it said in an earlier leader epoch"),
    replica("B07", "the high watermark waits for the committed set while a larger one is proposed"),
    replica("B08", "a proposal whose answer is lost is taken back"),
    replica("B10", "KAFKA-15221: what an earlier incarnation held counts for the present one"),
    replica("B12", "KAFKA-12686: an image that says nothing new clears the proposal in flight"),
    replica("B13", "KAFKA-13091: a new committed in-sync set does not move the high watermark"),
    replica("B14", "KAFKA-15021: a follower that is shutting down holds the high watermark back"),
    replica("B19", "KAFKA-14704: a diverging follower takes over the leader's high watermark"),
    replica("B20", "KAFKA-8400: a refused fetch counts as progress"),
    replica("B23", "KAFKA-9491: a log that starts anew leaves its high watermark behind"),
    replica("B27", "KAFKA-10533: what a replica has not flushed counts as held"),
    replica("B33", "an append is acknowledged at another offset than the stored one"),
    replica("B46", "a proposal is taken back on a refusal although an earlier attempt was lost"),
    replica("B47", "the leader's log start hides a divergence below it"),
    replica("B48", "a lowered min.insync.replicas counts for the leader that the same image deposes"),
];
