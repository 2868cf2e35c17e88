//! The session streams of brokers.

use std::collections::BTreeMap;

use klamm_types::{BrokerEpoch, BrokerId, Timestamp};

/// What happens to session streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SessionEvent {
    /// A broker's first heartbeat came on stream number `stream`.
    Opened {
        /// The broker.
        broker: BrokerId,
        /// The registration that it beats for.
        epoch: BrokerEpoch,
        /// Unique in this process.
        stream: u64,
    },
    /// The stream has ended.
    Ended {
        /// The broker.
        broker: BrokerId,
        /// The registration that it beat for.
        epoch: BrokerEpoch,
        /// As when it was opened.
        stream: u64,
    },
}

/// The newest stream of each broker, and when it was last heard.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    streams: BTreeMap<BrokerId, Stream>,
}

#[derive(Debug)]
struct Stream {
    epoch: BrokerEpoch,
    number: u64,
}

impl Sessions {
    /// A broker is there, by a stream that replaces any other, but for one of a later registration: an earlier process
    /// with that id may live on for a while.
    pub(crate) fn open(&mut self, broker: BrokerId, epoch: BrokerEpoch, number: u64) {
        if self.streams.get(&broker).is_none_or(|stream| stream.epoch <= epoch) {
            self.streams.insert(broker, Stream { epoch, number });
        }
    }

    /// Tells whether the broker has no stream any more: a stream that was replaced ends without meaning.
    pub(crate) fn end(&mut self, broker: BrokerId, epoch: BrokerEpoch, number: u64) -> bool {
        let current = |stream: &Stream| stream.epoch == epoch && stream.number == number;
        if self.streams.get(&broker).is_some_and(current) {
            self.streams.remove(&broker);
            return true;
        }
        false
    }
}

/// When each broker was last heard, in wall-clock time: for `DescribeQuorum` alone.
#[derive(Debug, Default)]
pub(crate) struct LastHeard(BTreeMap<BrokerId, Timestamp>);

impl LastHeard {
    pub(crate) fn note(&mut self, broker: BrokerId, at: Timestamp) {
        self.0.insert(broker, at);
    }

    pub(crate) fn of(&self, broker: BrokerId) -> Timestamp {
        self.0.get(&broker).copied().unwrap_or(Timestamp::NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_the_newest_stream_counts() {
        let (broker, epoch) = (BrokerId(1), BrokerEpoch(7));
        let mut sessions = Sessions::default();
        sessions.open(broker, epoch, 1);
        sessions.open(broker, epoch, 2);
        sessions.open(broker, BrokerEpoch(6), 3);
        assert!(!sessions.end(broker, epoch, 1), "it was replaced");
        assert!(!sessions.end(broker, BrokerEpoch(6), 2), "an older registration");
        assert!(sessions.end(broker, epoch, 2));
        assert!(!sessions.end(broker, epoch, 2), "it has ended already");
    }
}
