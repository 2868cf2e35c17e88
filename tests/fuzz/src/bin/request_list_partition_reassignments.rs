//! The decoder of ListPartitionReassignments requests.
#![no_main]

klamm_fuzz::request_target!(ListPartitionReassignmentsRequest);
