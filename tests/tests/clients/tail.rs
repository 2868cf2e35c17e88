//! A reader stands at the end of a partition while the same client writes to it, in every way.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::timeout;

use super::DRIVER_TIME_MAX;
use super::client::{Driver, parse};
use super::judge::judge_read;
use super::records::{few_records, to_file};
use super::work::{From, ProduceWork, ReadLine, ReadWork, Seen, TAIL, Written, ways};

/// Lets the client's reader go to the end, then its writer write, and compares what comes. Nothing else writes to the
/// partition, which holds a few records already.
pub(crate) async fn read_from_end(driver: Driver, bootstrap: String) {
    let client = driver.client;
    let name = client.name;
    let records = few_records(&client);
    let all_ways: Vec<_> = ways(&client).collect();
    let before = records.len();
    let until = i64::try_from(before * (1 + all_ways.len())).unwrap();
    let topic = name.to_owned();
    let read = ReadWork { read: 0, topic: topic.clone(), partition: TAIL, from: From::End, until };

    let mut reader = driver.prepared("consume", &bootstrap, &[&read]);
    reader.command.stderr(Stdio::inherit());
    let mut child = reader.command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = timeout(DRIVER_TIME_MAX, lines.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("{name} from the end: too late")).unwrap();
        line.map(|line| parse::<ReadLine>(name, line.as_bytes()))
    };
    loop {
        match next().await {
            Some(ReadLine::Read { ready: true, .. }) => break,
            Some(ReadLine::Read { .. }) => {}
            other => panic!("{name} is not at the end: {other:?}"),
        }
    }

    let file = to_file(&records);
    let path = file.path().display().to_string();
    let work: Vec<_> = all_ways
        .iter()
        .map(|&(_, codec, idempotent)| ProduceWork {
            topic: topic.clone(),
            partition: TAIL,
            codec,
            idempotent,
            records: path.clone(),
        })
        .collect();
    let written: Vec<Written> = driver.run("produce", &bootstrap, &work).await;
    assert_eq!(written.len(), before * all_ways.len());

    let mut found = Vec::new();
    while let Some(line) = next().await {
        match line {
            ReadLine::Record(seen) => found.push(seen),
            ReadLine::Read { .. } => panic!("{name} begins anew"),
        }
    }
    let status = child.wait().await.unwrap();
    assert!(status.success(), "{name} from the end: {status}");

    let offsets = i64::try_from(before).unwrap()..;
    let asked = all_ways.iter().flat_map(|_| &records);
    let expected: Vec<Seen> = asked
        .zip(offsets)
        .zip(&found)
        .map(|((record, offset), found)| record.seen(offset, record.timestamp.unwrap_or(found.timestamp)))
        .collect();
    assert_eq!(found.len(), written.len(), "{name} from the end");
    judge_read(&read, &found, &expected).unwrap_or_else(|fault| panic!("{name}: {fault}"));
}
