//! The decoder of FindCoordinator requests.
#![no_main]

klamm_fuzz::request_target!(FindCoordinatorRequest);
