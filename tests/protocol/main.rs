//! `docs/protocol.md` and the code, held to each other.
//!
//! The page is the specification: its vectors, layouts and tables are read from it here. `page` reads them, `values`
//! says in Rust what each vector means, the other modules compare.

mod corpus;
mod decoders;
mod deframer;
mod page;
mod round_trips;
mod tables;
mod values;
mod vectors;
