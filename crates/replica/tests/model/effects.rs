//! The body: carries out what a replica wants done.

use klamm_replica::{
    Acks, AppendRequest, AppendTicket, DeletionRequest, Effect, Effects, Event, FetchAnswer, FetchTicket,
    FetchedRecords, FollowerFetch,
};
use klamm_types::{BrokerId, Offset, Timestamp};

use super::disk::Entry;
use super::{Cluster, Message, Proposal};

fn index(offset: Offset) -> usize {
    usize::try_from(offset.0).expect("offsets are not negative")
}

impl Cluster {
    /// Gives an event to a running replica and carries out what follows from it.
    pub(crate) fn feed(&mut self, id: BrokerId, event: Event) {
        let mut effects = Effects::new();
        let now = self.now;
        let Some(replica) = &mut self.node_mut(id).replica else { return };
        replica.step(now, event, &mut effects);
        self.run(id, effects);
    }

    fn run(&mut self, id: BrokerId, mut effects: Effects) {
        let queue: Vec<Effect> = effects.drain().collect();
        for effect in queue {
            self.execute(id, effect);
        }
    }

    fn execute(&mut self, id: BrokerId, effect: Effect) {
        match effect {
            Effect::Append { ticket, leader_epoch } => {
                let node = self.node_mut(id);
                let base_offset = Offset(node.log.end() as i64);
                let value = node.appending;
                node.log.entries.push(Entry { epoch: leader_epoch, value });
                self.feed(id, Event::Appended { ticket, base_offset, end_offset: base_offset.next() });
            }
            Effect::AppendAsFollower { .. } => {
                let node = self.node_mut(id);
                let records = std::mem::take(&mut node.arriving);
                node.log.entries.extend(records);
                let log_end_offset = Offset(node.log.end() as i64);
                self.feed(id, Event::AppendedAsFollower { log_end_offset });
            }
            Effect::TruncateTo { offset } => {
                self.node_mut(id).log.truncate(index(offset));
                self.feed(id, Event::Truncated { log_end_offset: offset });
            }
            Effect::TruncateFullyAndStartAt { offset } => {
                self.node_mut(id).log.restart(index(offset));
                self.feed(id, Event::Truncated { log_end_offset: offset });
            }
            Effect::Flush(token) => self.begin_flush(id, token),
            Effect::AdvanceLogStart(offset) => self.node_mut(id).log.advance_start(index(offset)),
            Effect::Fetch { id: fetch_id, leader, fetch } => {
                let node = self.node_mut(id);
                node.outstanding_fetch = Some(fetch_id);
                let incarnation = node.incarnation;
                self.wire.push(Message::Fetch { from: id, to: leader, id: fetch_id, incarnation, fetch });
            }
            Effect::CancelFetch(_) => self.node_mut(id).outstanding_fetch = None,
            Effect::ProposeIsr(proposal) => {
                let node = self.node_mut(id);
                node.outstanding_proposal = Some(proposal.id);
                let (proposal_id, incarnation) = (proposal.id, node.incarnation);
                let proposal = Proposal(proposal);
                self.wire.push(Message::Proposal { from: id, incarnation, proposal_id, proposal });
            }
            Effect::CompleteAppend { ticket, outcome } => self.oracle.on_completed(ticket, outcome),
            Effect::RaiseAlarm(alarm) => panic!("broker {id} raises an alarm: {alarm}"),
            Effect::LowerHighWatermark(to) => panic!("broker {id} lowers its high watermark to {to}"),
            // Answered where the fetch is delivered.
            Effect::AnswerFetch { .. } | Effect::RefuseFetch { .. } => {
                panic!("an answer to a fetch that was not delivered")
            }
            Effect::RecordEpochStart(_)
            | Effect::AdvanceLogEnd(_)
            | Effect::AdvanceHighWatermark(_)
            | Effect::CompleteDeletion { .. } => {}
        }
    }

    fn begin_flush(&mut self, id: BrokerId, token: klamm_replica::FlushToken) {
        let node = self.node_mut(id);
        let snapshot = node.log.clone();
        match node.flushes.last_mut() {
            // One that has not begun is extended.
            Some(last) if last.0.generation == token.generation => *last = (token, snapshot),
            _ => node.flushes.push((token, snapshot)),
        }
        if self.setup.instant_flush {
            self.complete_flush(id);
        }
    }

