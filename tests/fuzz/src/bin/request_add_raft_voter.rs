//! The decoder of AddRaftVoter requests.
#![no_main]

klamm_fuzz::request_target!(AddRaftVoterRequest);
