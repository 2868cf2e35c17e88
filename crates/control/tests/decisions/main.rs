//! What the controller decides, case by case and under random histories.

#![allow(unreachable_pub, reason = "the modules of a test share their context")]

mod alter_partition;
mod brokers;
mod configs;
mod context;
mod elections;
mod features;
mod histories;
mod offline;
mod placement;
mod reassignments;
mod topics;
