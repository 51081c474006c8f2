//! The embedded storage engine: the same store and the same rules as the server's, in the process that uses them.
//!
//! ```
//! use roundtable::Engine;
//! use roundtable::group::Event;
//! use roundtable::ids::{OperationId, UserId};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let home = tempfile::tempdir()?;
//! # let directory = home.path().join("groups");
//! let (alice, bob) = (UserId::new("alice")?, UserId::new("bob")?);
//! let engine = Engine::open(&directory)?;
//!
//! // One call, durable when it returns: killed here, the next line's group is there after the next start.
//! let lunch = engine.acting(&alice).create("lunch", &[bob.clone()])?.group;
//! let sent = engine.acting(&bob).append(lunch, *b"noon?")?;
//! assert_eq!((sent.seq, sent.version), (2, 1));
//!
//! // A group is a record and a log.
//! let group = engine.group(lunch)?;
//! assert_eq!((group.record.owner.as_str(), group.head), ("alice", 2));
//! let page = engine.read(lunch, 2, 100)?;
//! assert!(matches!(&page.entries[0].event, Event::Message { body } if body[..] == *b"noon?"));
//!
//! // With an operation id a change may be said again, even after a crash.
//! let once = OperationId::random();
//! engine.acting(&alice).operation(once).rename(lunch, "late lunch")?;
//! engine.close()?;
//!
//! let engine = Engine::open(&directory)?;
//! assert!(engine.acting(&alice).operation(once).rename(lunch, "late lunch")?.repeated);
//! assert_eq!(&*engine.group(lunch)?.record.title, "late lunch");
//! assert_eq!(engine.groups_of(&bob).next().transpose()?.map(|group| group.head), Some(3));
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! * **Durable.** A change returns after a successful `fdatasync` covers it. Changes of several threads share one sync.
//!   Reads show durable state alone, so nobody ever sees what a power cut could take back.
//! * **Linearizable groups.** Each change of a group takes effect at one instant between call and return; any later
//!   call on any thread shows it, in the group, in its log, in the lists of its members.
//! * **Whole or not at all.** After an error nothing was changed. After [`EngineError::Failed`], and for a call that a
//!   crash cut short, the change is wholly there or wholly not; said again with its operation id it happens once.
//! * **One directory, one process.** A second engine, or a server, on the same directory is refused by name.
//! * **No silent corruption.** Damaged bytes are [`EngineError::Corrupt`] when opening, naming file and offset,
//!   [`EngineError::Damaged`] for who reads them later, or the index is made anew from the journal.
//!
//! What is on disk, and which test holds each of these, stands in `docs/durability.md`. Limits are in [`crate::limits`].
//!
//! # How it works
//!
//! Callers decide on the newest state of a group under that group's lock, take a ticket, and wait; the journal's thread
//! writes everything that is queued and syncs once; a dispatcher makes the effects visible in the order of tickets and
//! lets the callers go on. Reads of groups that are loaded touch no disk.

mod acting;
mod cache;
mod dispatcher;
mod error;
mod group;
mod operations;
mod pages;
mod port;
mod slot;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

pub use acting::{Acting, Actor, Changed, Created};
pub use error::EngineError;
pub use pages::{Groups, GroupsOf};

use crate::group::{Entry, Record};
use crate::ids::{GroupId, Principal, UserId};
use crate::limits::{CACHE_BYTES_MAX, HISTORY_BYTES_MAX, HISTORY_ENTRIES_MAX, SEGMENT_BYTES_DEFAULT};
use crate::store::{Change, Damaged, Event, GroupState, Mark, OpenError, Request, Retention, Storage, StorageOptions};
use cache::{Cache, Loaded};
use group::{Durable, Group};
use operations::Window;
use port::{Port, Uncommitted};
use slot::Signal;

/// Parts of the cache of groups that are locked apart.
const SHARDS: usize = 16;

/// Where an engine lives, and what it may take.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The data directory; made if it is missing. A server's will do, while that server does not run.
    pub directory: PathBuf,
    /// Bytes of a segment of the journal, at least [`SEGMENT_BYTES_MIN`](crate::limits::SEGMENT_BYTES_MIN). Only for a
    /// directory that is made new: one that is there says itself.
    pub segment_bytes: u64,
    /// Bytes of groups and remembered operations that are kept loaded, beside what is in use at the moment. The index
    /// takes memory of its own.
    pub cache_bytes_max: usize,
    /// The name under which [`Actor::System`] acts.
    pub system: UserId,
    /// How much of each log is kept, at least: entries beyond it go when the segment in which they stand is cleaned.
    /// Records of groups stay until they are dissolved.
    pub retention: Retention,
}

