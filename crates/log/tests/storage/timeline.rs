//! What was promised when: the workload's record, beside the journal of the disk.

use std::sync::Arc;

use klamm_log::fs::CrashPoint;

use crate::plain_log::PlainLog;

/// What holds once a step of the workload is done.
#[derive(Clone, Debug)]
pub(crate) struct Promise {
    /// The log that a reader sees.
    pub(crate) log: PlainLog,
    /// The end of what was published as flushed.
    pub(crate) flushed_end: i64,
    /// The leader epochs that were made durable, as far as the log still has them.
    pub(crate) durable_epochs: Vec<(i32, i64)>,
    /// Every leader epoch that no truncation has taken back, those replaced by later ones included.
    pub(crate) assigned_epochs: Vec<(i32, i64)>,
    /// The largest high watermark that was set.
    pub(crate) high_watermark: i64,
}

/// One step: from one promise to the next, with the journal positions between which it happened.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    pub(crate) what: String,
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) before: Arc<Promise>,
    pub(crate) after: Arc<Promise>,
    /// The step failed: its outcome may be on the disk, or a part of it.
    pub(crate) failed: bool,
    /// The end of what was flushed before and must stay while the step is under way.
    pub(crate) kept: i64,
    /// Flushed ends that were published on the way, and the journal's position then.
    pub(crate) published: Vec<(u64, i64)>,
}

/// The steps of a workload, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    pub(crate) moments: Vec<Moment>,
}

/// What a recovery must find after a crash at some position of the journal.
pub(crate) struct Expectation<'a> {
    /// The log must be a prefix of one of these.
    pub(crate) logs: Vec<&'a PlainLog>,
    /// The prefix must reach this far.
    pub(crate) flushed_end: i64,
    /// Leader epochs that must be known, as far as they start within the log.
    pub(crate) durable_epochs: Vec<(i32, i64)>,
    /// Leader epochs that may be known, those that the log has replaced since included.
    pub(crate) assigned_epochs: Vec<(i32, i64)>,
    /// The high watermark must not be past this.
    pub(crate) high_watermark_max: i64,
}

impl Timeline {
    /// What must hold if the power fails when the journal has `position` entries.
    pub(crate) fn expectation(&self, position: u64) -> Expectation<'_> {
        let under_way = self.moments.iter().find(|moment| moment.begin < position && position < moment.end);
        if let Some(moment) = under_way {
            return moment.expectation_within(position);
        }
        let done = self.moments.iter().rev().find(|moment| moment.end <= position);
        if let Some(failed) = done.filter(|moment| moment.failed) {
            return failed.expectation_within(position);
        }
        let promise = done.map_or(&self.moments[0].before, |moment| &moment.after);
        Expectation {
            logs: vec![&promise.log],
            flushed_end: promise.flushed_end,
            durable_epochs: promise.durable_epochs.clone(),
            assigned_epochs: promise.assigned_epochs.clone(),
            high_watermark_max: promise.high_watermark,
        }
    }
}

impl Timeline {
    /// What must hold from the last step on.
    pub(crate) fn last_expectation(&self) -> Option<Expectation<'_>> {
        (!self.moments.is_empty()).then(|| self.expectation(u64::MAX))
    }

    /// What led to a crash at `point`: the steps so far, and what was pending.
    pub(crate) fn story(&self, point: &CrashPoint) -> String {
        let so_far = self.moments.iter().filter(|moment| moment.begin <= point.position());
        let steps: Vec<_> = so_far.map(|m| format!("{}..{} {}", m.begin, m.end, m.what)).collect();
        let pending: Vec<_> = point.pending().iter().map(ToString::to_string).collect();
        format!(
            "crash at {} in or after the last of\n    {}\n  pending\n    {}",
            point.position(),
            steps.join("\n    "),
            pending.join("\n    ")
        )
    }
}

impl Moment {
    fn expectation_within(&self, position: u64) -> Expectation<'_> {
        let (before, after) = (&self.before, &self.after);
        let published = self.published.iter().filter(|(at, _)| *at <= position).map(|(_, end)| *end);
        let known = before.durable_epochs.iter().filter(|epoch| after.log.epochs.contains(epoch));
        Expectation {
            logs: vec![&before.log, &after.log],
            flushed_end: published.fold(self.kept, i64::max),
            durable_epochs: known.copied().collect(),
            assigned_epochs: [&before.assigned_epochs[..], &after.assigned_epochs[..]].concat(),
            high_watermark_max: before.high_watermark.max(after.high_watermark),
        }
    }
}
