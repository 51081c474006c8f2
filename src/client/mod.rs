//! A client: the same one for programs, for the command line, for the demo and for the simulator.
//!
//! [`Session`] is a connection without a socket: bytes in, events out; requests in, bytes out. It keeps the list of
//! groups that a user interface would show, each made from its group packet alone, and closes gaps by itself.
//! [`Client`] drives one over a blocking `TcpStream`.
//!
//! It does not know the hub and the store. [`Session`] knows no socket, no clock, no thread and no randomness.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use roundtable::client::{Client, ConnectOptions, Event};
//! use roundtable::ids::UserId;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A token: `roundtable token alice`.
//! let token = std::env::var("ROUNDTABLE_TOKEN")?;
//! let mut alice = Client::connect(ConnectOptions::new("127.0.0.1:7400", token))?;
//! alice.attach_marks()?;
//!
//! // One request makes the group, durably; every member that is on line has its packet.
//! let created = alice.create("lunch", &[UserId::new("bob")?, UserId::new("carol")?])?;
//! println!("{}: {} of {} have it already", created.group, created.pushed, created.members);
//! alice.send(created.group, "noon?")?;
//!
//! while let Some(event) = alice.next_event(Some(Duration::from_secs(1)))? {
//!     match event {
//!         Event::Group { packet, .. } => println!("a group of {} members", packet.members.len()),
//!         Event::Entry { group, entry } => println!("{group}: entry {}", entry.seq()),
//!         _ => {}
//!     }
//! }
//! for group in alice.groups() {
//!     println!("{} {:?}", group.group(), group.members().collect::<Vec<_>>());
//! }
//! # Ok(())
//! # }
//! ```

mod blocking;
mod conversation;
mod error;
mod event;
mod groups;
mod link;
#[cfg(test)]
mod lives;
mod retry;
mod session;
mod tracked;

pub use blocking::{ActingFor, Client, ConnectOptions, HistoryPart, Pong, TokenSource, ping};
pub use conversation::{CallId, Conversation, Standing};
pub use error::{ClientError, SessionError, TooLarge};
pub use event::Event;
pub use retry::{Backoff, RetryPolicy};
pub use session::{RequestId, Session};
pub use tracked::GroupView;
