//! The topic that is measured.

use klamm_client::{Admin, ClientError, Cluster, NewTopic};
use klamm_protocol::ErrorCode;
use klamm_types::{PartitionId, TopicName, TopicPartition};

use crate::exit::Failure;
use crate::session::ConnectArgs;

/// Which topic, and how to talk to its brokers.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct TargetArgs {
    /// The topic.
    #[arg(long, value_name = "NAME")]
    topic: TopicArg,
    /// Create the topic first, with this many partitions, unless it exists.
    #[arg(long, value_name = "PARTITIONS", value_parser = clap::value_parser!(i32).range(1..))]
    create: Option<i32>,
    /// On how many brokers a created topic is kept; the brokers' default if not given.
    #[arg(long, value_name = "N", requires = "create", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// How many threads this program uses.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// A topic name that is legal.
#[derive(Clone, Debug)]
struct TopicArg(TopicName);

impl std::str::FromStr for TopicArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        TopicName::new(text).map(Self).map_err(|error| error.to_string())
    }
}

impl TargetArgs {
    pub(super) fn threads(&self) -> usize {
        usize::from(self.threads)
    }

    /// The cluster, with room for `in_flight` requests at each broker, and the topic's partitions.
    pub(super) async fn open(&self, in_flight: usize) -> Result<(Cluster, Vec<TopicPartition>), Failure> {
        let cluster = self.connect.cluster(|options| options.in_flight_max = in_flight.max(16)).await?;
        let admin = Admin::new(cluster.clone());
        let name = &self.topic.0;
        if self.create.is_some() {
            let topic = NewTopic {
                partitions: self.create,
                replication_factor: self.replication_factor,
                ..NewTopic::named(name.as_str())
            };
            for (name, result) in admin.create_topics(&[topic], false).await? {
                match result {
                    Err(error) if error.code != ErrorCode::TopicAlreadyExists => {
                        return Err(Failure::Refused { subject: format!("topic {name}"), error });
                    }
                    Ok(_) | Err(_) => {}
                }
            }
        } else {
            cluster.topic(name.as_str()).await.map_err(|error| match error {
                ClientError::Api(error) => Failure::Refused { subject: format!("topic {name}"), error },
                error => error.into(),
            })?;
        }
        let view = admin.wait_for_leaders(name.as_str()).await?;
        let partitions = view.partitions.iter().map(|partition| partition.partition);
        let at = |partition: PartitionId| TopicPartition::new(name.clone(), partition);
        Ok((cluster, partitions.map(at).collect()))
    }
}
