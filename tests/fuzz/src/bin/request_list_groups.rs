//! The decoder of ListGroups requests.
#![no_main]

klamm_fuzz::request_target!(ListGroupsRequest);
