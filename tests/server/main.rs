//! A server on port 0 with real clients on real sockets.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

mod descriptors;
mod fan_out;
mod garbage;
mod memory;
mod process;
mod quota;
mod reconnect;
mod roles;
mod slow_readers;
mod stop;
mod support;
mod swarm;
mod two_devices;
mod very_many_groups;
