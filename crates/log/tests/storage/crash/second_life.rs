//! A recovered log lives on, and the power fails again: what the first crash left must not come back to haunt it.

use klamm_log::fs::MemoryFs;

use super::plans::{Effort, plans};
use super::{Tally, recover};
use crate::oracle::Broken;
use crate::random::Random;
use crate::timeline::Promise;
use crate::workload::{Run, random_steps};

const STEPS: usize = 8;

/// Runs some steps on the recovered log on `disk`, then crashes at every instant of them.
pub(crate) fn crash_again(
    disk: &MemoryFs,
    promise: Promise,
    random: &mut Random,
    tally: &mut Tally,
) -> Result<(), Broken> {
    disk.record();
    let seed = random.next();
    let steps = random_steps(STEPS, random);
    let mut run = Run::start(disk, promise, seed, super::AFTER_THE_CRASH.0);
    for step in &steps {
        run.step(*step);
    }
    let timeline = run.timeline();
    let mut points = disk.crash_points();
    while let Some(point) = points.next() {
        let expected = timeline.expectation(point.position());
        for plan in plans(point, Effort::SAMPLE, random) {
            tally.nested += 1;
            recover(&point.power_cut(&plan), &expected)
                .map_err(|e| format!("{e}\n  in a second life, {plan:?}, {}\n", timeline.story(point)))?;
        }
    }
    Ok(())
}
