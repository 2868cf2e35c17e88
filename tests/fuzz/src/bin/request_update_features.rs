//! The decoder of UpdateFeatures requests.
#![no_main]

klamm_fuzz::request_target!(UpdateFeaturesRequest);
