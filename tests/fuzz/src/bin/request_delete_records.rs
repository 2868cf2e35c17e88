//! The decoder of DeleteRecords requests.
#![no_main]

klamm_fuzz::request_target!(DeleteRecordsRequest);
