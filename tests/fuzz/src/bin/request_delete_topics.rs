//! The decoder of DeleteTopics requests.
#![no_main]

klamm_fuzz::request_target!(DeleteTopicsRequest);
