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
#[ignore = "probe"]
fn probe() {
    let budget: usize = 1_500_000;
    let l = |values, crashes, fences, lags, lost| Limits {
        lags, lost_proposals: lost, ..limits(values, crashes, fences)
    };
    for (name, setup) in [
        ("2b v2 c1 f1", setup(2, l(2, 1, 1, 0, 0))),
        ("2b v2 c2 f1 lag1 lost1", setup(2, l(2, 2, 1, 1, 1))),
        ("3b v1 f1", setup(3, l(1, 0, 1, 0, 0))),
        ("3b v1 f2", setup(3, l(1, 0, 2, 0, 0))),
        ("3b v1 c1", setup(3, l(1, 1, 0, 0, 0))),
        ("3b v1 lag1 lost1", setup(3, l(1, 0, 0, 1, 1))),
        ("3b v2 f1", setup(3, l(2, 0, 1, 0, 0))),
    ] {
        let at = std::time::Instant::now();
        let explored = explore(setup, budget);
        println!("{name}: {explored:?} {:?}", at.elapsed());
    }
}
