//! How long a failover takes: figures for `docs/benchmarks.md`, run by hand on an idle machine.

use std::time::Duration;

use tokio::time::Instant;

use crate::fixture::*;

pub(crate) fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    println!(
        "{what}: n={} p50={:?} p90={:?} p99={:?} max={:?}",
        times.len(),
        at(50),
        at(90),
        at(99),
        at(100)
    );
}

#[test]
#[ignore = "a measurement, which needs an idle machine"]
fn time_from_the_death_of_the_active_controller_to_the_next_accepted_change() {
    let mut cluster =
        Cluster::start_with(3, |options| options.timing = klamm_controller::RaftTiming::default());
    let mut times = Vec::new();
    for round in 0..50 {
        accepted(cluster.submit(set("m", "k", &round.to_string())));
        for id in 1..=3 {
            cluster.wait_for(id, |status| status.leader.is_some() && status.is_ready);
        }
        let active = cluster.active();
        // The sockets close within the call, as the kernel closes those of a killed process.
        let killed = Instant::now();
        cluster.kill(active);
        accepted(cluster.submit(set("m", "k", &active.to_string())));
        times.push(killed.elapsed());
        cluster.start_node(active);
    }
    report("kill of the active controller to the next accepted change", times);
}

#[test]
#[ignore = "a measurement, which needs an idle machine"]
fn time_from_the_death_of_a_broker_to_its_committed_fencing() {
    let cluster = Cluster::start(3);
    let _other = cluster.broker(1);
    let mut times = Vec::new();
    for id in 2..22 {
        let victim = cluster.broker(id);
        // Within a second evidence fences only a minority, which of two is one.
        std::thread::sleep(Duration::from_millis(1_100));
        times.push(cluster.time_to_fence(victim, id));
    }
    report("kill of a broker to its committed fencing", times);
}

#[test]
#[ignore = "a measurement, which needs an idle machine"]
fn rate_of_changes() {
    for nodes in [1, 3] {
        let cluster = Cluster::start(nodes);
        cluster.active();
        let started = Instant::now();
        let count = 2_000;
        for number in 0..count {
            // A value that is there already would change nothing, and add no entry.
            let (key, value) = (format!("k{}", number % 100), number.to_string());
            accepted(cluster.submit(set("m", &key, &value)));
        }
        let each = started.elapsed() / count;
        println!("{nodes} controllers: one change after the other takes {each:?}");
    }
}