impl EngineOptions {
    /// The defaults: segments of 64 MiB, 256 MiB of cache, `system`, and of each log 100,000 entries, 64 MiB and 30
    /// days, whichever is least.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            cache_bytes_max: CACHE_BYTES_MAX,
            system: UserId::new("system").expect("a legal name"),
            retention: Retention::default(),
        }
    }
}

/// A group at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Title, owner, members, version.
    pub record: Arc<Record>,
    /// The seq of its last entry.
    pub head: u64,
    /// The lowest seq that its log still has.
    pub floor: u64,
    /// When the last entry was made, in milliseconds since 1970; for showing only.
    pub last_at_ms: u64,
}

impl From<GroupState> for Snapshot {
    fn from(state: GroupState) -> Self {
        let GroupState { record, head, floor, last_at_ms } = state;
        Self { record: Arc::new(record), head, floor, last_at_ms }
    }
}

/// Entries of a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Ascending and without gap, from the seq that was asked for. Empty only at the end of the log.
    pub entries: Vec<Entry>,
    /// The seq of the group's last entry.
    pub head: u64,
    /// The lowest seq that its log still has.
    pub floor: u64,
}

/// How far a member has received and read a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Who.
    pub user: UserId,
    /// The highest seq acknowledged as received; 0 for none.
    pub received: u64,
    /// The highest seq read; 0 for none.
    pub read: u64,
}

/// An open data directory. Clones are the same one; the last to go closes it.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    dispatcher: Mutex<Option<JoinHandle<()>>>,
}

/// What callers and the dispatcher share.
#[derive(Debug)]
struct Shared {
    port: Port,
    groups: Cache<GroupId, Group>,
    windows: Cache<Principal, Window>,
    signal: Arc<Signal>,
    random: Mutex<StdRng>,
    system: UserId,
}

impl Engine {
    /// Opens a data directory with the defaults, or makes it. See [`Engine::open_with`].
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, EngineError> {
        Self::open_with(&EngineOptions::new(directory.as_ref()))
    }

    /// Opens a data directory, or makes it. Blocks until it is recovered and everything in it can be answered: seconds
    /// where there are a million groups, longer where the index has to be made anew.
    ///
    /// Errors: `Locked`, `NewerFormat`, `Corrupt`, `CannotOpen`; `Failed` where storage breaks while its index is
    /// brought up to date. Nothing that was acknowledged is gone after any of them.
    pub fn open_with(options: &EngineOptions) -> Result<Self, EngineError> {
        let EngineOptions { directory, segment_bytes, retention, .. } = options;
        let (segment_bytes, retention) = (*segment_bytes, *retention);
        let storage = StorageOptions { segment_bytes, retention, ..StorageOptions::new(directory) };
        Self::over(options, |wake| Storage::start(&storage, wake))
    }

