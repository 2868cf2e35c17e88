//! Which faults come, in which order, and at which moments: all of it follows from a seed.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    /// None: what the machine and the clients do by themselves, for comparison.
    Calm,
    /// `kill -9` of a node that leads, and is not the active controller.
    Leader,
    /// `kill -9` of a node that leads nothing, and is not the active controller.
    Follower,
    /// `kill -9` of a node that leads and is the active controller.
    LeaderAndController,
    /// SIGTERM to a node that leads.
    Term,
    /// SIGSTOP of a node that leads, until its session is over and others lead; then SIGCONT.
    Pause,
    /// `kill -9` of a node that leads, which comes back with an empty disk.
    Wipe,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Calm,
        Self::Leader,
        Self::Follower,
        Self::LeaderAndController,
        Self::Term,
        Self::Pause,
        Self::Wipe,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::LeaderAndController => "leader-and-controller",
            Self::Term => "term",
            Self::Pause => "pause",
            Self::Wipe => "wipe",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How many faults of each kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts(BTreeMap<Kind, usize>);

impl Counts {
    pub(crate) fn of(counts: &[(Kind, usize)]) -> Self {
        Self(counts.iter().copied().collect())
    }
}

impl FromStr for Counts {
    type Err = String;

    /// Reads `leader=200,follower=50`; what is not named does not come.
    fn from_str(text: &str) -> Result<Self, String> {
        let count = |part: &str| {
            let (name, count) = part.split_once('=')?;
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name)?;
            Some((kind, count.parse().ok()?))
        };
        let counts =
            text.split(',').map(|part| count(part).ok_or_else(|| format!("no count of a kind: {part}")));
        counts.collect::<Result<_, _>>().map(Self)
    }
}

/// Chance that repeats itself: `SplitMix64`.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A place in a list of `len`, which is not empty.
    pub(crate) fn place(&mut self, len: usize) -> usize {
        usize::try_from(self.next() % len as u64).unwrap()
    }

    /// A time below `limit`.
    pub(crate) fn below(&mut self, limit: Duration) -> Duration {
        limit.mul_f64((self.next() >> 11) as f64 / (1_u64 << 53) as f64)
    }

    /// All faults, in an order of chance.
    pub(crate) fn order(&mut self, counts: &Counts) -> Vec<Kind> {
        let faults = counts.0.iter().flat_map(|(kind, count)| std::iter::repeat_n(*kind, *count));
        self.shuffled(faults.collect())
    }

    /// The same things in an order of chance.
    pub(crate) fn shuffled<T>(&mut self, mut things: Vec<T>) -> Vec<T> {
        for last in (1..things.len()).rev() {
            let other = self.place(last + 1);
            things.swap(last, other);
        }
        things
    }
}

#[test]
fn a_seed_decides_the_faults() {
    let counts: Counts = "leader=3,term=2".parse().unwrap();
    let order = Chance::new(7).order(&counts);
    assert_eq!(order, Chance::new(7).order(&counts));
    assert_eq!(order.iter().filter(|kind| **kind == Kind::Leader).count(), 3);
    assert_eq!(order.len(), 5);
    assert!((8..40).any(|seed| Chance::new(seed).order(&counts) != order));
    assert!("leader=3,nobody=2".parse::<Counts>().is_err());
}
