//! What all parts of the client are told.

use std::time::Duration;

/// Settings of a [`Cluster`](crate::Cluster) and its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// What the client calls itself (`client.id`); default `klamm`.
    pub client_id: String,
    /// How long a dial may take, version negotiation included; default 3 s.
    pub connect_timeout: Duration,
    /// How long one request may wait for its answer before the connection is given up; default 10 s.
    pub request_timeout: Duration,
    /// How long an operation may take with all its retries (`default.api.timeout.ms`); default 30 s.
    pub operation_timeout: Duration,
    /// How long a refresh of the metadata waits for one broker before it asks another; default 1 s.
    pub metadata_timeout: Duration,
    /// The first pause before a retry; doubled for each further one; default 10 ms.
    pub retry_backoff: Duration,
    /// The longest pause before a retry; default 250 ms.
    pub retry_backoff_max: Duration,
    /// How many requests may await their answers on one connection; default 64.
    pub in_flight_max: usize,
    /// The longest answer that is accepted, in bytes; default 256 MiB.
    pub response_bytes_max: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            client_id: "klamm".to_owned(),
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(10),
            operation_timeout: Duration::from_secs(30),
            metadata_timeout: Duration::from_secs(1),
            retry_backoff: Duration::from_millis(10),
            retry_backoff_max: Duration::from_millis(250),
            in_flight_max: 64,
            response_bytes_max: 256 << 20,
        }
    }
}
