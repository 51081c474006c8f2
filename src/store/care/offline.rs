//! A journal and its index, opened as a server opens them, in the caller's own thread.

use rand::{RngCore, SeedableRng};

use crate::store::OpenError;
use crate::store::directory::Format;
use crate::store::disk::Disk;
use crate::store::index::{IndexError, IndexHome};
use crate::store::indexer::{FoldError, Indexer};
use crate::store::journal::writer::Journal;
use crate::store::journal::{Applied, DirectoryId, JournalReader, Opened, Position, recovery};

/// The parts of a journal for whoever writes to it.
pub(super) fn journal<D: Disk>(disk: D, format: Format) -> Journal<D> {
    let mut random = rand::rngs::StdRng::from_os_rng();
    let Format { segment_bytes, directory } = format;
    Journal { disk, directory, segment_bytes, salts: Box::new(move || random.next_u32()) }
}

/// Opens the journal as a server does, recovery included.
pub(super) fn open<D: Disk>(disk: D, format: Format, applied: Option<Applied>) -> Result<Opened<D>, OpenError> {
    recovery::open(journal(disk, format), applied)
}

/// The index in `home`, over a journal.
pub(super) fn indexer<D: Disk>(disk: &D, format: Format, home: &dyn IndexHome) -> Result<Indexer<D>, IndexError> {
    Indexer::new(home.open()?, JournalReader::new(disk.clone(), format.segment_bytes), format.directory)
}

/// Up to where an index has applied the journal.
pub(super) fn applied<D: Disk>(indexer: &Indexer<D>) -> Option<Applied> {
    indexer.folded().map(|applied| Applied { lsn: applied.lsn, end: applied.end })
}

/// Brings an index up to the end of an open journal and flushes it.
pub(super) fn catch_up<D: Disk>(
    indexer: &mut Indexer<D>,
    opened: &Opened<D>,
    mut progress: impl FnMut(Position),
) -> Result<(), OpenError> {
    let go_on = |place| {
        progress(place);
        true
    };
    let done = indexer.replay(opened.first, opened.end, go_on).and_then(|()| Ok(indexer.flush()?));
    done.map_err(open_error)
}

/// Why a packet could not be folded, for whoever opens a directory.
pub(super) fn open_error(error: FoldError) -> OpenError {
    match error {
        FoldError::Index(error) => OpenError::Index(error.0),
        FoldError::Journal(error) => OpenError::from(error),
    }
}

/// A random id for a new directory.
pub(super) fn directory_id() -> DirectoryId {
    let mut id = [0; 16];
    rand::rngs::StdRng::from_os_rng().fill_bytes(&mut id);
    id
}
