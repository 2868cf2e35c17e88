//! What was promised, and whether it is kept. Checked after every action.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use klamm_replica::{Acknowledged, AppendError, AppendTicket};
use klamm_types::{LeaderEpoch, Offset};

use super::disk::Log;
use super::{Cluster, Entry, Node};

/// What clients were told, and what they may have seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Oracle {
    requested: BTreeMap<AppendTicket, u32>,
    /// By offset: what was below some replica's high watermark.
    committed: BTreeMap<usize, Entry>,
    /// By value: the offset told with an acknowledgement.
    acknowledged: BTreeMap<u32, usize>,
    /// Values of which the client was told that they were not appended.
    refused: Vec<u32>,
    /// By leader epoch: who led.
    leaders: BTreeMap<LeaderEpoch, klamm_types::BrokerId>,
}

/// Tickets only name what is pending in the replicas.
impl Hash for Oracle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.committed, &self.acknowledged).hash(state);
    }
}

impl Oracle {
    pub(crate) fn on_requested(&mut self, ticket: AppendTicket, value: u32) {
        self.requested.insert(ticket, value);
    }

    pub(crate) fn on_completed(&mut self, ticket: AppendTicket, outcome: Result<Acknowledged, AppendError>) {
        let value = self.requested.remove(&ticket).expect("an append is completed once");
        match outcome {
            Ok(acknowledged) => {
                let offset = usize::try_from(acknowledged.base_offset.0).expect("offsets are not negative");
                self.acknowledged.insert(value, offset);
            }
            Err(error) if error.is_definite() => self.refused.push(value),
            Err(_) => {}
        }
    }

    /// Values acknowledged so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Offsets that were committed so far.
    pub(crate) fn committed(&self) -> usize {
        self.committed.len()
    }
}

impl Cluster {
    /// Takes note of what is visible now and checks every property that spans replicas.
    ///
    /// # Errors
    /// The property that is broken.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        self.note_visible()?;
        for (value, &offset) in &self.oracle.acknowledged {
            match self.oracle.committed.get(&offset) {
                Some(entry) if entry.value == *value => {}
                other => return Err(format!("R-4: {value} acknowledged at {offset}, where {other:?} is")),
            }
        }
        let alive: Vec<&Node> = self.nodes.values().filter(|node| node.replica.is_some()).collect();
        for node in &alive {
            self.check_node(node)?;
        }
        for (i, a) in alive.iter().enumerate() {
            for b in &alive[i + 1..] {
                log_matching(&a.log, &b.log).map_err(|why| format!("R-3: {} and {}: {why}", a.id, b.id))?;
            }
        }
        self.check_candidates()
    }

    fn note_visible(&mut self) -> Result<(), String> {
        for node in self.nodes.values() {
            let Some(replica) = &node.replica else { continue };
            if replica.is_leader() {
                let first = *self.oracle.leaders.entry(replica.leader_epoch()).or_insert(node.id);
                if first != node.id {
                    return Err(format!(
                        "R-1: {first} and {} lead epoch {}",
                        node.id,
                        replica.leader_epoch()
                    ));
                }
            }
            let high_watermark = usize::try_from(replica.log().high_watermark().0).unwrap_or(0);
            for offset in node.log.start..high_watermark {
                let Some(entry) = node.log.get(offset) else {
                    return Err(format!("INV9: {} holds no {offset} below its high watermark", node.id));
                };
                let seen = *self.oracle.committed.entry(offset).or_insert(entry);
                if seen != entry {
                    return Err(format!("INV5: {seen:?} was at {offset}, {} shows {entry:?}", node.id));
                }
            }
        }
        Ok(())
    }

    fn check_node(&self, node: &Node) -> Result<(), String> {
        let Some(replica) = &node.replica else { return Ok(()) };
        let position = replica.log();
        let id = node.id;
        if position.log_end_offset().0 != node.log.end() as i64
            || position.log_start_offset().0 != node.log.start as i64
        {
            return Err(format!("INV9: {id} believes {position:?}, its log is {:?}", node.log));
        }
        for offset in node.log.start..node.log.end() {
            let cached = position.epochs().epoch_at(Offset(offset as i64));
            if cached != node.log.get(offset).map(|entry| entry.epoch) {
                return Err(format!("INV10: {id} takes {offset} for epoch {cached:?}: {:?}", node.log));
            }
        }
        if let Some(&value) = self.oracle.refused.iter().find(|&&v| holds(&node.log, v)) {
            return Err(format!("D5: {id} holds {value}, which was refused"));
        }
        if self.active_leader() == Some(id) {
            self.holds_committed(&node.log).map_err(|why| format!("INV1: leader {id} {why}"))?;
            let Some(isr) = replica.isr() else { return Ok(()) };
            let candidates = self.controller.isr.union(&self.controller.elr);
            let missing: Vec<_> = candidates.filter(|member| !isr.maximal().contains(member)).collect();
            let required = self.setup.min_in_sync_replicas.min(self.nodes.len());
            if isr.committed().len() >= required && !missing.is_empty() {
                return Err(format!("INV3: leader {id} does not wait for {missing:?}"));
            }
        }
        Ok(())
    }

    /// INV2 and INV13: whoever may be elected holds all that was ever committed, now and after a crash.
    fn check_candidates(&self) -> Result<(), String> {
        let candidates = self.controller.isr.union(&self.controller.elr);
        for node in candidates.map(|id| self.node(*id)).filter(|node| !node.disk_lost) {
            let survives = match self.setup.durability {
                klamm_replica::Durability::Flushed => &node.durable,
                klamm_replica::Durability::PageCache => &node.log,
            };
            for log in [survives, &node.log] {
                self.holds_committed(log).map_err(|why| format!("INV2: candidate {} {why}", node.id))?;
            }
        }
        Ok(())
    }

    fn holds_committed(&self, log: &Log) -> Result<(), String> {
        for (&offset, entry) in self.oracle.committed.range(log.start..) {
            if log.get(offset) != Some(*entry) {
                return Err(format!("lacks {entry:?} at {offset}: {log:?}"));
            }
        }
        Ok(())
    }
}

fn holds(log: &Log, value: u32) -> bool {
    log.entries.iter().any(|entry| entry.value == value)
}

/// Two logs that agree on (offset, epoch) agree on everything before.
fn log_matching(a: &Log, b: &Log) -> Result<(), String> {
    let (start, end) = (a.start.max(b.start), a.end().min(b.end()));
    let mut agreed = false;
    for offset in (start..end).rev() {
        let (of_a, of_b) = (a.get(offset), b.get(offset));
        agreed |= of_a.map(|entry| entry.epoch) == of_b.map(|entry| entry.epoch);
        if agreed && of_a != of_b {
            return Err(format!("{of_a:?} and {of_b:?} at {offset}"));
        }
    }
    Ok(())
}
