//! A node with a topic, a connection to it, and all that went over it.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use klamm_client::NewTopic;
use klamm_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use klamm_protocol::{
    ApiKey, ApiMessage, ApiRequest, Budget, Reader, RequestHead, Uuid, VersionRange, Writer,
    decode_response_header,
};
use klamm_tests::cluster::{Cluster, ClusterSpec};
use klamm_tests::requests::{Record, Requests, Versions};
use klamm_tests::skip;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::judge::{Case, Judge};

/// The topic that is there from the beginning, of two partitions. Its records are kept, whatever their age.
pub(crate) const TOPIC: &str = "t";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node and a client of it that speaks every version.
pub(crate) struct Bed {
    pub(crate) cluster: Cluster,
    /// The id of [`TOPIC`].
    pub(crate) topic_id: Uuid,
    before: Requests,
    socket: TcpStream,
    correlation_id: i32,
    /// The bodies of requests and answers.
    cases: Vec<Case>,
    asked: Versions,
}

/// All versions of a request's API that Kafka serves.
pub(crate) fn versions<R: ApiRequest>() -> impl Iterator<Item = i16> {
    R::KEY.stable_versions().iter()
}

impl Bed {
    pub(crate) async fn start() -> Self {
        let cluster = Cluster::start(&ClusterSpec { nodes: 1, ..ClusterSpec::default() }).await.unwrap();
        let admin = cluster.admin();
        let topic = NewTopic {
            partitions: Some(2),
            replication_factor: Some(1),
            configs: vec![("retention.ms".to_owned(), "-1".to_owned())],
            ..NewTopic::named(TOPIC)
        };
        for (name, result) in admin.create_topics(&[topic], false).await.unwrap() {
            result.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let topic_id = admin.wait_for_leaders(TOPIC).await.unwrap().topic_id;
        drop(admin);
        let before = Requests::settled(&cluster).await.unwrap();
        let at = cluster.endpoint(1);
        let socket = TcpStream::connect((at.host.as_str(), at.port)).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (cases, asked) = (Vec::new(), Versions::new());
        Self { cluster, topic_id, before, socket, correlation_id: 0, cases, asked }
    }

    /// Sends a request, and gives the answer.
    pub(crate) async fn ask<R: ApiRequest>(&mut self, version: i16, request: &R) -> R::Response {
        let key = R::KEY;
        self.correlation_id += 1;
        let correlation_id = self.correlation_id;
        let mut body = Writer::new();
        request.encode_into(version, &mut body).unwrap_or_else(|error| panic!("{key} {version}: {error}"));
        let body = body.finish().unwrap().into_bytes().unwrap();
        let mut head = Writer::new();
        let client_id = Some("every-version".to_owned());
        RequestHead { key, version, correlation_id, client_id }.encode(&mut head).unwrap();
        let head = head.finish().unwrap().into_bytes().unwrap();
        let length = i32::try_from(head.len() + body.len()).unwrap();
        self.socket.write_all(&[&length.to_be_bytes()[..], &head, &body].concat()).await.unwrap();

        let frame = timeout(PATIENCE, self.frame()).await;
        let frame = frame.unwrap_or_else(|_| panic!("{key} {version}: no answer"));
        let frame = frame.unwrap_or_else(|error| panic!("{key} {version}: {error}"));
        let mut reader = Reader::shared(&frame, Budget::for_response(frame.len()));
        assert_eq!(decode_response_header(key, version, &mut reader).unwrap(), correlation_id);
        // The answer of ApiVersions never has the flexible header; all others have it as their version is flexible.
        let head_len = if key.response_header_version(version) == 0 { 4 } else { 5 };
        self.keep(&format!("{key}Request"), version, &body);
        self.keep(&format!("{key}Response"), version, &frame[head_len..]);
        self.asked.entry(key.name().to_owned()).or_default().insert(version);
        R::Response::decode_whole(version, reader).unwrap_or_else(|error| panic!("{key} {version}: {error}"))
    }

    async fn frame(&mut self) -> std::io::Result<Bytes> {
        let mut prefix = [0; 4];
        self.socket.read_exact(&mut prefix).await?;
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(prefix)).unwrap()];
        self.socket.read_exact(&mut frame).await?;
        Ok(frame.into())
    }

    fn keep(&mut self, message: &str, version: i16, body: &[u8]) {
        self.cases.push(Case { message: message.to_owned(), version, body: body.to_owned() });
    }

    /// What a broker tells that it serves, of what Kafka serves: Produce is told from version 0 on.
    async fn served(&mut self) -> Versions {
        let request = ApiVersionsRequest {
            client_software_name: "tests".to_owned(),
            client_software_version: "1".to_owned(),
        };
        let answer: ApiVersionsResponse = self.ask(4, &request).await;
        let mut served = Versions::new();
        for told in answer.api_keys {
            let key = ApiKey::from_code(told.api_key).unwrap();
            let told = VersionRange::new(told.min_version, told.max_version);
            let told = told.intersect(key.stable_versions()).unwrap();
            served.insert(key.name().to_owned(), told.iter().collect::<BTreeSet<_>>());
        }
        served
    }

    /// All that is served was asked for, counted by the node, and written as Kafka writes it.
    pub(crate) async fn finish(mut self) {
        let served = self.served().await;
        assert_eq!(self.asked, served);
        let asked = Requests::answered(&self.cluster).await.unwrap().since(&self.before);
        assert_eq!(asked, served);
        Record::check("every-version", &asked).unwrap();

        let test = "every_version_is_answered_as_kafka_would (by Kafka's serialisers)";
        let Some(judge) = skip::unless(test, Judge::find()) else { return };
        for (case, theirs) in self.cases.iter().zip(judge.recode(&self.cases)) {
            let context = format!("{} version {} {:02x?}", case.message, case.version, case.body);
            let theirs = theirs.unwrap_or_else(|reason| panic!("{context}: Kafka says {reason}"));
            assert_eq!(theirs, case.body, "{context}: Kafka writes something else");
        }
    }
}
