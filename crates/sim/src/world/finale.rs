//! A whole run: build up, faults, healing, judgement.

use klamm_log::FetchIsolation;
use klamm_types::{BrokerId, Offset, PartitionId};

use super::{CONTROL_TICK_US, Happening, Report, World, values};

/// How long a healed cluster may take until everything is as it should be.
const HEALING_US: u64 = 120_000_000;

impl World {
    /// Runs from the first start to the last check.
    ///
    /// # Panics
    /// If anything that was promised does not hold.
    pub(crate) fn run(&mut self) -> Report {
        for id in (1..=self.scenario.brokers).map(BrokerId) {
            self.start(id);
        }
        self.scheduler.after(CONTROL_TICK_US, Happening::ControlTick);
        self.step_until(60_000_000, "all brokers register", Self::all_unfenced);
        let Self { quorum, scenario, chance, .. } = self;
        quorum.create_topic(scenario, chance);
        self.decide(|_| ());
        for producer in 0..self.producers.len() {
            self.scheduler.after(1_000, Happening::Produce { producer, attempt: 0 });
        }
        self.scheduler.after(10_000, Happening::Read);
        self.scheduler.after(self.scenario.fault_interval_us, Happening::Fault);
        let end = self.scheduler.now_us() + self.scenario.safety_us;
        while self.scheduler.now_us() < end && self.step() {}
        self.heal();
        self.step_until(HEALING_US, "everything is as it should be", Self::is_whole);
        self.judge();
        self.report()
    }

    fn step_until(&mut self, within_us: u64, what: &str, done: impl Fn(&Self) -> bool) {
        let end = self.scheduler.now_us() + within_us;
        let mut look_at = 0;
        loop {
            if self.scheduler.now_us() >= look_at {
                if done(self) {
                    return;
                }
                look_at = self.scheduler.now_us() + 50_000;
            }
            assert!(self.scheduler.now_us() < end, "not in time: {what}; {}", self.describe());
            assert!(self.step(), "nothing happens any more, and not yet: {what}");
        }
    }

    pub(super) fn all_unfenced(&self) -> bool {
        let image = self.quorum.image(self.quorum.committed());
        (1..=self.scenario.brokers).all(|id| image.cluster.is_active(BrokerId(id)))
    }

    fn heal(&mut self) {
        self.healing = true;
        self.network.heal();
        let failing =
            (1..=self.scenario.brokers).map(BrokerId).filter(|id| self.broker(*id).disk.is_failing());
        failing.collect::<Vec<_>>().into_iter().for_each(|id| self.kill(id, true));
        for broker in &mut self.brokers {
            broker.paused_until_us = 0;
        }
    }

    /// Everybody is back, every partition has all its replicas in sync and alike, nobody waits.
    fn is_whole(&self) -> bool {
        let image = self.quorum.image(self.quorum.committed());
        let settled = self.quorum.committed() == self.quorum.entries() && self.all_unfenced();
        let idle = self.producers.iter().all(|producer| producer.in_flight.is_none());
        let in_sync = image.topics.partitions().all(|(_, _, partition)| {
            partition.isr.len() == partition.replicas.len() && partition.leader.is_some()
        });
        settled && idle && in_sync && self.logs_are_alike()
    }

    fn replicas(&self, partition: PartitionId) -> Vec<BrokerId> {
        let image = self.quorum.image(self.quorum.committed());
        let topic = image.topics.topics().next();
        let known = topic.and_then(|topic| topic.partition(partition));
        known.map_or_else(Vec::new, |known| known.replicas.clone())
    }

    fn logs_are_alike(&self) -> bool {
        (0..self.scenario.partitions).map(PartitionId).all(|partition| {
            let ends: Option<Vec<_>> = self
                .replicas(partition)
                .into_iter()
                .map(|id| {
                    let hosted = self.broker(id).process.as_ref()?.replicas.get(&partition)?;
                    let log = hosted.replica.log();
                    Some((log.log_end_offset(), log.high_watermark(), log.flushed_end_offset()))
                })
                .collect();
            ends.is_some_and(|ends| {
                let is_committed = |(end, high_watermark, flushed): &(Offset, Offset, Offset)| {
                    end == high_watermark && end == flushed && Some(end) == ends.first().map(|first| &first.0)
                };
                ends.iter().all(is_committed)
            })
        })
    }

    fn judge(&mut self) {
        for partition in (0..self.scenario.partitions).map(PartitionId) {
            let logs: Vec<_> =
                self.replicas(partition).into_iter().map(|id| self.bytes_of(id, partition)).collect();
            let Some(first) = logs.first() else { continue };
            assert!(logs.iter().all(|log| log == first), "replicas of {partition} differ after healing");
            self.oracle.judge(partition, &values(first));
        }
    }

    fn bytes_of(&self, id: BrokerId, partition: PartitionId) -> Vec<u8> {
        let process = self.broker(id).process.as_ref().expect("everybody is back");
        let log = &process.replicas[&partition].log;
        let mut all = Vec::new();
        let mut next = log.log_start_offset();
        while next < log.log_end_offset() {
            let read = log.read(next, 1 << 20, FetchIsolation::LogEnd).expect("a healthy log reads");
            let bytes = read.slice.expect("there is more to read").to_vec().expect("a healthy log reads");
            let last = klamm_record::Batches::new(&bytes).filter_map(Result::ok).last();
            next = last.expect("a read has a whole batch").header().next_offset();
            all.extend_from_slice(&bytes);
        }
        all
    }

    fn describe(&self) -> String {
        let image = self.quorum.image(self.quorum.committed());
        let partitions: Vec<_> = image.topics.partitions().map(|(_, id, p)| (id, p.clone())).collect();
        let up: Vec<_> = self.brokers.iter().map(|b| (b.id, b.process.is_some())).collect();
        let waiting = self.producers.iter().filter(|producer| producer.in_flight.is_some()).count();
        format!("partitions {partitions:?}, up {up:?}, {waiting} producers wait")
    }
}
