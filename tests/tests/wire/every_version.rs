//! Every API that a broker serves, in every version: a live node is asked for something, and the answer must say what
//! it has to. What went over the wire is judged by Kafka's own serialisers besides.

mod bed;
mod cluster;
mod records;
mod settings;
mod topics;

use bed::Bed;

#[tokio::test]
async fn every_version_is_answered_as_kafka_would() {
    let mut bed = Bed::start().await;
    topics::are_described(&mut bed).await;
    topics::are_created(&mut bed).await;
    topics::grow(&mut bed).await;
    topics::are_deleted(&mut bed).await;
    records::are_written(&mut bed).await;
    records::are_read(&mut bed).await;
    records::are_found(&mut bed).await;
    records::have_producers(&mut bed).await;
    records::have_a_size(&mut bed).await;
    records::are_deleted(&mut bed).await;
    settings::are_described(&mut bed).await;
    settings::are_replaced(&mut bed).await;
    settings::are_altered(&mut bed).await;
    settings::are_listed(&mut bed).await;
    cluster::is_described(&mut bed).await;
    cluster::tells_versions(&mut bed).await;
    cluster::has_no_groups(&mut bed).await;
    cluster::moves_leaders_and_replicas(&mut bed).await;
    cluster::has_a_quorum(&mut bed).await;
    cluster::knows_features_and_brokers(&mut bed).await;
    bed.finish().await;
}
