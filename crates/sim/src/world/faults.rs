//! What goes wrong, and when it is allowed to.

use klamm_log::fs::Operation;
use klamm_types::{BrokerId, PartitionId};

use super::{Happening, World};
use crate::broker::topic_minimum;
use crate::disk::Disk;
use crate::message::Address;
use crate::scenario::{Fault, Scenario};

impl World {
    /// The next fault, and the one after it.
    pub(super) fn fault(&mut self) {
        if self.healing {
            return;
        }
        let mean = self.scenario.fault_interval_us;
        let next = self.chance.range(mean / 4, mean * 2);
        self.scheduler.after(next, Happening::Fault);
        let weights = self.scenario.weights;
        let Some(fault) = Fault::draw(weights, &mut self.chance) else { return };
        if self.is_replacing_a_disk() && fault != Fault::ControllerFailover {
            return;
        }
        self.note(|_| format!("fault {fault:?}"));
        let id = BrokerId(self.chance.range(1, self.scenario.brokers as u64) as i32);
        match fault {
            Fault::Kill => self.kill_and_restart(id, false),
            Fault::PowerCut => self.kill_and_restart(id, true),
            Fault::PowerCutOfAll => {
                (1..=self.scenario.brokers).for_each(|id| self.kill_and_restart(BrokerId(id), true));
            }
            Fault::CleanRestart => {
                if let Some(process) = &mut self.broker_mut(id).process {
                    process.wants_shutdown = process.epoch.is_some();
                }
            }
            Fault::Wipe => self.wipe(id),
            Fault::Pause => {
                let until = self.scheduler.now_us() + self.chance.range(50_000, 4_000_000);
                self.broker_mut(id).paused_until_us = until;
            }
            Fault::CutOneWay => self.cut_one_way(id),
            Fault::Isolate => self.isolate(id),
            Fault::ControllerFailover => self.fail_over(),
            Fault::DiskFailure => self.fail_disk(id),
            Fault::Reassign => self.reassign(),
            Fault::Elect => {
                let partition = self.any_partition();
                self.decide(|quorum| quorum.elect_preferred(partition));
            }
            Fault::SetMinimum => {
                let minimum = self.chance.range(1, 2);
                self.decide(|quorum| quorum.set_minimum(minimum));
            }
        }
    }

    /// Ends the process of a broker without a word. A power cut also loses what is not on its disk.
    pub(super) fn kill(&mut self, id: BrokerId, power: bool) {
        let World { brokers, chance, .. } = self;
        let broker = &mut brokers[Self::index(id)];
        let Some(process) = broker.process.take() else { return };
        let epoch = process.epoch;
        drop(process);
        if power {
            broker.disk.cut_power(chance);
        } else {
            broker.disk.kill_process(chance);
        }
        // A host that still runs refuses connections at once; one without power says nothing.
        if let Some(epoch) = epoch.filter(|_| !power) {
            self.scheduler.after(15_000, Happening::Died { broker: id, epoch });
        }
        let down = self.chance.range(20_000, 3_000_000);
        self.scheduler.after(down, Happening::Start { broker: id });
    }

    fn kill_and_restart(&mut self, id: BrokerId, power: bool) {
        self.kill(id, power);
    }

    /// Whether a lost disk has not been filled again: until then the records on it have one copy less, and another
    /// loss would be one too many.
    fn is_replacing_a_disk(&mut self) -> bool {
        self.replacing_disk = self.replacing_disk && !self.is_whole_in_metadata();
        self.replacing_disk
    }

