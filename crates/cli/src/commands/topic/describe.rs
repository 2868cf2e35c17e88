//! `klamm topic describe`.

use std::io::Write;

use klamm_client::{
    Admin, ConfigEntry, ConfigResource, ConfigSource, FollowerLag, FollowerLags, PartitionDescription,
    TopicDescription,
};
use klamm_types::BrokerId;
use serde::Serialize;

use super::complain;
use crate::exit::{Exit, Failure};
use crate::output::columns::{Columns, ids, or_hyphen};
use crate::output::{Format, json};
use crate::session::{ConnectArgs, FormatArgs};

/// Which topics to describe.
#[derive(Debug, clap::Args)]
pub struct DescribeArgs {
    /// Names of the topics; all topics if none is given.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    ailing: AilingArgs,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    format: FormatArgs,
}

/// Which partitions to show: all if nothing is given, otherwise those that any of it is true of.
#[derive(Clone, Copy, Debug, clap::Args)]
struct AilingArgs {
    /// Show partitions with fewer in-sync replicas than replicas.
    #[arg(long)]
    under_replicated: bool,
    /// Show partitions with fewer in-sync replicas than min.insync.replicas.
    #[arg(long)]
    under_min_isr: bool,
    /// Show partitions that nobody leads.
    #[arg(long)]
    unavailable: bool,
}

impl AilingArgs {
    fn shows(self, partition: &PartitionDescription, min_insync_replicas: Option<usize>) -> bool {
        let all = !(self.under_replicated || self.under_min_isr || self.unavailable);
        all || (self.under_replicated && is_under_replicated(partition))
            || (self.under_min_isr && is_under_min_isr(partition, min_insync_replicas) == Some(true))
            || (self.unavailable && partition.view.leader.is_none())
    }
}

/// A topic, and what was asked about it.
struct Described {
    topic: TopicDescription,
    configs: Vec<ConfigEntry>,
    min_insync_replicas: Option<usize>,
}

/// A partition, in JSON.
#[derive(Serialize)]
struct PartitionRow<'a> {
    topic: &'a str,
    topic_id: String,
    partition: i32,
    leader: Option<i32>,
    leader_epoch: i32,
    replicas: Vec<i32>,
    isr: Vec<i32>,
    elr: Option<Vec<i32>>,
    last_known_elr: Option<Vec<i32>>,
    offline: Vec<i32>,
    under_replicated: bool,
    under_min_isr: Option<bool>,
    preferred_leader: bool,
    /// `null` if the leader does not tell.
    lag: Option<Vec<LagRow>>,
}

/// A follower, in JSON.
#[derive(Serialize)]
struct LagRow {
    replica: i32,
    records: Option<u64>,
    ms: Option<u64>,
}

pub(super) async fn run(args: &DescribeArgs, stdout: &mut impl Write) -> Result<Exit, Failure> {
    let admin = args.connect.admin().await?;
    let names = if args.names.is_empty() {
        admin.list_topics().await?.into_iter().map(|topic| topic.view.name).collect()
    } else {
        args.names.clone()
    };
    let (exit, described) = look_up(&admin, &names, args.ailing).await?;
    let lags = admin.follower_lags(described.iter().map(|described| &described.topic)).await;
    for described in &described {
        match args.format.format() {
            Format::Json => {
                for partition in &described.topic.partitions {
                    json::line(stdout, &row(described, partition, lag_of(&lags, described, partition)))?;
                }
            }
            Format::Table => print(stdout, described, &lags)?,
        }
    }
    Ok(exit)
}

/// The topics with the partitions that shall be shown; none without any, unless all are wanted.
async fn look_up(
    admin: &Admin,
    names: &[String],
    ailing: AilingArgs,
) -> Result<(Exit, Vec<Described>), Failure> {
    let (mut exit, mut found) = (Exit::Done, Vec::new());
    if names.is_empty() {
        return Ok((exit, found));
    }
    for (name, result) in admin.describe_topics(names).await? {
        let mut topic = match result {
            Ok(topic) => topic,
            Err(error) => {
                exit = exit.max(complain(&Failure::Refused { subject: format!("topic {name}"), error }));
                continue;
            }
        };
        let configs = admin.describe_configs(&ConfigResource::Topic(name)).await?;
        let minimum = configs.iter().find(|config| config.name == "min.insync.replicas");
        let min_insync_replicas = minimum.and_then(|config| config.value.as_deref()?.parse().ok());
        let before = topic.partitions.len();
        topic.partitions.retain(|partition| ailing.shows(partition, min_insync_replicas));
        if before == 0 || !topic.partitions.is_empty() {
            found.push(Described { topic, configs, min_insync_replicas });
        }
    }
    Ok((exit, found))
}

