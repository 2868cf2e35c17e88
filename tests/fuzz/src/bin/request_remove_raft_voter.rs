//! The decoder of RemoveRaftVoter requests.
#![no_main]

klamm_fuzz::request_target!(RemoveRaftVoterRequest);
