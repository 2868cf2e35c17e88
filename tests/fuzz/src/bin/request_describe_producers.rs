//! The decoder of DescribeProducers requests.
#![no_main]

klamm_fuzz::request_target!(DescribeProducersRequest);