fn lag_of<'a>(
    lags: &'a FollowerLags,
    described: &Described,
    partition: &PartitionDescription,
) -> Option<&'a [FollowerLag]> {
    lags.get(&(described.topic.name.clone(), partition.view.partition)).map(Vec::as_slice)
}

fn is_under_replicated(partition: &PartitionDescription) -> bool {
    partition.view.in_sync_replicas.len() < partition.view.replicas.len()
}

/// `None` if the minimum is not known. It is never more than there are replicas.
fn is_under_min_isr(partition: &PartitionDescription, min_insync_replicas: Option<usize>) -> Option<bool> {
    let view = &partition.view;
    let effective = min_insync_replicas?.min(view.replicas.len()).max(1);
    Some(view.in_sync_replicas.len() < effective)
}

fn is_led_by_preferred(partition: &PartitionDescription) -> bool {
    partition.view.leader.is_some() && partition.view.leader == partition.view.replicas.first().copied()
}

fn numbers(ids: &[BrokerId]) -> Vec<i32> {
    ids.iter().map(|id| id.0).collect()
}

fn row<'a>(
    described: &'a Described,
    partition: &PartitionDescription,
    lag: Option<&[FollowerLag]>,
) -> PartitionRow<'a> {
    let (view, topic) = (&partition.view, &described.topic);
    let lag_row = |lag: &FollowerLag| LagRow { replica: lag.replica.0, records: lag.records, ms: lag.millis };
    PartitionRow {
        topic: &topic.name,
        topic_id: topic.topic_id.to_string(),
        partition: view.partition.0,
        leader: view.leader.map(|id| id.0),
        leader_epoch: view.leader_epoch.0,
        replicas: numbers(&view.replicas),
        isr: numbers(&view.in_sync_replicas),
        elr: partition.eligible_leader_replicas.as_deref().map(numbers),
        last_known_elr: partition.last_known_elr.as_deref().map(numbers),
        offline: numbers(&view.offline_replicas),
        under_replicated: is_under_replicated(partition),
        under_min_isr: is_under_min_isr(partition, described.min_insync_replicas),
        preferred_leader: is_led_by_preferred(partition),
        lag: lag.map(|followers| followers.iter().map(lag_row).collect()),
    }
}

fn print(out: &mut impl Write, described: &Described, lags: &FollowerLags) -> std::io::Result<()> {
    let topic = &described.topic;
    writeln!(out, "{} (id {}): {}", topic.name, topic.topic_id, summary(described))?;
    let head = ["PARTITION", "LEADER", "EPOCH", "REPLICAS", "ISR", "ELR", "LAG", "NOTE"];
    let mut columns = Columns::new(head);
    for partition in &topic.partitions {
        let view = &partition.view;
        columns.row([
            view.partition.to_string(),
            or_hyphen(view.leader),
            view.leader_epoch.to_string(),
            ids(&view.replicas),
            ids(&view.in_sync_replicas),
            partition.eligible_leader_replicas.as_deref().map_or_else(|| "?".to_owned(), ids),
            lag_text(lag_of(lags, described, partition)),
            note(partition, described.min_insync_replicas),
        ]);
    }
    columns.print(out)?;
    writeln!(out)
}

/// How many partitions there are, how many of them ail, and the topic's own settings.
fn summary(described: &Described) -> String {
    let partitions = &described.topic.partitions;
    let count = |ails: &dyn Fn(&PartitionDescription) -> bool| partitions.iter().filter(|p| ails(p)).count();
    let minimum = described.min_insync_replicas;
    let mut parts = vec![format!("{} partitions", partitions.len())];
    for (what, ailing) in [
        ("under-replicated", count(&is_under_replicated)),
        ("under min.insync.replicas", count(&|p| is_under_min_isr(p, minimum) == Some(true))),
        ("without a leader", count(&|p| p.view.leader.is_none())),
    ] {
        if ailing > 0 {
            parts.push(format!("{ailing} {what}"));
        }
    }
    if described.topic.is_internal {
        parts.push("internal".to_owned());
    }
    let set = described.configs.iter().filter(|config| config.source == ConfigSource::Topic);
    parts.extend(
        set.map(|config| format!("{}={}", config.name, config.value.as_deref().unwrap_or("(secret)"))),
    );
    parts.join(", ")
}

