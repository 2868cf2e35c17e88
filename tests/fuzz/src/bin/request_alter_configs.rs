//! The decoder of AlterConfigs requests.
#![no_main]

klamm_fuzz::request_target!(AlterConfigsRequest);
