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
    explore_from(Cluster::new(setup), &[], states_max)
}

/// The same from `initial`, to which `prefix` has led.
fn explore_from(initial: Cluster, prefix: &[Action], states_max: usize) -> Explored {
    let setup = initial.setup.clone();
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
                    let mut trace = prefix.to_vec();
                    trace.extend(trace_to(&parents, from));
                    trace.push(action);
                    fail(&setup, &trace, outcome);
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

/// The actions from the first state to this one.
fn trace_to(parents: &HashMap<u64, (u64, Option<Action>)>, mut at: u64) -> Vec<Action> {
    let mut trace = Vec::new();
    while let Some((parent, Some(action))) = parents.get(&at) {
        trace.push(*action);
        at = *parent;
    }
    trace.reverse();
    trace
}

fn fail(setup: &Setup, trace: &[Action], outcome: std::thread::Result<Result<(), String>>) -> ! {
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

/// Sees the neighbourhoods of states that lie deeper than a search from the start comes: wanders about under each
/// seed, then goes breadth first through `states_max` states from there.
fn sample_deep(setup: &Setup, seeds: std::ops::Range<u64>, states_max: usize) {
    let mut acknowledged = 0;
    for seed in seeds {
        let (cluster, prefix) = wander(setup, seed);
        let explored = explore_from(cluster, &prefix, states_max);
        acknowledged += explored.acknowledged;
    }
    assert!(acknowledged > 0, "no order acknowledges anything");
}

/// Takes between 20 and 80 of the actions that may happen, by chance under the seed.
fn wander(setup: &Setup, seed: u64) -> (Cluster, Vec<Action>) {
    let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = |bound: usize| {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        (chance % bound as u64) as usize
    };
    let mut cluster = Cluster::new(setup.clone());
    let mut prefix = Vec::new();
    for _ in 0..20 + draw(61) {
        let mut actions = cluster.enabled();
        // Faults would be most of the actions: let the replicas get somewhere between them.
        let harmless: Vec<Action> = actions.iter().copied().filter(|action| !action.is_fault()).collect();
        if !harmless.is_empty() && draw(12) > 0 {
            actions = harmless;
        }
        let action = actions[draw(actions.len())];
        prefix.push(action);
        cluster.act(action);
        if let Err(why) = cluster.check() {
            fail(setup, &prefix, Ok(Err(why)));
        }
    }
    (cluster, prefix)
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

/// Three brokers, and every kind of fault there is.
fn three_brokers_all_faults() -> Setup {
    let faults =
        Limits { values: 3, crashes: 2, lossy: 1, fences: 2, lags: 2, lost_proposals: 2, deletions: 1 };
    let setup = setup(3, faults);
    Setup { instant_flush: false, instant_replies: false, skip_images: true, stale_fetches_max: 2, ..setup }
}

#[test]
fn three_brokers_far_from_the_start() {
    sample_deep(&three_brokers_all_faults(), 0..40, 100);
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
    fn three_brokers_far_from_the_start() {
        sample_deep(&three_brokers_all_faults(), 1_000..2_000, 3_000);
    }
}
