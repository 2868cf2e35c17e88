//! The decoder of CreateTopics requests.
#![no_main]

klamm_fuzz::request_target!(CreateTopicsRequest);
