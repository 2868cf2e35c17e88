//! The decoder of InitProducerId requests.
#![no_main]

klamm_fuzz::request_target!(InitProducerIdRequest);
