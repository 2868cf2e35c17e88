//! The decoder of AlterPartitionReassignments requests.
#![no_main]

klamm_fuzz::request_target!(AlterPartitionReassignmentsRequest);
