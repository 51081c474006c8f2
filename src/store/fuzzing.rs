//! Fuzz targets of what stands on disk: records of every kind, and the recovery of a journal made of them.

mod forge;
mod journal;
mod records;

pub(crate) use journal::journal;
pub(crate) use records::records;