    /// All brokers serve under the registration that the metadata shows, and all partitions have all their replicas in sync.
    fn is_whole_in_metadata(&self) -> bool {
        let image = self.quorum.latest();
        let whole = |partition: &klamm_metadata::PartitionRegistration| {
            partition.isr.len() == partition.replicas.len()
                && partition.adding.is_empty()
                && partition.removing.is_empty()
        };
        let committed = self.quorum.committed() == self.quorum.entries();
        let now_us = self.scheduler.now_us();
        // A process that is not registered yet may have come with an empty disk while its predecessor still counts.
        let registered = |id| image.cluster.broker(id).map(|registration| registration.epoch);
        let up = |broker: &crate::broker::Broker| {
            let epoch = broker.process.as_ref().and_then(|process| process.epoch);
            epoch.is_some()
                && epoch == registered(broker.id)
                && broker.paused_until_us <= now_us
                && !broker.disk.is_failing()
        };
        committed
            && self.all_unfenced()
            && self.brokers.iter().all(up)
            && image.topics.partitions().all(|(_, _, partition)| whole(partition))
    }

    /// Takes a broker's disk away, if everything that was acknowledged is on two others, and nothing else is
    /// wrong at the time.
    fn wipe(&mut self, id: BrokerId) {
        let Scenario { replication_factor, min_insync_replicas, .. } = self.scenario;
        let minimum =
            topic_minimum(&self.quorum.latest()).unwrap_or_else(|| usize::from(min_insync_replicas));
        let redundant = replication_factor > 2 && minimum > 1;
        if !redundant || !self.is_whole_in_metadata() || self.network.is_cut(self.scheduler.now_us()) {
            return;
        }
        self.replacing_disk = true;
        self.kill(id, true);
        let World { brokers, chance, .. } = self;
        brokers[Self::index(id)].disk = Disk::empty(chance);
        brokers[Self::index(id)].clean_mark = None;
    }

    fn cut_one_way(&mut self, id: BrokerId) {
        let until = self.scheduler.now_us() + self.chance.range(50_000, 5_000_000);
        let other = BrokerId(self.chance.range(1, self.scenario.brokers as u64) as i32);
        let other = if self.chance.per_mille(300) { Address::Quorum } else { Address::Broker(other) };
        let (a, b) = (Address::Broker(id), other);
        let (from, to) = if self.chance.per_mille(500) { (a, b) } else { (b, a) };
        self.network.cut(from, to, until);
    }

    fn isolate(&mut self, id: BrokerId) {
        let until = self.scheduler.now_us() + self.chance.range(50_000, 6_000_000);
        let brokers = (1..=self.scenario.brokers).map(|other| Address::Broker(BrokerId(other)));
        let everybody: Vec<_> = brokers.chain([Address::Quorum]).collect();
        for other in everybody {
            self.network.cut(Address::Broker(id), other, until);
            self.network.cut(other, Address::Broker(id), until);
        }
    }

    fn fail_over(&mut self) {
        if !self.quorum.is_active() {
            return;
        }
        let World { quorum, chance, .. } = self;
        quorum.fail_over(chance);
        let term = self.quorum.term();
        let leaderless = self.chance.range(20_000, 1_500_000);
        self.scheduler.after(leaderless, Happening::TakeOver { term });
    }

    /// The next sync, or the next write, of a broker's disk fails; the machine is booted again soon after, with the
    /// disk mended and its cache gone.
    fn fail_disk(&mut self, id: BrokerId) {
        let operation = if self.chance.per_mille(500) { Operation::SyncData } else { Operation::Write };
        let broker = self.broker_mut(id);
        if broker.process.is_some() {
            broker.disk.start_failing(operation);
        }
    }

    fn any_partition(&mut self) -> PartitionId {
        PartitionId(self.chance.range(0, self.scenario.partitions as u64 - 1) as i32)
    }

    fn reassign(&mut self) {
        let partition = self.any_partition();
        if self.chance.per_mille(300) {
            self.decide(|quorum| quorum.reassign(partition, None));
            return;
        }
        let mut brokers: Vec<_> = (1..=self.scenario.brokers).map(BrokerId).collect();
        for last in (1..brokers.len()).rev() {
            brokers.swap(last, self.chance.range(0, last as u64) as usize);
        }
        brokers.truncate(usize::try_from(self.scenario.replication_factor).unwrap_or(1));
        self.decide(|quorum| quorum.reassign(partition, Some(brokers)));
    }
}
