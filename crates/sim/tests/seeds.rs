//! A few seeds, and that a seed is all that a run depends on.

use klamm_sim::{run_seed, run_seeds, trace_of};

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 17] {
        let (first, second) = (trace_of(seed), trace_of(seed));
        assert!(first.lines().count() > 1_000, "the trace tells what happened");
        assert!(first == second, "seed {seed} gives two traces");
    }
    assert_ne!(trace_of(3), trace_of(17));
}

#[test]
fn no_seed_breaks_a_promise() {
    let totals = run_seeds(0, 150, 2, 1, &|_| {});
    assert_eq!(totals.violations, []);
    assert_eq!(totals.runs, 150);
    assert!(totals.acknowledged > 10_000, "the runs get somewhere: {totals:?}");
}

#[test]
fn a_run_tells_what_it_came_to() {
    let outcome = run_seed(1).expect("seed 1 keeps its promises");
    assert!(outcome.steps > 1_000 && outcome.acknowledged > 10, "{outcome:?}");
    assert!(outcome.virtual_us > 1_000_000, "{outcome:?}");
}
