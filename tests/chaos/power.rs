//! The power fails, of all nodes at once or of two of three, and what was not flushed is gone.
//!
//! Each node has a disk of its own. The nodes are killed, their file systems are shut down without the journals being
//! flushed, and the disks are mounted again. What was acknowledged in the default mode was flushed before, and is there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use klamm_client::{Admin, Isolation, NewTopic, OffsetSpec, ProducerOptions};
use klamm_tests::cluster::{Cluster, wait_for};
use klamm_tests::distribution::Distribution;
use klamm_tests::workload::{Verdict, Writers, verify};
use klamm_tests::{disk, skip};
use klamm_types::{PartitionId, TopicName, TopicPartition};
use tokio::time::sleep;

use super::campaign::now;
use super::producers::{CLIENTS, Producers, Tools};
use super::reckoning::reckon;
use super::rig::{Rig, three};
use super::schedule::Chance;
use super::server::Server;
use super::{PARTITIONS, seed};

/// The power fails within so long after everything is well.
const MOMENT_MAX: Duration = Duration::from_secs(1);
/// So much later than the one before it a node comes back, at most.
const RETURN_MAX: Duration = Duration::from_millis(500);
/// How many records of each producer each partition acknowledges before and after the power fails.
const STEP: usize = 20;
/// How many records of each partition wait for the cut that takes what was not flushed.
const RECORDS_MIN: i64 = 200;

/// How the power fails.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Outage {
    /// Of all nodes at once, and all come back.
    All,
    /// Of all nodes at once, and one comes back when the other two serve.
    OneLate,
    /// Of two at once, while the third runs.
    Majority,
    /// Of one, while another is held and out of every in-sync set; then that one goes on, and the third is held.
    BetweenPauses,
}

impl Outage {
    const ALL: [Self; 4] = [Self::All, Self::OneLate, Self::Majority, Self::BetweenPauses];

    const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::OneLate => "all-one-late",
            Self::Majority => "majority",
            Self::BetweenPauses => "between-pauses",
        }
    }
}

/// How many of each.
type Counts = Vec<(Outage, usize)>;

/// `KLAMM_CHAOS_OUTAGES`, such as `all=20,majority=10`, or these.
#[expect(clippy::disallowed_methods, reason = "who starts a long run by hand says what it shall be")]
fn counts(counts: &[(Outage, usize)]) -> Counts {
    let said = std::env::var("KLAMM_CHAOS_OUTAGES").ok().filter(|text| !text.is_empty());
    said.map_or_else(|| counts.to_vec(), |text| read(&text).unwrap())
}

fn read(text: &str) -> Result<Counts, String> {
    let count = |part: &str| {
        let (name, count) = part.split_once('=')?;
        let outage = Outage::ALL.into_iter().find(|outage| outage.name() == name)?;
        Some((outage, count.parse().ok()?))
    };
    text.split(',').map(|part| count(part).ok_or_else(|| format!("no count of outages: {part}"))).collect()
}

