use klamm_protocol::messages::{MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse};

use super::*;
use crate::handlers::api_versions::Features;

struct NoFeatures;

impl FeatureSource for NoFeatures {
    fn features(&self) -> Features {
        Features { supported: Vec::new(), finalized: Vec::new(), finalized_epoch: -1 }
    }
}

struct Metadata<const MIN: i16, const MAX: i16>;

impl<const MIN: i16, const MAX: i16> Handler for Metadata<MIN, MAX> {
    type Request = MetadataRequest;

    const VERSIONS: VersionRange = VersionRange::new(MIN, MAX);
    const ACCESS: Access = Access::Topic(Operation::Describe);

    fn handle(&self, _: RequestContext, _: MetadataRequest) -> Ticket<MetadataResponse> {
        Ticket::ready(Answer::Nothing)
    }
}

struct Produce;

impl Handler for Produce {
    type Request = ProduceRequest;

    const VERSIONS: VersionRange = ProduceRequest::VERSIONS;
    const ACCESS: Access = Access::Topic(Operation::Write);
    const KEEPS_FRAME: bool = true;

    fn handle(&self, _: RequestContext, _: ProduceRequest) -> Ticket<ProduceResponse> {
        Ticket::ready(Answer::Nothing)
    }
}

#[test]
fn the_table_has_the_rows_of_its_handlers_and_api_versions() {
    let table =
        ApiTable::builder().handler(Produce).handler(Metadata::<2, 9>).build(Arc::new(NoFeatures)).unwrap();
    let rows: Vec<_> = table.rows().map(|row| (row.key, row.versions, row.access)).collect();
    assert_eq!(
        rows,
        [
            (ApiKey::Produce, VersionRange::new(3, 13), Access::Topic(Operation::Write)),
            (ApiKey::Metadata, VersionRange::new(2, 9), Access::Topic(Operation::Describe)),
            (ApiKey::ApiVersions, VersionRange::new(0, 4), Access::Anyone),
        ]
    );
    assert!(table.keeps_frame(ApiKey::Produce) && !table.keeps_frame(ApiKey::Metadata));
}

#[test]
fn produce_is_told_from_version_0_and_nothing_else_is_embellished() {
    let range = VersionRange::new(3, 13);
    assert_eq!(advertise(ApiKey::Produce, range).min_version, 0);
    assert_eq!(advertise(ApiKey::Produce, range).max_version, 13);
    for key in ApiKey::ALL.iter().filter(|key| **key != ApiKey::Produce) {
        let told = advertise(*key, range);
        assert_eq!((told.api_key, told.min_version, told.max_version), (key.code(), 3, 13));
    }
}

#[test]
fn a_table_that_contradicts_itself_is_refused() {
    let twice = ApiTable::builder().handler(Produce).handler(Produce).build(Arc::new(NoFeatures));
    assert_eq!(twice.unwrap_err(), TableError::Duplicate { key: ApiKey::Produce });

    let known = MetadataRequest::VERSIONS;
    let beyond = ApiTable::builder().handler(Metadata::<0, 99>).build(Arc::new(NoFeatures));
    let claimed = VersionRange::new(0, 99);
    assert_eq!(beyond.unwrap_err(), TableError::Versions { key: ApiKey::Metadata, claimed, known });

    let none = ApiTable::builder().handler(Metadata::<5, 4>).build(Arc::new(NoFeatures));
    let claimed = VersionRange::new(5, 4);
    assert_eq!(none.unwrap_err(), TableError::Versions { key: ApiKey::Metadata, claimed, known });

    let own = ApiVersionsHandler::new(Vec::new(), Arc::new(NoFeatures));
    let own = ApiTable::builder().handler(own).build(Arc::new(NoFeatures));
    assert_eq!(own.unwrap_err(), TableError::Duplicate { key: ApiKey::ApiVersions });
}
