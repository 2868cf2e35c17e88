//! The decoder of ApiVersions requests.
#![no_main]

klamm_fuzz::request_target!(ApiVersionsRequest);
