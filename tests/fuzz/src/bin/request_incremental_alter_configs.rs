//! The decoder of IncrementalAlterConfigs requests.
#![no_main]

klamm_fuzz::request_target!(IncrementalAlterConfigsRequest);
