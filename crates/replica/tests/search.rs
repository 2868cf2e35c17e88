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

fn limits(values: u32, crashes: u32, fences: u32) -> Limits {
    Limits { values, crashes, lossy: 0, fences, lags: 0, lost_proposals: 0, deletions: 0 }
}

fn setup(brokers: i32, limits: Limits) -> Setup {
    Setup {
        brokers,
        min_in_sync_replicas: 2,
        durability: Durability::Flushed,
        limits,
        instant_flush: true,
        instant_replies: true,
        skip_images: false,
    }
}

#[test]
fn probe() {
    let budget: usize = 30_000;
    for (name, setup) in [
        ("2 brokers, 1 value, 1 crash", setup(2, limits(1, 1, 0))),
        ("2 brokers, 1 value, 1 fence", setup(2, limits(1, 0, 1))),
        ("2 brokers, 2 values, 1 fence", setup(2, limits(2, 0, 1))),
        ("3 brokers, 1 value, 1 fence", setup(3, limits(1, 0, 1))),
    ] {
        let explored = explore(setup, budget);
        println!("{name}: {explored:?}");
    }
}
