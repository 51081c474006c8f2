//! The journal: the append-only log of packets that every acknowledgement depends on, and nothing else does.
//!
//! It owns the segments below `journal/`, knows the disk port, and knows nothing of threads, the index or the hub.
//! Bytes are specified in [`packet`], [`segment`] and [`head`], crash points in `docs/durability.md`.

#[cfg(test)]
mod damage_tests;
pub(crate) mod head;
#[cfg(test)]
mod head_tests;
#[cfg(any(test, feature = "sim"))]
pub(crate) mod image;
#[cfg(test)]
mod kill_tests;
pub(crate) mod packet;
pub(crate) mod reader;
#[cfg(test)]
mod reader_tests;
pub(crate) mod recovery;
pub(crate) mod segment;
pub(crate) mod spare;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod writer;

pub(crate) use packet::{Content, Position};
pub(crate) use reader::{JournalReader, ReadError, Walk};
pub(crate) use recovery::{Applied, Opened, Sealed};
pub(crate) use segment::{DirectoryId, JOURNAL_DIRECTORY};
pub(crate) use spare::Spare;
pub(crate) use writer::{HeadSlot, Now, Placed, Writer};
