//! The decoder of DescribeTopicPartitions requests.
#![no_main]

klamm_fuzz::request_target!(DescribeTopicPartitionsRequest);
