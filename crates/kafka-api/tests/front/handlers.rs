//! Handlers whose behaviour the tests choose, request by request.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use klamm_kafka_api::{
    Access, Answer, ApiTable, FeatureSource, Features, FinalizedFeature, Handler, Operation, RequestContext,
    SupportedFeature, Ticket,
};
use klamm_protocol::VersionRange;
use klamm_protocol::messages::metadata_response::MetadataResponseBroker;
use klamm_protocol::messages::{MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse};
use tokio::sync::watch;

/// What the tests see of the handlers, and how they steer them.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    entered: Arc<Mutex<Vec<String>>>,
    open: watch::Sender<BTreeSet<String>>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self { entered: Arc::default(), open: watch::Sender::new(BTreeSet::new()) }
    }

    /// Lets requests go on that wait for `gate`.
    pub(crate) fn open(&self, gate: &str) {
        self.open.send_modify(|open| {
            open.insert(gate.to_owned());
        });
    }

    /// The requests whose handler was entered, in order.
    pub(crate) fn entered(&self) -> Vec<String> {
        self.entered.lock().unwrap().clone()
    }

    fn enter(&self, name: &str) {
        self.entered.lock().unwrap().push(name.to_owned());
    }

    fn wait(&self, gate: String) -> impl Future<Output = ()> + Send + 'static {
        let mut open = self.open.subscribe();
        async move { drop(open.wait_for(|open| open.contains(&gate)).await) }
    }
}

/// Metadata; the name of the first topic says what to do: `now`, `park:GATE`, `order:GATE`, `large:BYTES`, `close`,
/// `panic`, `misfit` (an answer that the version cannot carry).
struct Scripted(Stage);

fn answer(name: &str) -> MetadataResponse {
    MetadataResponse { cluster_id: Some(name.to_owned()), ..MetadataResponse::default() }
}

fn large_answer(len: usize) -> MetadataResponse {
    let hosts = len / 30_000;
    let broker = MetadataResponseBroker { host: "h".repeat(30_000), ..MetadataResponseBroker::default() };
    MetadataResponse { brokers: vec![broker; hosts], ..MetadataResponse::default() }
}

impl Handler for Scripted {
    type Request = MetadataRequest;

    const VERSIONS: VersionRange = MetadataRequest::VERSIONS;
    const ACCESS: Access = Access::Topic(Operation::Describe);

    fn handle(&self, context: RequestContext, request: MetadataRequest) -> Ticket<MetadataResponse> {
        let topics = request.topics.unwrap_or_default();
        let name = topics.into_iter().next().and_then(|topic| topic.name).unwrap_or_default();
        self.0.enter(&name);
        match name.split_once(':').unwrap_or((&name, "")) {
            ("park", gate) => {
                context.memory.release();
                let waited = self.0.wait(gate.to_owned());
                Ticket::later(async move {
                    waited.await;
                    Answer::Response(answer(&name))
                })
            }
            ("order", gate) => {
                let accepted = self.0.wait(gate.to_owned());
                Ticket::staged(accepted, async move { Answer::Response(answer(&name)) })
            }
            ("large", len) => Ticket::ready(Answer::Response(large_answer(len.parse().unwrap()))),
            ("close", _) => Ticket::ready(Answer::Close),
            ("panic", _) => panic!("asked to"),
            ("misfit", _) => Ticket::ready(Answer::Response(MetadataResponse {
                cluster_id: Some("x".repeat(40_000)),
                ..MetadataResponse::default()
            })),
            _ => Ticket::ready(Answer::Response(answer(&name))),
        }
    }
}

/// Produce; waits for the gate that the transactional id names, and holds the records meanwhile. With `acks=0` there
/// is no answer.
struct Sink(Stage);

impl Handler for Sink {
    type Request = ProduceRequest;

    const VERSIONS: VersionRange = ProduceRequest::VERSIONS;
    const ACCESS: Access = Access::Topic(Operation::Write);
    const KEEPS_FRAME: bool = true;

    fn handle(&self, _: RequestContext, request: ProduceRequest) -> Ticket<ProduceResponse> {
        self.0.enter("produce");
        let waited = request.transactional_id.clone().map(|gate| self.0.wait(gate));
        Ticket::later(async move {
            if let Some(waited) = waited {
                waited.await;
            }
            let acks = request.acks;
            drop(request);
            if acks == 0 { Answer::Nothing } else { Answer::Response(ProduceResponse::default()) }
        })
    }
}

struct TwoFeatures;

impl FeatureSource for TwoFeatures {
    fn features(&self) -> Features {
        let feature =
            |name: &str, level_min| SupportedFeature { name: name.to_owned(), level_min, level_max: 9 };
        Features {
            supported: vec![feature("metadata.version", 7), feature("group.version", 0)],
            finalized: vec![FinalizedFeature { name: "metadata.version".to_owned(), level: 8 }],
            finalized_epoch: 42,
        }
    }
}

/// The table of these handlers.
pub(crate) fn table(stage: &Stage) -> ApiTable {
    let builder = ApiTable::builder().handler(Scripted(stage.clone())).handler(Sink(stage.clone()));
    builder.build(Arc::new(TwoFeatures)).unwrap()
}
