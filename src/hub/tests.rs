//! Tests of the hub without sockets, without a disk and without a clock.
//!
//! `world` drives a hub as the mio loop does, over a storage that is a model in memory (`model`): it becomes durable,
//! and answers, when a test says so. `audit` listens on every connection and holds the hub to what the protocol
//! promises of the order of frames; `invariants` holds the hub to its own bookkeeping after every turn.

mod attach;
mod audit;
mod create;
mod durability;
mod feed;
mod hello;
mod history;
mod keeping;
mod leave;
mod limits;
mod membership;
mod model;
mod operations;
mod orders;
mod property;
mod quota;
mod stays;
mod transcripts;
mod world;