#[test]
fn outages_are_counted_by_name() {
    assert_eq!(read("all=2,between-pauses=1"), Ok(vec![(Outage::All, 2), (Outage::BetweenPauses, 1)]));
    assert!(read("all=2,none=1").unwrap_err().contains("none=1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_lose_nothing_that_was_acknowledged_when_the_power_fails() {
    let test = "clients_lose_nothing_that_was_acknowledged_when_the_power_fails";
    run(test, &[(Outage::All, 2), (Outage::Majority, 1)]).await;
}

/// The figures of `docs/benchmarks.md`.
#[ignore = "takes ten minutes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_lose_nothing_in_fifty_power_cuts() {
    let test = "clients_lose_nothing_in_fifty_power_cuts";
    let counts =
        [(Outage::All, 20), (Outage::OneLate, 15), (Outage::Majority, 10), (Outage::BetweenPauses, 5)];
    run(test, &counts).await;
}

/// One cut, and two topics: one waits for the disks, as is the default, the other does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_power_cut_unless_writes_are_cached() {
    let test = "what_was_acknowledged_survives_a_power_cut_unless_writes_are_cached";
    let Some(()) = skip::unless(test, disk::available()) else { return };
    let mut cluster = Cluster::start(&three().on_disks()).await.unwrap();
    let (flushed, cached) = {
        let admin = cluster.admin();
        (topic(&admin, "flushed", "false").await, topic(&admin, "cached", "true").await)
    };
    let client = cluster.client();
    let options = ProducerOptions::default();
    let start = |partitions| Writers::start(&client, &options, partitions, Duration::from_millis(1));
    let writers = [start(&flushed), start(&cached)];
    let queries: Vec<_> = flushed.iter().chain(&cached).map(|at| (at.clone(), OffsetSpec::Latest)).collect();
    let written = wait_for("every partition has records", Duration::from_secs(60), async || {
        for (at, end) in client.offsets(&queries, Isolation::ReadUncommitted).await {
            let end = end.map_err(|error| error.to_string())?.offset.map_or(0, |offset| offset.0);
            if end < RECORDS_MIN {
                return Err(format!("{at} has {end}"));
            }
        }
        Ok(())
    });
    written.await.unwrap();
    let [flushed, cached] = writers;
    let (flushed, cached) = (flushed.stop().await, cached.stop().await);

    let ids: Vec<u16> = cluster.ids().collect();
    cluster.cut_power(&ids).unwrap();
    for id in ids {
        cluster.node(id).restart().unwrap();
    }
    cluster.wait_ready().await.unwrap();
    for name in ["flushed", "cached"] {
        cluster.admin().wait_for_leaders(name).await.unwrap();
    }
    let kept: Verdict = verify(&cluster.client(), &flushed).await.unwrap();
    assert_eq!((kept.finding_count, kept.refused, kept.unknown), (0, 0, 0), "{kept:#?}");
    assert!(kept.acknowledged >= PARTITIONS * RECORDS_MIN as usize, "{kept:?}");
    // Were these there, the cut would take nothing, and no test here could fail.
    let lost = verify(&cluster.client(), &cached).await.unwrap();
    assert!(
        lost.finding_count > 0 && lost.findings.iter().all(|text| text.ends_with("is lost")),
        "{lost:#?}"
    );
    eprintln!("of {} records whose writes were cached, {} are lost", lost.acknowledged, lost.finding_count);
}

