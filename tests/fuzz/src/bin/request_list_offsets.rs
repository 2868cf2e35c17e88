//! The decoder of ListOffsets requests.
#![no_main]

klamm_fuzz::request_target!(ListOffsetsRequest);
