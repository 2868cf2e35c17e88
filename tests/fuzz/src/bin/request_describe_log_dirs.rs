//! The decoder of DescribeLogDirs requests.
#![no_main]

klamm_fuzz::request_target!(DescribeLogDirsRequest);
