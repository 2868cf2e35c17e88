//! What 10,000 and 100,000 partitions cost.

use super::*;

pub(super) fn run(scale: Scale) {
    for count in [10_000, 100_000] {
        measure(count / scale.divisor as i32);
    }
}

fn measure(count: i32) {
    let dir = tempfile::tempdir().unwrap();
    let options = ManagerOptions {
        open_files_max: 4000,
        ..ManagerOptions::new(vec![dir.path().to_owned()], BrokerId(1), "bench")
    };
    let config = Arc::new(LogConfig::default());
    let open =
        || LogManager::open(Arc::new(RealFs), options.clone(), &|_| Arc::clone(&config), NOW).unwrap().0;
    let manager = open();
    let bytes = batch(2000);
    let before = resident_bytes();
    let created = seconds(|| {
        for i in 0..count {
            let partition = TopicPartition::new(TopicName::new("bench").unwrap(), PartitionId(i));
            manager.create(&partition, TopicId([1; 16]), Arc::clone(&config), NOW).unwrap();
        }
    });
    let empty = per_partition(before, count);
    let logs = manager.logs();
    let appended = seconds(|| {
        for log in &logs {
            append_again(log, &bytes);
        }
    });
    let open_partition = per_partition(before, count);
    let open_files = manager.open_files();
    let idle_time = seconds(|| {
        // Each tick asks; the flush threads do. A file that the cache had closed needs no rest.
        let mut later = 120_000;
        while manager.open_files() > 0 {
            manager.tick(NOW.plus_millis(later)).unwrap();
            std::thread::sleep(Duration::from_millis(10));
            later += 1000;
        }
    });
    let idle = per_partition(before, count);
    println!(
        "{count} partitions: create {:.0} us each, first append {:.0} us; resident bytes each: new {empty}, written \
         {open_partition} ({open_files} files open), idle {idle} ({} files open); going idle {:.0} us each",
        1e6 * created / f64::from(count),
        1e6 * appended / f64::from(count),
        manager.open_files(),
        1e6 * idle_time / f64::from(count),
    );
    // Everything that is due at times is due now; the next tick has nothing to do.
    manager.tick(NOW.plus_millis(10_000_000)).unwrap();
    let tick = seconds(|| manager.tick(NOW.plus_millis(10_001_000)).unwrap());
    drop(logs);
    let closed = seconds(|| manager.shut_down(BrokerEpoch(1)).unwrap());
    let before = resident_bytes();
    let mut manager = None;
    let reopened = seconds(|| manager = Some(open()));
    let loaded = per_partition(before, count);
    println!(
        "    idle tick {:.1} ms; orderly shutdown {closed:.1} s; start {reopened:.2} s, {:.0} us and {loaded} bytes each",
        1e3 * tick,
        1e6 * reopened / f64::from(count),
    );
}

fn per_partition(before: u64, count: i32) -> u64 {
    resident_bytes().saturating_sub(before) / count.max(1) as u64
}

/// Memory that the process has resident.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = status.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
