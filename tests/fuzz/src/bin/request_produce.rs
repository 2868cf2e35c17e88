//! The decoder of Produce requests.
#![no_main]

klamm_fuzz::request_target!(ProduceRequest);
