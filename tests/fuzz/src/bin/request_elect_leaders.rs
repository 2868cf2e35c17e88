//! The decoder of ElectLeaders requests.
#![no_main]

klamm_fuzz::request_target!(ElectLeadersRequest);
