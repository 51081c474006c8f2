//! The client: to be written.
