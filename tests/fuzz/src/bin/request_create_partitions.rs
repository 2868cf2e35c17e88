//! The decoder of CreatePartitions requests.
#![no_main]

klamm_fuzz::request_target!(CreatePartitionsRequest);