    fn over(
        options: &EngineOptions,
        start: impl FnOnce(Arc<dyn Fn() + Send + Sync>) -> Result<Storage, OpenError>,
    ) -> Result<Self, EngineError> {
        let signal = Arc::new(Signal::default());
        let woken = signal.clone();
        let storage = start(Arc::new(move || woken.wake()))?;
        // A quarter for operations, in one shard: the window of `System` alone may take 8 MiB.
        let windows_bytes_max = options.cache_bytes_max / 4;
        let shared = Arc::new(Shared {
            port: Port::new(storage),
            groups: Cache::new(SHARDS, options.cache_bytes_max - windows_bytes_max),
            windows: Cache::new(1, windows_bytes_max),
            signal,
            random: Mutex::new(StdRng::from_os_rng()),
            system: options.system.clone(),
        });
        let dispatched = shared.clone();
        let dispatcher = std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || dispatcher::run(&dispatched))
            .map_err(|error| EngineError::CannotOpen { reason: format!("the system gives no thread: {error}") })?;
        let inner = Arc::new(Inner { shared, dispatcher: Mutex::new(Some(dispatcher)) });
        inner.shared.port.wait_ready()?;
        Ok(Self { inner })
    }

    // ---- changes -----------------------------------------------------------------------------------------------

    /// Begins a change in the name of a user, or of [`Actor::System`]: `engine.acting(&alice).append(group, body)`.
    pub fn acting(&self, actor: impl Into<Actor>) -> Acting<'_> {
        Acting::new(self, actor.into())
    }

    /// Notes how far a user has received and read a group; 0 for no change. Marks only grow: a lower one changes
    /// nothing. Blocks until that is durable. It makes no entry.
    ///
    /// Errors, with nothing changed: `NotFound`; `Range` for a mark beyond the head; `Full`, `Damaged`, `Closed`. After
    /// `Failed` it is unknown.
    pub fn acknowledge(&self, user: &UserId, group: GroupId, received: u64, read: u64) -> Result<(), EngineError> {
        let head = {
            let (durable, _) = self.shared().durable(group)?;
            durable.record.member(user).map(|_| durable.head).ok_or(EngineError::NotFound)?
        };
        if received > head || read > head {
            return Err(EngineError::Range { head });
        }
        let mark = Mark { user: user.clone(), group, received, read };
        let port = &self.shared().port;
        loop {
            match port.commit(Change::Marks(vec![mark.clone()]), None) {
                Ok(ticket) => return port.wait(ticket),
                Err(Uncommitted::NoRoom(bytes)) => port.wait_for_room(bytes)?,
                Err(Uncommitted::Gone(error)) => return Err(error),
            }
        }
    }

    // ---- reads -------------------------------------------------------------------------------------------------

    /// A group as it is. One that is dissolved is shown, without members, until storage cleans it away.
    ///
    /// Reads are the embedding program's: they ask nobody's leave. Errors: `NotFound`, `Damaged`, `Failed`, `Closed`.
    pub fn group(&self, group: GroupId) -> Result<Snapshot, EngineError> {
        let (Durable { record, head, last_at_ms }, floor) = self.shared().durable(group)?;
        Ok(Snapshot { record, head, floor, last_at_ms })
    }

    /// A page of a group's log from a seq on; from 0 for as far back as it goes. At most `entries_max` entries, 256,
    /// and 256 KiB, but always one if there is one. From `head + 1` it is empty.
    ///
    /// Errors: `NotFound`; `Truncated` where the log begins later; `Range` beyond `head + 1`; `Damaged`, `Failed`,
    /// `Closed`.
    pub fn read(&self, group: GroupId, from: u64, entries_max: usize) -> Result<Page, EngineError> {
        loop {
            match self.read_from(group, from, entries_max) {
                // The floor has moved meanwhile, and the page is to begin wherever it is.
                Err(EngineError::Truncated { .. }) if from == 0 => {}
                outcome => return outcome,
            }
        }
    }

    fn read_from(&self, group: GroupId, from: u64, entries_max: usize) -> Result<Page, EngineError> {
        let (Durable { head, .. }, floor) = self.shared().durable(group)?;
        let from = if from == 0 { floor } else { from };
        if from < floor {
            return Err(EngineError::Truncated { floor });
        }
        if from > head {
            let page = Page { entries: Vec::new(), head, floor };
            return if from == head + 1 { Ok(page) } else { Err(EngineError::Range { head }) };
        }
        let (entries_max, bytes_max) = (entries_max.clamp(1, HISTORY_ENTRIES_MAX), HISTORY_BYTES_MAX);
        let request = |read| Request::ReadEntries { read, group, from, through: head, entries_max, bytes_max };
        let Event::EntriesRead { entries, .. } = self.shared().port.ask(request)? else {
            unreachable!("a read is answered by entries")
        };
        let entries = entries.map_err(|Damaged| EngineError::Damaged)?;
        if entries.first().is_some_and(|first| first.seq == from) {
            return Ok(Page { entries, head, floor });
        }
        Err(self.missing(group, from)?)
    }

    /// Why storage did not give an entry that the group's state says is there: its floor has moved, or it is damaged.
    fn missing(&self, group: GroupId, from: u64) -> Result<EngineError, EngineError> {
        let (states, _) = self.scan(before(group), 1)?;
        let floor = states.first().filter(|state| state.record.group == group).map_or(0, |state| state.floor);
        if floor <= from {
            return Ok(EngineError::Damaged);
        }
        let loaded = self.shared().group(group)?;
        let mut loaded = loaded.lock();
        loaded.floor = loaded.floor.max(floor);
        drop(loaded);
        Ok(EngineError::Truncated { floor })
    }

    /// The groups that a user is a member of, by pages. Each item may be `Damaged`, `Failed` or `Closed`.
    pub fn groups_of(&self, user: &UserId) -> GroupsOf {
        GroupsOf::new(self.clone(), user.clone())
    }

    /// All groups, dissolved ones included, by pages. Each item may be `Damaged`, `Failed` or `Closed`.
    pub fn groups(&self) -> Groups {
        Groups::new(self.clone())
    }

    /// The marks of all members of a group, in the order of joining.
    ///
    /// Errors: `NotFound`, `Damaged`, `Failed`, `Closed`.
    pub fn readers(&self, group: GroupId) -> Result<Vec<Reader>, EngineError> {
        self.shared().durable(group)?;
        let port = &self.shared().port;
        let Event::MarksRead { marks, .. } = port.ask(|read| Request::ReadMarks { read, group })? else {
            unreachable!("marks are answered by marks")
        };
        port.settle()?;
        let marks = marks.map_err(|Damaged| EngineError::Damaged)?;
        Ok(marks.into_iter().map(|Mark { user, received, read, .. }| Reader { user, received, read }).collect())
    }

    /// Counters and gauges of the engine and of its storage, by name with unit. More may be added, none is renamed.
    ///
    /// Errors: `Failed`, `Closed`.
    pub fn stats(&self) -> Result<Vec<(String, u64)>, EngineError> {
        let shared = self.shared();
        let Event::StatsRead { stats, .. } = shared.port.ask(|read| Request::ReadStats { read })? else {
            unreachable!("stats are answered by stats")
        };
        let gauges = shared.port.gauges();
        let (groups, groups_bytes, groups_evicted) = shared.groups.totals();
        let (windows, windows_bytes, windows_evicted) = shared.windows.totals();
        let own = [
            ("groups_loaded_count", groups as u64),
            ("principals_loaded_count", windows as u64),
            ("cache_bytes", (groups_bytes + windows_bytes) as u64),
            ("evicted_total", (groups_evicted + windows_evicted) as u64),
            ("commits_pending_count", gauges.commits_pending),
            ("commits_total", gauges.commits_total),
            ("committed_bytes_total", gauges.committed_bytes),
            ("credit_bytes", gauges.credit_bytes),
        ];
        Ok(own.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(stats).collect())
    }

    /// Closes the directory: takes nothing more (all clones answer `Closed`), finishes and syncs what was begun, and
    /// brings the index up to date, so that the next start is quick. Dropping the last clone does the same and tells
    /// nobody how it went. A process that is killed instead loses nothing that was answered.
    ///
    /// Errors: `Closed` where another clone has closed it; `Failed` where storage did not end well, and what was not
    /// acknowledged is unknown.
    pub fn close(self) -> Result<(), EngineError> {
        self.inner.close()
    }

    fn shared(&self) -> &Shared {
        &self.inner.shared
    }
}

