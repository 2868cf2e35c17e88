//! Where new replicas go.

use std::collections::{BTreeMap, BTreeSet};

use klamm_control::*;
use klamm_metadata::BrokerLoad;
use klamm_types::*;
use proptest::prelude::*;

use crate::context::*;

fn broker(id: i32, rack: Option<&str>, active: bool) -> UsableBroker {
    UsableBroker { id: b(id), rack: rack.map(str::to_owned), active, load: BrokerLoad::default() }
}

#[test]
fn too_few_brokers_are_refused() {
    let mut placer = ReplicaPlacer::new(vec![broker(1, None, true)], &mut SplitMix64::new(1));
    for replication_factor in [0, 2] {
        let error = placer.place(replication_factor).expect_err("too few");
        assert_eq!(error, PlacementError::TooFewBrokers { replication_factor, usable: 1 });
    }
    let mut placer = ReplicaPlacer::new(vec![broker(1, None, false)], &mut SplitMix64::new(1));
    assert_eq!(placer.place(1), Err(PlacementError::NoActiveBroker));
}

#[test]
fn those_who_carry_less_get_more() {
    let mut brokers = vec![broker(1, None, true), broker(2, None, true)];
    brokers[0].load = BrokerLoad { replicas: 10, leaders: 10, preferred: 10 };
    let mut placer = ReplicaPlacer::new(brokers, &mut SplitMix64::new(1));
    for _ in 0..10 {
        assert_eq!(placer.place(1).expect("possible").replicas, [b(2)]);
    }
}

proptest! {
    #[test]
    fn placement_is_spread_over_brokers_and_racks(
        racks in prop::collection::vec(0..4u8, 1..12),
        fenced in prop::collection::vec(any::<bool>(), 12),
        factor in 1..6usize,
        partitions in 1..40usize,
        seed: u64,
    ) {
        let brokers: Vec<_> = racks.iter().enumerate().map(|(i, rack)| {
            let rack = (*rack > 0).then(|| rack.to_string());
            UsableBroker { id: b(i as i32), rack, active: i == 0 || !fenced[i], load: BrokerLoad::default() }
        }).collect();
        let by_id: BTreeMap<_, _> = brokers.iter().map(|broker| (broker.id, broker.clone())).collect();
        let all_racks: BTreeSet<_> = brokers.iter().map(|broker| broker.rack.clone()).collect();
        let mut placer = ReplicaPlacer::new(brokers.clone(), &mut SplitMix64::new(seed));
        let mut again = ReplicaPlacer::new(brokers.clone(), &mut SplitMix64::new(seed));
        let factor = factor.min(brokers.len());
        let mut leads: BTreeMap<BrokerId, usize> = BTreeMap::new();
        for _ in 0..partitions {
            let placement = placer.place(factor).expect("there are brokers enough");
            prop_assert_eq!(&placement, &again.place(factor).expect("equal inputs"));
            let replicas = placement.replicas;
            let distinct: BTreeSet<_> = replicas.iter().collect();
            prop_assert_eq!(distinct.len(), factor);
            prop_assert!(by_id[&replicas[0]].active);
            let racks: BTreeSet<_> = replicas.iter().map(|id| by_id[id].rack.clone()).collect();
            prop_assert_eq!(racks.len(), factor.min(all_racks.len()));
            *leads.entry(replicas[0]).or_default() += 1;
        }
        let active = brokers.iter().filter(|broker| broker.active);
        let counts: Vec<_> = active.map(|broker| leads.get(&broker.id).copied().unwrap_or(0)).collect();
        let (least, most) = (counts.iter().min(), counts.iter().max());
        prop_assert!(most <= least.map(|least| least + 1).as_ref(), "{:?}", counts);
    }
}
