//! Tests of the hub without sockets.