impl Inner {
    fn close(&self) -> Result<(), EngineError> {
        let storage = self.shared.port.close()?;
        self.shared.signal.end();
        let dispatcher = self.dispatcher.lock().unwrap_or_else(PoisonError::into_inner).take();
        let ended = dispatcher.map_or(Ok(()), JoinHandle::join);
        let stopped = storage.map_or(Ok(()), Storage::stop);
        stopped.map_err(|message| EngineError::Failed { message })?;
        ended.map_err(|_| EngineError::Failed { message: "the engine's dispatcher panicked".to_owned() })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        match self.close() {
            Ok(()) | Err(EngineError::Closed) => {}
            Err(error) => tracing::error!("the engine did not end well: {error}"),
        }
    }
}

impl Shared {
    /// The state of a group, from storage if it is not loaded.
    fn group(&self, id: GroupId) -> Result<Arc<Loaded<Group>>, EngineError> {
        self.port.check_open()?;
        let shard = self.groups.shard(&id);
        if let Some(group) = shard.find(&id) {
            return Ok(group);
        }
        let waiter = self.port.load_group(id)?;
        drop(shard);
        waiter.wait()?.ok_or(EngineError::NotFound)
    }

    /// What of a group may be shown, and its floor.
    fn durable(&self, id: GroupId) -> Result<(Durable, u64), EngineError> {
        let group = self.group(id)?;
        let group = group.lock();
        group.durable.clone().map(|durable| (durable, group.floor)).ok_or(EngineError::NotFound)
    }

    /// The operations of a principal, from storage if they are not loaded.
    fn window(&self, principal: &Principal) -> Result<Arc<Loaded<Window>>, EngineError> {
        let shard = self.windows.shard(principal);
        if let Some(window) = shard.find(principal) {
            return Ok(window);
        }
        let waiter = self.port.load_window(principal)?;
        drop(shard);
        waiter.wait()?.ok_or(EngineError::NotFound)
    }

    fn new_group_id(&self) -> GroupId {
        let mut bytes = [0; 10];
        self.random.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes);
        GroupId::generate(wall_ms(), &bytes)
    }
}

/// The id just before a group's.
fn before(group: GroupId) -> Option<GroupId> {
    GroupId::from_bytes((u128::from_be_bytes(*group.as_bytes()) - 1).to_be_bytes())
}

fn wall_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
