//! Every client creates a topic, writes it in every way that it knows, and reads its own and all others'.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{SystemTime, UNIX_EPOCH};

use klamm_tests::cluster::Cluster;
use klamm_tests::requests::{self, Record, Requests, Versions};
use klamm_tests::{skip, workload};
use klamm_types::TopicPartition;
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::Instant;

use super::batches::{judge_way, middle_of_batch, on_disk};
use super::client::{CLIENTS, Driver};
use super::judge::{Truth, by_read, expected, judge_read, judge_written, seen};
use super::records::{few_records, records, to_file};
use super::work::{CreateWork, From, PARTITIONS, ProduceWork, ReadLine, ReadWork, TAIL, Written, at, ways};
use super::{bootstrap, tail, three};

const TEST: &str = "every_client_reads_what_every_client_wrote";

#[tokio::test(flavor = "multi_thread")]
async fn every_client_reads_what_every_client_wrote() {
    let (readers, writers): (Vec<_>, Vec<_>) =
        installed().await.into_iter().partition(|driver| driver.client.reads);
    let drivers: Vec<_> = readers.iter().chain(&writers).cloned().collect();
    let mut cluster = Cluster::start(&three()).await.unwrap();
    let begun = Instant::now();
    let step = |what: &str| println!("{what}: {:.1} s", begun.elapsed().as_secs_f64());

    let mut asked = Asked::default();
    for driver in &drivers {
        asked.during(&cluster, driver, create(driver.clone(), bootstrap(&cluster))).await;
    }
    for driver in &drivers {
        let topic = cluster.admin().wait_for_leaders(driver.client.name).await.unwrap();
        let replicas: Vec<_> = topic.partitions.iter().map(|partition| partition.replicas.len()).collect();
        assert_eq!(replicas, [3; PARTITIONS as usize], "{}", driver.client.name);
    }
    step("topics are created");

    let start = now_ms();
    let mut written = for_each(&readers, |driver| produce(driver, bootstrap(&cluster))).await;
    for driver in &writers {
        written.push(asked.during(&cluster, driver, produce(driver.clone(), bootstrap(&cluster))).await);
    }
    let sent_within = start..=now_ms();
    step("records are written");

    let partitions = drivers.iter().flat_map(|driver| {
        let name = driver.client.name;
        ways(&driver.client).map(|(partition, ..)| at(name, partition)).chain([at(name, TAIL)])
    });
    let logs = workload::read_all(&cluster.client(), partitions).await.unwrap();
    let truth: Truth = logs.into_iter().map(|(at, log)| (at, log.iter().map(seen).collect())).collect();
    for (driver, told) in drivers.iter().zip(&written) {
        check_written(driver, told, &truth, &sent_within);
    }
    let mut reads = Vec::new();
    for driver in &drivers {
        let middles = check_batches(&mut cluster, driver).await;
        reads.push(own_reads(driver, &middles, &truth));
    }
    step("what was written is as it was asked for");

    let all: Vec<_> = drivers.iter().map(|driver| driver.client.name).collect();
    let works = reads.into_iter().map(|own| numbered(own, &all, &truth));
    let works: Vec<_> = readers.iter().cloned().zip(works).collect();
    let truth = &truth;
    for_each(&works, |(driver, work)| {
        let (bootstrap, truth) = (bootstrap(&cluster), truth.clone());
        async move { read(&driver, &bootstrap, &work, &truth).await }
    })
    .await;
    step("what was written is read by all");

    for driver in &readers {
        asked.during(&cluster, driver, tail::read_from_end(driver.clone(), bootstrap(&cluster))).await;
    }
    step("what is written later is read from the end");
    asked.check();
}

/// What each client asked for while it was alone.
#[derive(Default)]
struct Asked(BTreeMap<&'static str, Versions>);

impl Asked {
    async fn during<T>(&mut self, cluster: &Cluster, driver: &Driver, work: impl Future<Output = T>) -> T {
        let before = Requests::settled(cluster).await.unwrap();
        let done = work.await;
        let asked = Requests::settled(cluster).await.unwrap().since(&before);
        requests::add(self.0.entry(driver.client.name).or_default(), asked);
        done
    }

    /// Compares it with the record.
    fn check(&self) {
        let faults: Vec<_> =
            self.0.iter().filter_map(|(client, asked)| Record::check(client, asked).err()).collect();
        assert!(faults.is_empty(), "{faults:?}");
    }
}

/// The drivers of all clients that can be had, installed side by side; the others are reported as skipped.
async fn installed() -> Vec<Driver> {
    let tasks = CLIENTS.map(|client| (client, spawn_blocking(move || client.driver())));
    let mut drivers = Vec::new();
    for (client, task) in tasks {
        drivers.extend(skip::unless(&format!("{TEST} ({})", client.name), task.await.unwrap()));
    }
    drivers
}

/// Lets all do the same, a few at a time, and gives what came of it in their order.
async fn for_each<T: Clone, F>(all: &[T], work: impl Fn(T) -> F) -> Vec<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    const AT_ONCE: usize = 3;
    let mut running = JoinSet::new();
    let mut done = Vec::new();
    for (place, one) in all.iter().enumerate() {
        if running.len() == AT_ONCE {
            done.extend(running.join_next().await.map(output_of));
        }
        let future = work(one.clone());
        running.spawn(async move { (place, future.await) });
    }
    while let Some(one) = running.join_next().await {
        done.push(output_of(one));
    }
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, output)| output).collect()
}

