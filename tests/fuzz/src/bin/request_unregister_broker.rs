//! The decoder of UnregisterBroker requests.
#![no_main]

klamm_fuzz::request_target!(UnregisterBrokerRequest);
