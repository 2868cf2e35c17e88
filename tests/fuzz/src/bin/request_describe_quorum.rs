//! The decoder of DescribeQuorum requests.
#![no_main]

klamm_fuzz::request_target!(DescribeQuorumRequest);