/// What a task gave; if it failed, so does the test, in the same words.
fn output_of<T>(joined: Result<T, JoinError>) -> T {
    joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn now_ms() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "clients stamp records by the machine's clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

async fn create(driver: Driver, bootstrap: String) {
    let topic = driver.client.name.to_owned();
    let work = [CreateWork { topic, partitions: PARTITIONS, replication: 3 }];
    driver.run::<serde_json::Value>("create", &bootstrap, &work).await;
}

async fn produce(driver: Driver, bootstrap: String) -> Vec<Written> {
    let client = driver.client;
    let topic = client.name.to_owned();
    let mut files = Vec::new();
    let mut work = Vec::new();
    for (partition, codec, idempotent) in ways(&client) {
        let file = to_file(&records(&client, partition));
        let records = file.path().display().to_string();
        work.push(ProduceWork { topic: topic.clone(), partition, codec, idempotent, records });
        files.push(file);
    }
    let file = to_file(&few_records(&client));
    let records = file.path().display().to_string();
    let codec = client.codecs[0];
    work.push(ProduceWork { topic, partition: TAIL, codec, idempotent: false, records });
    let begun = Instant::now();
    let written = driver.run("produce", &bootstrap, &work).await;
    println!("{} wrote in {} ways in {:.1} s", client.name, work.len(), begun.elapsed().as_secs_f64());
    written
}

/// Compares what the client's partitions hold with what it was asked to write.
fn check_written(driver: &Driver, told: &[Written], truth: &Truth, sent_within: &RangeInclusive<i64>) {
    let client = &driver.client;
    let name = client.name;
    let asked = ways(client).map(|(partition, ..)| (partition, records(client, partition)));
    for (partition, asked) in asked.chain([(TAIL, few_records(client))]) {
        let told = told.iter().filter(|written| written.topic == name && written.partition == partition);
        let places: Vec<_> = told.map(|written| written.offset).collect();
        assert!(
            !client.tells_offsets || places.iter().all(Option::is_some),
            "{name}-{partition}: {places:?}"
        );
        judge_written(&asked, &places, &truth[&at(name, partition)], sent_within)
            .unwrap_or_else(|fault| panic!("{name}-{partition}: {fault}"));
    }
}

/// Looks at the batches on the disks of the leaders, and gives an offset in the middle of one for each partition.
async fn check_batches(cluster: &mut Cluster, driver: &Driver) -> Vec<i64> {
    let name = driver.client.name;
    let topic = cluster.admin().wait_for_leaders(name).await.unwrap();
    let mut middles = Vec::new();
    for (partition, codec, idempotent) in ways(&driver.client) {
        let view = topic.partitions.iter().find(|view| view.partition.0 == partition).unwrap();
        let leader = u16::try_from(view.leader.unwrap().0).unwrap();
        let batches = on_disk(cluster, leader, name, partition);
        judge_way(&batches, codec, idempotent).unwrap_or_else(|fault| panic!("{name}-{partition}: {fault}"));
        let middle = middle_of_batch(&batches);
        middles.push(middle.unwrap_or_else(|| panic!("{name}-{partition}: only small batches: {batches:?}")));
    }
    middles
}

/// From where a client reads its own partitions: the middle of a batch, and the timestamp of a record that is in the middle
/// of one.
fn own_reads(driver: &Driver, middles: &[i64], truth: &Truth) -> Vec<(TopicPartition, From)> {
    let mut reads = Vec::new();
    for ((partition, ..), middle) in ways(&driver.client).zip(middles) {
        let at = at(driver.client.name, partition);
        let record = truth[&at].iter().find(|seen| seen.offset == *middle).unwrap();
        reads.push((at.clone(), From::Offset(*middle)));
        reads.push((at, From::Timestamp(record.timestamp)));
    }
    reads
}

/// All that a client reads: its own partitions in several ways, and all partitions from the beginning.
fn numbered(own: Vec<(TopicPartition, From)>, all: &[&str], truth: &Truth) -> Vec<ReadWork> {
    let is_first = |at: &TopicPartition| all.contains(&at.topic.as_str()) && at.partition.0 != TAIL;
    let beginnings = truth.keys().filter(|at| is_first(at)).map(|at| (at.clone(), From::Beginning));
    let reads = own.into_iter().chain(beginnings).enumerate();
    reads
        .map(|(read, (at, from))| ReadWork {
            read,
            topic: at.topic.to_string(),
            partition: at.partition.0,
            from,
            until: truth[&at].last().unwrap().offset + 1,
        })
        .collect()
}

async fn read(driver: &Driver, bootstrap: &str, work: &[ReadWork], truth: &Truth) {
    let name = driver.client.name;
    let begun = Instant::now();
    let lines: Vec<ReadLine> = driver.run("consume", bootstrap, work).await;
    let found = by_read(lines, work.len()).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    for (work, found) in work.iter().zip(&found) {
        let content = &truth[&at(&work.topic, work.partition)];
        judge_read(work, found, expected(work.from, content))
            .unwrap_or_else(|fault| panic!("{name}: {fault}"));
    }
    println!("{name} made {} reads in {:.1} s", work.len(), begun.elapsed().as_secs_f64());
}
