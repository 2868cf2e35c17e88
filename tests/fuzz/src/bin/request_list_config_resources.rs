//! The decoder of ListConfigResources requests.
#![no_main]

klamm_fuzz::request_target!(ListConfigResourcesRequest);
