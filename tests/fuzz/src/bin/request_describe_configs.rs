//! The decoder of DescribeConfigs requests.
#![no_main]

klamm_fuzz::request_target!(DescribeConfigsRequest);
