//! The decoder of DescribeCluster requests.
#![no_main]

klamm_fuzz::request_target!(DescribeClusterRequest);
