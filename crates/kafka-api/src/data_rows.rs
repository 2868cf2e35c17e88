//! The rows of the APIs that touch records.

use std::fmt;
use std::sync::Arc;

use crate::data_plane::DataPlane;
use crate::handlers::delete_records::DeleteRecordsHandler;
use crate::handlers::describe_log_dirs::DescribeLogDirsHandler;
use crate::handlers::describe_producers::DescribeProducersHandler;
use crate::handlers::fetch::FetchHandler;
use crate::handlers::init_producer_id::{InitProducerIdHandler, ProducerIdSource};
use crate::handlers::list_offsets::ListOffsetsHandler;
use crate::handlers::offset_for_leader_epoch::OffsetForLeaderEpochHandler;
use crate::handlers::produce::ProduceHandler;
use crate::table::ApiTableBuilder;

/// What the handlers of these APIs work with.
#[derive(Clone)]
pub struct DataParts {
    /// The partitions of this broker.
    pub plane: Arc<DataPlane>,
    /// Where idempotent producers get their numbers from.
    pub producer_ids: Arc<dyn ProducerIdSource>,
}

impl fmt::Debug for DataParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataParts").field("plane", &self.plane).finish_non_exhaustive()
    }
}

impl DataParts {
    /// Adds the rows.
    pub(crate) fn add_rows(self, table: ApiTableBuilder) -> ApiTableBuilder {
        let Self { plane, producer_ids } = self;
        table
            .handler(ProduceHandler::new(plane.clone()))
            .handler(FetchHandler::new(plane.clone()))
            .handler(ListOffsetsHandler::new(plane.clone()))
            .handler(OffsetForLeaderEpochHandler::new(plane.clone()))
            .handler(DeleteRecordsHandler::new(plane.clone()))
            .handler(DescribeLogDirsHandler::new(plane.clone()))
            .handler(DescribeProducersHandler::new(plane))
            .handler(InitProducerIdHandler::new(producer_ids))
    }
}
