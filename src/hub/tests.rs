//! Tests of the hub without sockets, without a disk and without a clock.
//!
//! `world` drives a hub as the mio loop does, over a storage that is a model in memory (`model`): it becomes durable,
//! and answers, when a test says so. `audit` listens on every connection and holds the hub to what the protocol
//! promises of the order of frames; `invariants` holds the hub to its own bookkeeping after every turn. These four are
//! there for the fuzz target of the hub as well.

#![cfg_attr(not(test), allow(dead_code))]

#[cfg(test)]
mod attach;
mod audit;
#[cfg(test)]
mod create;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod feed;
pub(crate) mod fuzzing;
#[cfg(test)]
mod hello;
#[cfg(test)]
mod history;
#[cfg(test)]
mod keeping;
#[cfg(test)]
mod leave;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod membership;
mod model;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod orders;
#[cfg(test)]
mod property;
#[cfg(test)]
mod quota;
#[cfg(test)]
mod slices;
#[cfg(test)]
mod stays;
#[cfg(test)]
mod transcripts;
mod world;
