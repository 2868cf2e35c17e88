//! Delay, loss, duplication, and links that carry nothing for a while.

use std::collections::BTreeMap;

use crate::chance::Chance;
use crate::message::{Address, Message};
use crate::scenario::Scenario;

#[derive(Debug, Default)]
pub(crate) struct Network {
    /// Until when nothing gets from one place to another, in microseconds.
    cuts: BTreeMap<(Address, Address), u64>,
    healed: bool,
}

impl Network {
    pub(crate) fn cut(&mut self, from: Address, to: Address, until_us: u64) {
        let until = self.cuts.entry((from, to)).or_default();
        *until = until_us.max(*until);
    }

    /// Whether any link carries nothing.
    pub(crate) fn is_cut(&self, now_us: u64) -> bool {
        self.cuts.values().any(|until| *until > now_us)
    }

    /// No more faults.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
        self.cuts.clear();
    }

    /// After which delays, in microseconds, a message arrives: never, once or twice.
    pub(crate) fn route(
        &self,
        (from, to): (Address, Address),
        message: &Message,
        now_us: u64,
        (scenario, chance): (&Scenario, &mut Chance),
    ) -> Vec<u64> {
        let (low, high) = scenario.delay_us;
        let delay = chance.range(low, high);
        if self.healed {
            return vec![delay];
        }
        let is_cut = self.cuts.get(&(from, to)).is_some_and(|until| *until > now_us);
        if is_cut || chance.per_mille(scenario.loss) {
            return Vec::new();
        }
        // The transport delivers a proposal at most once; its resends are the replica's own (replication.md, 8).
        let once = matches!(message, Message::Propose { .. });
        if !once && chance.per_mille(scenario.duplication) {
            return vec![delay, delay + chance.range(0, 50 * high)];
        }
        vec![delay]
    }
}
