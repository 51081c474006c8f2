//! The rules of a group: what it is, who may do what, which entry that makes, and what the record is afterwards.
//!
//! Pure: values in, values out. The hub and the store use it alike, and a client keeps its member lists with the same
//! [`Record::apply`] that the server uses. It knows neither the wire nor the disk, no time and no connection.

mod entry;
mod record;
mod rules;

pub use entry::{Entry, Event, Succession};
pub use record::{Member, Record};
pub use rules::{Act, Author, Authority, Decision, Limit, Refusal, create, decide};

#[cfg(test)]
mod tests;
