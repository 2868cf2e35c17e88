//! What producers and readers do.

use klamm_log::FetchIsolation;
use klamm_types::{BrokerId, PartitionId};

use super::{Happening, World, values};
use crate::message::{Address, Message, ProduceOutcome};

const PRODUCE_TIMEOUT_US: u64 = 2_000_000;

impl World {
    /// A producer sends its batch, for the first time or again, unless it has been answered meanwhile.
    pub(super) fn produce(&mut self, number: usize, attempt: u64) {
        let now = self.scheduler.now();
        let count = self.chance.range(1, 4);
        let producer = &mut self.producers[number];
        if producer.attempt != attempt || (self.healing && producer.in_flight.is_none()) {
            return;
        }
        producer.attempt += 1;
        let batch = producer.batch(count, now);
        let (partition, attempt) = (producer.partition, producer.attempt);
        let image = self.quorum.image(self.quorum.committed());
        let topic = image.topics.topics().next();
        let leader = topic.and_then(|topic| topic.partition(partition)).and_then(|known| known.leader);
        let astray = BrokerId(self.chance.range(1, self.scenario.brokers as u64) as i32);
        // Clients have old metadata now and then.
        let to = if self.chance.per_mille(100) { astray } else { leader.unwrap_or(astray) };
        let message = Message::Produce { producer: number, attempt, partition, batch };
        self.send(Address::Producer(number), Address::Broker(to), message);
        self.scheduler.after(PRODUCE_TIMEOUT_US, Happening::Produce { producer: number, attempt });
    }

    pub(super) fn produced(
        &mut self,
        id: BrokerId,
        (producer, attempt): (usize, u64),
        partition: PartitionId,
        batch: &bytes::Bytes,
    ) {
        let broker = self.broker(id);
        let lease = broker.process.as_ref().map(|process| process.lease_until);
        let hosts = broker.process.as_ref().is_some_and(|p| p.replicas.contains_key(&partition));
        match lease.filter(|_| hosts) {
            Some(lease) => self.with_replica(id, None, partition, |hosted, now, out| {
                hosted.produce(now, lease, (producer, attempt, batch), out);
            }),
            None => {
                let answer = Message::ProduceAnswer { attempt, outcome: ProduceOutcome::Retriable };
                self.send(Address::Broker(id), Address::Producer(producer), answer);
            }
        }
    }

    pub(super) fn produce_answered(&mut self, number: usize, attempt: u64, outcome: ProduceOutcome) {
        let producer = &mut self.producers[number];
        if producer.attempt != attempt {
            return;
        }
        let wait = match outcome {
            ProduceOutcome::Acknowledged(offset, epoch) => {
                producer.acknowledged_by = producer.acknowledged_by.max(epoch);
                let Some(sent) = producer.in_flight.take() else { return };
                self.oracle.acknowledge(producer.partition, offset, &sent.values);
                self.chance.range(500, 60_000)
            }
            ProduceOutcome::Retriable => self.chance.range(10_000, 150_000),
            // A leader that has been replaced and does not know it yet; a client would not have asked it.
            ProduceOutcome::OutOfOrder(epoch) if epoch < producer.acknowledged_by => {
                self.chance.range(10_000, 150_000)
            }
            ProduceOutcome::OutOfOrder(_) => {
                panic!("producer {number} is told that its batches do not continue what was acknowledged")
            }
        };
        // A timer of the attempt is pending too: whichever comes first moves the attempt on.
        self.scheduler.after(wait, Happening::Produce { producer: number, attempt });
    }

    /// A reader reads on, at some replica that serves.
    pub(super) fn read(&mut self) {
        self.scheduler.after(40_000, Happening::Read);
        let now = self.scheduler.now();
        let id = BrokerId(self.chance.range(1, self.scenario.brokers as u64) as i32);
        let partition = PartitionId(self.chance.range(0, self.scenario.partitions as u64 - 1) as i32);
        let broker = &self.brokers[Self::index(id)];
        if broker.paused_until_us > self.scheduler.now_us() {
            return;
        }
        let Some(process) = &broker.process else { return };
        let Some(hosted) = process.replicas.get(&partition) else { return };
        let Ok(bounds) = hosted.replica.read_bounds(now, process.lease_until) else { return };
        let at = usize::try_from(partition.0).unwrap_or(0);
        // Now and then somebody reads everything again.
        let from = if self.chance.per_mille(100) { bounds.log_start_offset } else { self.read_to[at] };
        let Ok(outcome) = hosted.log.read(from, 4_000, FetchIsolation::LogEnd) else { return };
        let Some(bytes) = outcome.slice.and_then(|slice| slice.to_vec().ok()) else { return };
        let mut next = from;
        for (offset, value) in values(&bytes) {
            if offset >= from && offset < bounds.high_watermark {
                self.oracle.observe(partition, offset, value);
                next = offset.next();
            }
        }
        self.read_to[at] = self.read_to[at].max(next);
    }
}