async fn topic(admin: &Admin, name: &str, write_caching: &str) -> Vec<TopicPartition> {
    let topic = NewTopic {
        partitions: Some(i32::try_from(PARTITIONS).unwrap()),
        replication_factor: Some(3),
        configs: vec![("write.caching".to_owned(), write_caching.to_owned())],
        ..NewTopic::named(name)
    };
    for (name, result) in admin.create_topics(&[topic], false).await.unwrap() {
        result.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    admin.wait_for_leaders(name).await.unwrap();
    let name = TopicName::new(name).unwrap();
    (0..).take(PARTITIONS).map(|place| TopicPartition::new(name.clone(), PartitionId(place))).collect()
}

struct Blackouts {
    rig: Rig,
    producers: Producers,
    chance: Chance,
    /// The longest time between two acknowledgements, by outage and client.
    gaps: BTreeMap<(Outage, usize), Distribution>,
}

/// Cuts the power so often in each of these ways, in an order of chance, under load, and reckons.
async fn run(test: &str, counts_otherwise: &[(Outage, usize)]) {
    let Some(()) = skip::unless(test, disk::available()) else { return };
    let Some(tools) = skip::unless(test, Tools::install().await) else { return };
    let (seed, counts) = (seed(), counts(counts_otherwise));
    eprintln!("seed {seed}: {counts:?}");
    let cluster = Cluster::start(&three().on_disks()).await.unwrap();
    let rig = Rig::new(Server::Klamm(cluster)).await;
    let producers = Producers::start(&tools, &rig.server).await;
    let mut chance = Chance::new(seed);
    let outages = counts.iter().flat_map(|(outage, count)| std::iter::repeat_n(*outage, *count));
    let outages = chance.shuffled(outages.collect());
    let mut blackouts = Blackouts { rig, producers, chance, gaps: BTreeMap::new() };
    for (number, outage) in outages.into_iter().enumerate() {
        blackouts.outage(number, outage).await;
    }
    let Blackouts { rig, producers, gaps, .. } = blackouts;
    let mut server = rig.server;
    let reckoning = reckon(&mut server, producers).await;
    println!("the longest time between two acknowledgements around an outage:");
    for ((outage, client), gaps) in gaps {
        println!("{:<16}{:<13}{gaps}", outage.name(), CLIENTS[client]);
    }
    println!("{reckoning}");
}

impl Blackouts {
    async fn outage(&mut self, number: usize, outage: Outage) {
        let ids = self.chance.shuffled(self.rig.server.ids());
        // Whoever is held first leads nothing, so that no client waits for its answer.
        let idle = (outage == Outage::BetweenPauses).then_some(ids[0]).into_iter().collect();
        self.rig.arrange(&idle).await;
        self.producers.acknowledge(STEP).await;
        sleep(self.chance.below(MOMENT_MAX)).await;
        let at = match outage {
            Outage::All => self.cut(&ids, &ids).await,
            Outage::OneLate => self.cut(&ids, &ids[1..]).await,
            Outage::Majority => self.cut(&ids[1..], &ids[1..]).await,
            Outage::BetweenPauses => self.cut_between_pauses(&ids).await,
        };
        if outage == Outage::OneLate {
            self.producers.acknowledge(STEP).await;
            self.rig.server.restart(ids[0]);
        }
        self.rig.server.wait_ready().await;
        self.producers.acknowledge(STEP).await;
        let until = now();
        self.rig.arrange(&BTreeSet::new()).await;
        let healed = now();

        let all: Vec<usize> = (0..PARTITIONS).collect();
        let gaps = self.producers.gaps(&all, at, until);
        let name = outage.name();
        eprintln!("{number}: {name}, nodes {ids:?}; gaps {gaps:.0?} ms, in sync after {:.0} ms", healed - at);
        for (client, gap) in gaps.into_iter().enumerate() {
            let gap = Duration::from_secs_f64(gap.max(0.0) / 1_000.0);
            self.gaps.entry((outage, client)).or_default().add(gap);
        }
    }

    /// Cuts the power of some nodes, and starts some of them again, one after the other. Gives the moment of the cut.
    async fn cut(&mut self, victims: &[u16], returning: &[u16]) -> f64 {
        let at = now();
        self.rig.server.klamm().cut_power(victims).unwrap();
        for id in returning {
            sleep(self.chance.below(RETURN_MAX)).await;
            self.rig.server.restart(*id);
        }
        at
    }

    /// Of those who go on in the end, the first was held while records were acknowledged, and the second has lost what it
    /// had not flushed of them.
    async fn cut_between_pauses(&mut self, ids: &[u16]) -> f64 {
        let [first, second, third] = *ids else { panic!("three nodes, not {ids:?}") };
        self.rig.server.klamm().node(first).pause().unwrap();
        self.rig.wait_replaced(first, true).await;
        self.producers.acknowledge(STEP).await;
        let at = now();
        self.rig.server.klamm().cut_power(&[second]).unwrap();
        self.rig.server.klamm().node(first).resume().unwrap();
        self.rig.server.klamm().node(third).pause().unwrap();
        self.rig.server.restart(second);
        self.rig.wait_replaced(third, true).await;
        self.rig.server.klamm().node(third).resume().unwrap();
        at
    }
}
