//! The decoder of Fetch requests.
#![no_main]

klamm_fuzz::request_target!(FetchRequest);