/// The followers that lack something: `3: 1200 records, 4.5 s`; a hyphen if none does.
fn lag_text(lag: Option<&[FollowerLag]>) -> String {
    let Some(followers) = lag else { return "?".to_owned() };
    let behind = followers.iter().filter_map(|follower| {
        let records = match follower.records {
            Some(0) => return None,
            Some(records) => format!("{records} records"),
            None => "not heard of".to_owned(),
        };
        let since = follower
            .millis
            .map_or_else(String::new, |millis| format!(", {}.{} s", millis / 1_000, millis % 1_000 / 100));
        Some(format!("{}: {records}{since}", follower.replica))
    });
    let behind: Vec<_> = behind.collect();
    if behind.is_empty() { "-".to_owned() } else { behind.join("; ") }
}

/// What an administrator should see first.
fn note(partition: &PartitionDescription, min_insync_replicas: Option<usize>) -> String {
    let view = &partition.view;
    let mut notes = Vec::new();
    if view.leader.is_none() {
        notes.push("NO LEADER".to_owned());
    }
    if is_under_replicated(partition) {
        notes.push("under-replicated".to_owned());
    }
    if is_under_min_isr(partition, min_insync_replicas) == Some(true) {
        notes.push("UNDER min.insync.replicas".to_owned());
    }
    if !view.offline_replicas.is_empty() {
        notes.push(format!("offline {}", ids(&view.offline_replicas)));
    }
    if view.leader.is_some() && !is_led_by_preferred(partition) {
        notes.push("not led by its preferred replica".to_owned());
    }
    if let Some(last) = partition.last_known_elr.as_deref().filter(|last| !last.is_empty()) {
        notes.push(format!("last eligible {}", ids(last)));
    }
    notes.join(", ")
}

#[cfg(test)]
mod tests {
    use klamm_client::PartitionView;
    use klamm_protocol::Uuid;
    use klamm_types::{LeaderEpoch, PartitionId};

    use super::*;

    fn partition(number: i32, leader: Option<i32>, isr: &[i32]) -> PartitionDescription {
        let brokers = |ids: &[i32]| ids.iter().map(|id| BrokerId(*id)).collect::<Vec<_>>();
        let view = PartitionView {
            partition: PartitionId(number),
            leader: leader.map(BrokerId),
            leader_epoch: LeaderEpoch(4),
            replicas: brokers(&[1, 2, 3]),
            in_sync_replicas: brokers(isr),
            offline_replicas: Vec::new(),
        };
        PartitionDescription { view, eligible_leader_replicas: None, last_known_elr: None }
    }

    fn described(partitions: Vec<PartitionDescription>) -> Described {
        let topic = TopicDescription {
            name: "orders".to_owned(),
            topic_id: Uuid::ZERO,
            is_internal: false,
            partitions,
        };
        Described { topic, configs: Vec::new(), min_insync_replicas: Some(2) }
    }

    fn shown(
        described: &Described,
        under_replicated: bool,
        under_min_isr: bool,
        unavailable: bool,
    ) -> Vec<i32> {
        let ailing = AilingArgs { under_replicated, under_min_isr, unavailable };
        let shows = |p: &&PartitionDescription| ailing.shows(p, described.min_insync_replicas);
        described.topic.partitions.iter().filter(shows).map(|p| p.view.partition.0).collect()
    }

    #[test]
    fn what_ails_is_counted_and_can_be_chosen() {
        let described = described(vec![
            partition(0, Some(1), &[1, 2, 3]),
            partition(1, Some(1), &[1, 2]),
            partition(2, Some(3), &[3]),
            partition(3, None, &[]),
        ]);
        let expected = "4 partitions, 3 under-replicated, 2 under min.insync.replicas, 1 without a leader";
        assert_eq!(summary(&described), expected);
        assert_eq!(shown(&described, false, false, false), [0, 1, 2, 3]);
        assert_eq!(shown(&described, true, false, false), [1, 2, 3]);
        assert_eq!(shown(&described, false, true, false), [2, 3]);
        assert_eq!(shown(&described, false, false, true), [3]);
        let sole = partition(0, Some(1), &[1]);
        assert_eq!(is_under_min_isr(&sole, None), None);
        assert_eq!(is_under_min_isr(&sole, Some(9)), Some(true));
    }

    #[test]
    fn lags_are_told_of_those_who_lag() {
        let lag = |replica: i32, records, millis| FollowerLag { replica: BrokerId(replica), records, millis };
        assert_eq!(lag_text(None), "?");
        assert_eq!(lag_text(Some(&[lag(2, Some(0), Some(0))])), "-");
        let followers = [lag(1, Some(12), Some(4_567)), lag(2, Some(0), Some(0)), lag(3, None, None)];
        assert_eq!(lag_text(Some(&followers)), "1: 12 records, 4.5 s; 3: not heard of");
    }
}
