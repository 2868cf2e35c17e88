//! What kind of world a seed gets. Each run has its own mix of faults ("swarm testing", Groce et al. 2012): a run with
//! everything at once rarely gets deep into anything.

use crate::chance::Chance;

/// The shape of one run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Scenario {
    pub(crate) brokers: i32,
    pub(crate) partitions: i32,
    pub(crate) replication_factor: i32,
    pub(crate) min_insync_replicas: u16,
    pub(crate) producers: usize,
    /// How long faults go on, in microseconds of virtual time.
    pub(crate) safety_us: u64,
    /// Mean time between two faults.
    pub(crate) fault_interval_us: u64,
    /// One-way delay of a message, from and to.
    pub(crate) delay_us: (u64, u64),
    /// How long a flush takes, from and to.
    pub(crate) flush_us: (u64, u64),
    /// Messages lost, in thousandths.
    pub(crate) loss: u32,
    /// Messages delivered twice, in thousandths (but for proposals, which the transport delivers once).
    pub(crate) duplication: u32,
    pub(crate) replica_lag_time_max_ms: i64,
    /// Weights of the faults; 0 turns one off.
    pub(crate) weights: FaultWeights,
}

/// How often each fault is chosen, against the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct FaultWeights {
    pub(crate) kill: u32,
    pub(crate) power_cut: u32,
    pub(crate) power_cut_of_all: u32,
    pub(crate) clean_restart: u32,
    pub(crate) wipe: u32,
    pub(crate) pause: u32,
    pub(crate) cut_one_way: u32,
    pub(crate) isolate: u32,
    pub(crate) controller_failover: u32,
    pub(crate) disk_failure: u32,
    pub(crate) reassign: u32,
    pub(crate) elect: u32,
    pub(crate) set_minimum: u32,
}

impl Scenario {
    /// The world of a seed.
    pub(crate) fn draw(chance: &mut Chance) -> Self {
        let brokers = chance.range(3, 5) as i32;
        let replication_factor = if chance.per_mille(800) { 3 } else { 2 };
        let slow_disk = chance.per_mille(300);
        let slow_net = chance.per_mille(300);
        let lossy_net = chance.per_mille(400);
        Self {
            brokers,
            partitions: chance.range(1, 3) as i32,
            replication_factor,
            min_insync_replicas: chance.range(1, 2) as u16,
            producers: chance.range(1, 3) as usize,
            safety_us: chance.range(3_000_000, 20_000_000),
            fault_interval_us: chance.range(150_000, 3_000_000),
            delay_us: if slow_net { (200, 80_000) } else { (100, 2_000) },
            flush_us: if slow_disk { (500, 150_000) } else { (200, 3_000) },
            loss: if lossy_net { chance.range(1, 80) as u32 } else { 0 },
            duplication: if lossy_net { chance.range(0, 50) as u32 } else { 0 },
            replica_lag_time_max_ms: chance.range(500, 10_000) as i64,
            weights: FaultWeights::draw(chance),
        }
    }
}

impl FaultWeights {
    fn draw(chance: &mut Chance) -> Self {
        let mut weight = |likely: u32| if chance.per_mille(likely) { chance.range(1, 10) as u32 } else { 0 };
        Self {
            kill: weight(700),
            power_cut: weight(600),
            power_cut_of_all: weight(250),
            clean_restart: weight(400),
            wipe: weight(300),
            pause: weight(500),
            cut_one_way: weight(400),
            isolate: weight(400),
            controller_failover: weight(500),
            disk_failure: weight(200),
            reassign: weight(300),
            elect: weight(200),
            set_minimum: weight(150),
        }
    }

    /// The weights with the faults that they belong to.
    pub(crate) fn table(self) -> [(Fault, u32); 13] {
        [
            (Fault::Kill, self.kill),
            (Fault::PowerCut, self.power_cut),
            (Fault::PowerCutOfAll, self.power_cut_of_all),
            (Fault::CleanRestart, self.clean_restart),
            (Fault::Wipe, self.wipe),
            (Fault::Pause, self.pause),
            (Fault::CutOneWay, self.cut_one_way),
            (Fault::Isolate, self.isolate),
            (Fault::ControllerFailover, self.controller_failover),
            (Fault::DiskFailure, self.disk_failure),
            (Fault::Reassign, self.reassign),
            (Fault::Elect, self.elect),
            (Fault::SetMinimum, self.set_minimum),
        ]
    }
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// The process of a broker is killed; what it wrote is still in the page cache.
    Kill,
    /// The power of a broker fails; what is not on disk survives in part or not at all.
    PowerCut,
    /// The power of all brokers fails.
    PowerCutOfAll,
    /// A broker shuts down in a controlled way and comes back.
    CleanRestart,
    /// A broker loses its disk and comes back with an empty one.
    Wipe,
    /// A broker's process stands still for a while.
    Pause,
    /// Messages from one node to another are lost for a while.
    CutOneWay,
    /// A broker reaches nobody for a while.
    Isolate,
    /// The active controller dies; what it had not committed survives in part.
    ControllerFailover,
    /// A broker's disk begins to fail; the broker is restarted with it mended after a while.
    DiskFailure,
    /// An administrator moves a partition to other brokers, or calls a move off.
    Reassign,
    /// An administrator has the first replica of a partition lead.
    Elect,
    /// An administrator changes `min.insync.replicas`.
    SetMinimum,
}

impl Fault {
    /// One of the faults that the weights allow, `None` if they allow none.
    pub(crate) fn draw(weights: FaultWeights, chance: &mut Chance) -> Option<Self> {
        let table = weights.table();
        let total: u32 = table.iter().map(|(_, weight)| weight).sum();
        if total == 0 {
            return None;
        }
        let mut ticket = chance.range(0, u64::from(total) - 1) as u32;
        table.into_iter().find_map(|(fault, weight)| {
            if ticket < weight {
                return Some(fault);
            }
            ticket -= weight;
            None
        })
    }
}
