//! The decoder of OffsetForLeaderEpoch requests.
#![no_main]

klamm_fuzz::request_target!(OffsetForLeaderEpochRequest);