    /// The oldest flush of a broker is done.
    pub(crate) fn complete_flush(&mut self, id: BrokerId) {
        let node = self.node_mut(id);
        if node.flushes.is_empty() {
            return;
        }
        let (token, snapshot) = node.flushes.remove(0);
        node.durable = snapshot;
        self.feed(id, Event::Flushed(token));
    }

    /// A client appends the next value with acks=all.
    pub(crate) fn append(&mut self, id: BrokerId, deadline: Timestamp) {
        self.next_ticket += 1;
        let ticket = AppendTicket(self.next_ticket);
        self.used.values += 1;
        let value = self.used.values;
        self.node_mut(id).appending = value;
        self.oracle.on_requested(ticket, value);
        let lease_until = Timestamp(i64::MAX);
        let request = AppendRequest { ticket, acks: Acks::All, leader_epoch: None, deadline, lease_until };
        self.feed(id, Event::AppendRequested(request));
    }

    /// Retention deletes all that the broker knows to be committed but the last record.
    pub(crate) fn delete_committed(&mut self, id: BrokerId) {
        let Some(replica) = &self.nodes[&id].replica else { return };
        let offset = Offset(replica.log().high_watermark().0 - 1);
        let request = DeletionRequest { ticket: None, offset, deadline: Timestamp(i64::MAX) };
        self.feed(id, Event::DeletionRequested(request));
    }

    /// Hands a message to whom it is for.
    pub(crate) fn deliver(&mut self, message: Message) {
        match message {
            Message::Fetch { from, to, id, incarnation, fetch } => {
                let (answer, records) = self.serve(to, fetch);
                let reply = Message::FetchReply { to: from, id, incarnation, answer, records };
                if self.setup.instant_replies {
                    self.deliver(reply);
                } else {
                    self.wire.push(reply);
                }
            }
            Message::FetchReply { to, id, incarnation, answer, records } => {
                let node = self.node_mut(to);
                if node.incarnation != incarnation || node.replica.is_none() {
                    return;
                }
                if node.outstanding_fetch == Some(id) {
                    node.outstanding_fetch = None;
                }
                node.arriving = records;
                self.feed(to, Event::FetchAnswered { fetch: id, answer });
                self.node_mut(to).arriving.clear();
            }
            Message::Proposal { from, incarnation, proposal_id, proposal } => {
                let answer = self.controller.alter(from, &proposal.0);
                self.wire.push(Message::ProposalReply { to: from, incarnation, id: proposal_id, answer });
            }
            Message::ProposalReply { to, incarnation, id, answer } => {
                let node = self.node_mut(to);
                if node.incarnation == incarnation && node.replica.is_some() {
                    if node.outstanding_proposal == Some(id) {
                        node.outstanding_proposal = None;
                    }
                    self.feed(to, Event::IsrProposalAnswered { proposal: id, answer });
                }
            }
        }
    }

    /// The leader's side of a fetch, with the read.
    fn serve(&mut self, to: BrokerId, fetch: FollowerFetch) -> (FetchAnswer, Vec<Entry>) {
        let mut effects = Effects::new();
        let now = self.now;
        let Some(replica) = &mut self.node_mut(to).replica else {
            return (FetchAnswer::Unreachable, Vec::new());
        };
        replica.step(now, Event::FollowerFetched { ticket: FetchTicket(0), fetch }, &mut effects);
        let mut answer = None;
        let queue: Vec<Effect> = effects.drain().collect();
        for effect in queue {
            match effect {
                Effect::AnswerFetch { bounds, .. } => {
                    let (from, end) = (index(bounds.offset), index(bounds.log_end_offset));
                    let log = &self.nodes[&to].log;
                    let records = (from..end).map(|offset| log.get(offset).expect("read within bounds"));
                    let records: Vec<Entry> = records.collect();
                    let fetched = FetchedRecords {
                        end_offset: bounds.log_end_offset,
                        epoch_starts: log.epoch_starts(from, end),
                        high_watermark: bounds.high_watermark,
                        log_start_offset: bounds.log_start_offset,
                    };
                    answer = Some((FetchAnswer::Records(fetched), records));
                }
                Effect::RefuseFetch { refusal, .. } => {
                    answer = Some((FetchAnswer::Refused(refusal), Vec::new()));
                }
                other => self.execute(to, other),
            }
        }
        answer.expect("every fetch is answered")
    }
}
