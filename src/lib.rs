//! Discussion groups for instant-messaging clusters: one request, one durable record, one packet to every member.
//!
//! See `docs/architecture.md` for the map of this crate.

#![cfg_attr(any(test, feature = "fuzzing"), allow(clippy::unwrap_used))]

#[macro_use]
mod planted;

pub mod client;
pub mod codec;
pub mod config;
pub mod engine;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod group;
pub mod hub;
pub mod ids;
pub mod limits;
pub mod net;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod store;
pub mod token;
pub mod wire;

pub use engine::Engine;
