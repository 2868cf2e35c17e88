//! The decoder of Metadata requests.
#![no_main]

klamm_fuzz::request_target!(MetadataRequest);
