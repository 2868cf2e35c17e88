//! A bounded exhaustive search: every order of everything that may happen to a few replicas within limits.

mod model;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use klamm_replica::Durability;
use model::{Action, Cluster, Limits, Setup};

/// What a search has seen.
#[derive(Debug)]
struct Explored {
    states: usize,
    steps: usize,
    depth: usize,
    /// Whether there was nothing left to see, rather than that the budget was used up.
    exhausted: bool,
    acknowledged: usize,
}

/// Goes breadth first through the states of `setup`, at most `states_max` of them.
///
/// # Panics
/// With the actions that lead there, if a state breaks a promise.
fn explore(setup: Setup, states_max: usize) -> Explored {
    let initial = Cluster::new(setup.clone());
    let mut parents: HashMap<u64, (u64, Option<Action>)> = HashMap::new();
    parents.insert(initial.fingerprint(), (0, None));
    let mut level = vec![initial];
    let mut explored = Explored { states: 1, steps: 0, depth: 0, exhausted: true, acknowledged: 0 };
    while !level.is_empty() {
        let mut next = Vec::new();
        for cluster in level {
            let from = cluster.fingerprint();
            for action in cluster.enabled() {
                explored.steps += 1;
                let mut after = cluster.clone();
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    after.act(action);
                    after.check()
                }));
                if !matches!(outcome, Ok(Ok(()))) {
                    fail(&setup, &parents, (from, action), outcome);
                }
                explored.acknowledged = explored.acknowledged.max(after.oracle.acknowledged());
                let fingerprint = after.fingerprint();
                if parents.contains_key(&fingerprint) {
                    continue;
                }
                if parents.len() >= states_max {
                    explored.exhausted = false;
                    continue;
                }
                parents.insert(fingerprint, (from, Some(action)));
                next.push(after);
            }
        }
        explored.states = parents.len();
        explored.depth += 1;
        level = next;
    }
    explored
}

fn fail(
    setup: &Setup,
    parents: &HashMap<u64, (u64, Option<Action>)>,
    (mut at, last): (u64, Action),
    outcome: std::thread::Result<Result<(), String>>,
) -> ! {
    let mut trace = vec![last];
    while let Some((parent, Some(action))) = parents.get(&at) {
        trace.push(*action);
        at = *parent;
    }
    trace.reverse();
    let why = match outcome {
        Ok(Err(why)) => why,
        Ok(Ok(())) => "nothing".to_owned(),
        Err(panic) => match panic.downcast::<String>() {
            Ok(message) => *message,
            Err(_) => "a panic without a message".to_owned(),
        },
    };
    panic!("{why}\nafter {} actions: {trace:?}\nof {setup:?}", trace.len());
}

const NONE: Limits =
    Limits { values: 1, crashes: 0, lossy: 0, fences: 0, lags: 0, lost_proposals: 0, deletions: 0 };

fn setup(brokers: i32, limits: Limits) -> Setup {
    Setup {
        brokers,
        min_in_sync_replicas: 2,
        durability: Durability::Flushed,
        limits,
        instant_flush: true,
        instant_replies: true,
        stale_fetches_max: 1,
        skip_images: false,
    }
}

/// Sees every state of `setup`, which must be fewer than `states_max`.
fn exhaust(setup: Setup, states_max: usize) {
    let explored = explore(setup.clone(), states_max);
    println!("{explored:?} of {setup:?}");
    assert!(explored.exhausted, "{explored:?} of {setup:?}");
    assert!(explored.acknowledged as u32 == setup.limits.values, "some order acknowledges all: {explored:?}");
}

/// Sees the first `states_max` states, nearest first.
fn sample(setup: Setup, states_max: usize) {
    let explored = explore(setup.clone(), states_max);
    println!("{explored:?} of {setup:?}");
    assert!(explored.acknowledged > 0, "no order acknowledges anything: {explored:?}");
}

#[test]
fn two_brokers_and_a_crash() {
    exhaust(setup(2, Limits { crashes: 1, ..NONE }), 5_000);
}

#[test]
fn two_brokers_and_a_flush_that_takes_its_time() {
    let setup =
        Setup { instant_flush: false, instant_replies: false, ..setup(2, Limits { crashes: 1, ..NONE }) };
    exhaust(setup, 20_000);
}

#[test]
fn two_brokers_two_values_and_a_fence() {
    exhaust(setup(2, Limits { values: 2, fences: 1, ..NONE }), 5_000);
}

#[test]
fn two_brokers_a_lost_disk_and_deletions() {
    exhaust(setup(2, Limits { values: 2, lossy: 1, deletions: 1, ..NONE }), 20_000);
}

#[test]
fn two_brokers_a_follower_that_lags_and_proposals_that_are_lost() {
    exhaust(setup(2, Limits { lags: 1, lost_proposals: 1, ..NONE }), 20_000);
}

#[test]
fn one_required_and_proposals_that_are_lost() {
    let setup = setup(2, Limits { lags: 1, lost_proposals: 1, ..NONE });
    exhaust(Setup { min_in_sync_replicas: 1, ..setup }, 20_000);
}

#[test]
fn three_brokers_near_the_start() {
    sample(setup(3, Limits { fences: 2, lags: 1, ..NONE }), 4_000);
}

mod full {
    //! Larger limits: minutes each in release.

    use super::*;

    #[test]
    #[ignore = "takes minutes; run it in release"]
    fn two_brokers_two_values_a_crash_and_a_fence() {
        exhaust(setup(2, Limits { values: 2, crashes: 1, fences: 1, ..NONE }), 400_000);
    }

    #[test]
    #[ignore = "takes minutes; run it in release"]
    fn two_brokers_a_fence_a_follower_that_lags_and_proposals_that_are_lost() {
        exhaust(setup(2, Limits { fences: 1, lags: 1, lost_proposals: 1, ..NONE }), 1_000_000);
    }

    #[test]
    #[ignore = "takes minutes; run it in release"]
    fn one_required_a_fence_a_follower_that_lags_and_proposals_that_are_lost() {
        let setup = setup(2, Limits { fences: 1, lags: 1, lost_proposals: 1, ..NONE });
        exhaust(Setup { min_in_sync_replicas: 1, ..setup }, 1_000_000);
    }

    #[test]
    #[ignore = "takes minutes; run it in release"]
    fn two_brokers_all_faults_once() {
        let faults = Limits { crashes: 1, lossy: 1, fences: 1, lags: 1, lost_proposals: 1, ..NONE };
        sample(setup(2, faults), 1_000_000);
    }

    #[test]
    #[ignore = "takes minutes; run it in release"]
    fn three_brokers_and_a_fence() {
        sample(setup(3, Limits { fences: 1, ..NONE }), 1_000_000);
    }

    #[test]
    #[ignore = "takes minutes; run it in release"]
    fn three_brokers_a_lossy_and_a_clean_crash_and_two_fences() {
        let faults =
            Limits { values: 2, crashes: 1, lossy: 1, fences: 2, lags: 2, lost_proposals: 1, deletions: 0 };
        sample(setup(3, faults), 1_000_000);
    }

    #[test]
    #[ignore = "takes minutes; run it in release"]
    fn three_brokers_slow_flushes_and_replies_and_skipped_images() {
        let faults = Limits { values: 2, crashes: 2, fences: 1, lags: 1, lost_proposals: 1, ..NONE };
        let slow = Setup {
            instant_flush: false,
            instant_replies: false,
            skip_images: true,
            stale_fetches_max: 2,
            ..setup(3, faults)
        };
        sample(slow, 1_000_000);
    }
}
