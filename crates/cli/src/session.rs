//! The cluster that a command talks to.

use std::future::Future;
use std::str::FromStr;
use std::time::Duration;

use klamm_client::{Admin, ClientOptions, Cluster, Endpoint, EndpointError};
use tokio::runtime::{Builder, Runtime};

use crate::exit::Failure;
use crate::output::Format;

/// Which cluster, and how long to try.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConnectArgs {
    /// Brokers to begin with, separated by commas; any one that answers will do.
    #[arg(long, visible_alias = "bootstrap", default_value = "127.0.0.1:9092", value_name = "HOST:PORT")]
    bootstrap_server: Servers,
    /// How many seconds to try before giving up.
    #[arg(long, default_value_t = 15, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..))]
    timeout: u16,
}

/// How to print.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct FormatArgs {
    /// How to print. JSON is one object per line, with stable names.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// Short for --output json.
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

impl FormatArgs {
    pub(crate) fn format(self) -> Format {
        if self.json { Format::Json } else { self.output }
    }
}

/// A list of endpoints, as one argument.
#[derive(Clone, Debug)]
struct Servers(Vec<Endpoint>);

impl FromStr for Servers {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        Endpoint::parse_list(text).map(Self)
    }
}

impl ConnectArgs {
    fn timeout(&self) -> Duration {
        Duration::from_secs(u64::from(self.timeout))
    }

    fn options(&self) -> ClientOptions {
        let standard = ClientOptions::default();
        ClientOptions {
            client_id: "klamm-cli".to_owned(),
            connect_timeout: standard.connect_timeout.min(self.timeout()),
            request_timeout: self.timeout(),
            operation_timeout: self.timeout(),
            ..standard
        }
    }

    /// The cluster, asked once; `adjust` may change the options.
    pub(crate) async fn cluster(&self, adjust: impl FnOnce(&mut ClientOptions)) -> Result<Cluster, Failure> {
        let mut options = self.options();
        adjust(&mut options);
        let cluster = Cluster::new(self.bootstrap_server.0.clone(), options);
        // A person who mistyped an address should not wait for it to appear.
        cluster.metadata(Some(&[])).await?;
        Ok(cluster)
    }

    pub(crate) async fn admin(&self) -> Result<Admin, Failure> {
        Ok(Admin::new(self.cluster(|_| {}).await?))
    }
}

/// Runs a command that waits for answers, on this thread.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
    runtime.block_on(work)
}

/// A runtime with `threads` threads, for work that fills them.
pub(crate) fn runtime(threads: usize) -> Result<Runtime, Failure> {
    Builder::new_multi_thread().worker_threads(threads).enable_all().build().map_err(Failure::Runtime)
}
