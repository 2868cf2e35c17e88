//! Epochs: counters that only grow and tell old truth from new.

use std::fmt;

macro_rules! epoch {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub $int);

        impl $name {
            /// The wire value for "no epoch known" (-1).
            pub const NONE: Self = Self(-1);

            /// The epoch that follows this one, or `None` when the counter is exhausted.
            #[must_use]
            pub fn next(self) -> Option<Self> {
                self.0.checked_add(1).map(Self)
            }

            /// Moves forward to `to` and tells whether that changed anything; never moves back.
            pub fn advance_to(&mut self, to: Self) -> bool {
                let grows = to > *self;
                if grows {
                    *self = to;
                }
                grows
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

epoch!(
    /// Counts the leaders of one partition. At most one replica accepts writes in each (KIP-101).
    LeaderEpoch(i32)
);
epoch!(
    /// Counts every change of one partition's registration: leader, in-sync set, reassignment (KIP-497).
    PartitionEpoch(i32)
);
epoch!(
    /// Names one incarnation of a broker: the metadata log offset of its registration (KIP-631).
    BrokerEpoch(i64)
);
epoch!(
    /// Counts the leaders of the transaction log partition whose coordinator wrote a marker (KIP-98).
    CoordinatorEpoch(i32)
);
epoch!(
    /// Counts the incarnations of one producer id; an older one is fenced (KIP-98, KIP-360).
    ProducerEpoch(i16)
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_only_advances() {
        let mut epoch = LeaderEpoch(3);
        assert!(!epoch.advance_to(LeaderEpoch(2)));
        assert!(epoch.advance_to(LeaderEpoch(5)));
        assert_eq!(epoch, LeaderEpoch(5));
    }

    #[test]
    fn an_exhausted_epoch_has_no_next() {
        assert_eq!(ProducerEpoch(i16::MAX).next(), None);
        assert_eq!(ProducerEpoch::NONE.next(), Some(ProducerEpoch(0)));
    }
}
