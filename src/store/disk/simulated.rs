//! A disk in memory that keeps what was written and what was synced apart, so that a test can cut the power.
//!
//! Every change of content or of a name is *pending* until a sync covers it: a file's own sync its content, a sync of
//! its directory its name. [`SimulatedDisk::crash`] throws pending changes away, all or those that the test chooses.
//! Nothing in here is random.

#![cfg_attr(any(test, feature = "sim"), allow(clippy::unwrap_used))]
#![cfg_attr(not(test), allow(dead_code, reason = "only the tests need all of it"))]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, DiskError, DiskErrorKind, DiskFile, Listed};

/// The disk; clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

/// What a failing operation answers, and what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// That one operation fails.
    Once,
    /// It and all after it fail.
    FromThenOn,
    /// The process ends there: nothing of it happens, and nothing after it.
    Death,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, Content>,
    names: BTreeMap<String, u64>,
    names_durable: BTreeMap<String, u64>,
    directories: BTreeSet<String>,
    pending: Vec<Pending>,
    files_made: u64,
    /// Counts crashes: a handle from before one is dead, as its process is.
    life: u64,
    operations: u64,
    fault: Option<(u64, Fault)>,
    capacity_bytes: Option<u64>,
    write_split_bytes: Option<usize>,
    ignores_syncs: bool,
    short_writes: bool,
    dead: bool,
    released_bytes: u64,
    /// By the name of the thread.
    #[cfg(test)]
    tallies: BTreeMap<String, Tally>,
}

/// What one thread has done so far.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Files and directories synced.
    pub(crate) syncs: u64,
    /// Files renamed.
    pub(crate) renames: u64,
    /// Syncs behind the last of them.
    pub(crate) syncs_since_rename: u64,
}

#[derive(Debug, Default)]
struct Content {
    durable: Vec<u8>,
    current: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Pending {
    Write { file: u64, offset: usize, bytes: Vec<u8> },
    Size { file: u64, bytes: usize },
    Name { directory: String, change: NameChange },
}

#[derive(Clone, Debug)]
enum NameChange {
    Link { path: String, file: u64 },
    Unlink { path: String },
    Rename { from: String, to: String, file: u64 },
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Link { path, file } => {
                names.insert(path.clone(), *file);
            }
            Self::Unlink { path } => {
                names.remove(path);
            }
            Self::Rename { from, to, file } => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
        }
    }
}

fn write_into(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl State {
    fn apply_durably(&mut self, pending: &Pending) {
        match pending {
            Pending::Write { file, offset, bytes } => {
                write_into(&mut self.files.get_mut(file).unwrap().durable, *offset, bytes);
            }
            Pending::Size { file, bytes } => self.files.get_mut(file).unwrap().durable.resize(*bytes, 0),
            Pending::Name { change, .. } => change.apply(&mut self.names_durable),
        }
    }

    /// Takes the pending changes that `covers` out, in order.
    fn take_pending(&mut self, covers: impl Fn(&Pending) -> bool) -> Vec<Pending> {
        let (taken, kept) = std::mem::take(&mut self.pending).into_iter().partition(covers);
        self.pending = kept;
        taken
    }

    fn count(&mut self, operation: &'static str, path: &str) -> Result<(), DiskError> {
        self.operations += 1;
        #[cfg(test)]
        if let Some(thread) = std::thread::current().name() {
            let tally = self.tallies.entry(thread.to_owned()).or_default();
            tally.syncs += u64::from(operation == "sync");
            tally.syncs_since_rename += u64::from(operation == "sync");
            if operation == "rename" {
                tally.renames += 1;
                tally.syncs_since_rename = 0;
            }
        }
        let fails = match self.fault {
            Some((at, Fault::Once)) => self.operations == at,
            Some((at, Fault::FromThenOn)) => self.operations >= at,
            Some((at, Fault::Death)) => {
                self.dead |= self.operations >= at;
                self.dead
            }
            None => false,
        };
        if fails { Err(error(operation, path, DiskErrorKind::Other("input/output error".to_owned()))) } else { Ok(()) }
    }

    /// Another process takes over.
    fn revive(&mut self) {
        self.life += 1;
        self.fault = None;
        self.dead = false;
    }

    fn used_bytes(&self) -> u64 {
        self.names.values().map(|file| self.files[file].current.len() as u64).sum()
    }

    fn file(&self, path: &str) -> Result<u64, DiskError> {
        self.names.get(path).copied().ok_or_else(|| error("open", path, DiskErrorKind::NotFound))
    }

    fn rename_now(&mut self, change: NameChange, path: &str) {
        change.apply(&mut self.names);
        self.pending.push(Pending::Name { directory: directory_of(path), change });
    }
}

fn directory_of(path: &str) -> String {
    path.rsplit_once('/').map_or(String::new(), |(directory, _)| directory.to_owned())
}

fn error(operation: &'static str, path: &str, kind: DiskErrorKind) -> DiskError {
    DiskError { operation, path: path.to_owned(), kind }
}

impl SimulatedDisk {
    /// An empty disk.
    pub(crate) fn new() -> Self {
        Self { state: Arc::new(Mutex::new(State::default())) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// How many changes are pending.
    pub(crate) fn pending(&self) -> usize {
        self.state().pending.len()
    }

    /// Cuts the power: of the pending changes, in order, those survive that `keeps` says; open handles are dead.
    pub(crate) fn crash(&self, keeps: impl Fn(usize) -> bool) {
        let mut state = self.state();
        let pending = std::mem::take(&mut state.pending);
        for (number, change) in pending.iter().enumerate() {
            if keeps(number) {
                state.apply_durably(change);
            }
        }
        state.names = state.names_durable.clone();
        for content in state.files.values_mut() {
            content.current = content.durable.clone();
        }
        state.revive();
    }

    /// Kills the process: everything written stays readable, and pending.
    pub(crate) fn kill(&self) {
        self.state().revive();
    }

    /// A copy of the disk as it is, pending changes included.
    pub(crate) fn fork(&self) -> Self {
        let state = self.state();
        let files = state.files.iter().map(|(number, content)| {
            (*number, Content { durable: content.durable.clone(), current: content.current.clone() })
        });
        let copy = State {
            files: files.collect(),
            names: state.names.clone(),
            names_durable: state.names_durable.clone(),
            directories: state.directories.clone(),
            pending: state.pending.clone(),
            files_made: state.files_made,
            write_split_bytes: state.write_split_bytes,
            ignores_syncs: state.ignores_syncs,
            capacity_bytes: state.capacity_bytes,
            short_writes: state.short_writes,
            ..State::default()
        };
        Self { state: Arc::new(Mutex::new(copy)) }
    }

    /// Operations that changed or synced something, so far.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Whether the process came to the end that [`Fault::Death`] set.
    pub(crate) fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// No operation fails any more.
    pub(crate) fn heal(&self) {
        self.state().fault = None;
    }

    /// A write that fails has written its first half.
    pub(crate) fn shorten_writes(&self) {
        self.state().short_writes = true;
    }

    /// Looks at what would be left of a file if the power went now.
    pub(crate) fn with_durable<T>(&self, path: &str, look: impl FnOnce(Option<&[u8]>) -> T) -> T {
        let state = self.state();
        look(state.names_durable.get(path).map(|file| state.files[file].durable.as_slice()))
    }

    /// Bytes that files take.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// Does something, and tells what a thread has done on the disk before it, and nothing of what it does meanwhile.
    #[cfg(test)]
    pub(crate) fn with_tally<T>(&self, thread: &str, act: impl FnOnce() -> T) -> (Tally, T) {
        let state = self.state();
        (state.tallies.get(thread).copied().unwrap_or_default(), act())
    }

    /// Lets the n-th operation from now on fail; 1 is the next.
    pub(crate) fn fail(&self, nth: u64, fault: Fault) {
        let mut state = self.state();
        let at = state.operations + nth;
        state.fault = Some((at, fault));
    }

    /// Bounds the disk, or lifts the bound.
    pub(crate) fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity_bytes = bytes;
    }

    /// Makes each write several pending ones, cut at multiples of so many bytes.
    pub(crate) fn split_writes(&self, bytes: usize) {
        self.state().write_split_bytes = Some(bytes);
    }

    /// For control tests: syncs succeed and do nothing.
    pub(crate) fn ignore_syncs(&self) {
        self.state().ignores_syncs = true;
    }

    /// Bytes of which the space was given back, so far.
    pub(crate) fn released_bytes(&self) -> u64 {
        self.state().released_bytes
    }

    /// Changes a file behind everybody's back, durably.
    pub(crate) fn tamper(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let file = state.file(path).unwrap();
        let content = state.files.get_mut(&file).unwrap();
        change(&mut content.current);
        content.durable = content.current.clone();
    }

    /// The content of a file as it reads now.
    pub(crate) fn content(&self, path: &str) -> Vec<u8> {
        let state = self.state();
        state.files[&state.file(path).unwrap()].current.clone()
    }
}

impl Disk for SimulatedDisk {
    type File = SimulatedFile;

    fn open(&self, path: &str) -> Result<SimulatedFile, DiskError> {
        let state = self.state();
        let file = state.file(path)?;
        Ok(SimulatedFile { disk: self.clone(), file, life: state.life, path: path.to_owned() })
    }

    fn create(&self, path: &str) -> Result<SimulatedFile, DiskError> {
        let mut state = self.state();
        state.count("create", path)?;
        if state.names.contains_key(path) {
            return Err(error("create", path, DiskErrorKind::Other("it exists".to_owned())));
        }
        state.files_made += 1;
        let file = state.files_made;
        state.files.insert(file, Content::default());
        state.rename_now(NameChange::Link { path: path.to_owned(), file }, path);
        Ok(SimulatedFile { disk: self.clone(), file, life: state.life, path: path.to_owned() })
    }

    fn list(&self, directory: &str) -> Result<Vec<Listed>, DiskError> {
        let state = self.state();
        if !state.directories.contains(directory) {
            return Err(error("list", directory, DiskErrorKind::NotFound));
        }
        let inside = state.names.iter().filter(|(path, _)| directory_of(path) == directory);
        let listed = inside.map(|(path, file)| Listed {
            name: path.rsplit('/').next().unwrap().to_owned(),
            size_bytes: state.files[file].current.len() as u64,
        });
        Ok(listed.collect())
    }

    fn exists(&self, path: &str) -> Result<bool, DiskError> {
        let state = self.state();
        Ok(state.names.contains_key(path) || state.directories.contains(path))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut state = self.state();
        state.count("rename", from)?;
        let file = state.file(from)?;
        state.rename_now(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), file }, to);
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        let mut state = self.state();
        state.count("remove", path)?;
        state.file(path)?;
        state.rename_now(NameChange::Unlink { path: path.to_owned() }, path);
        Ok(())
    }

    fn create_directory(&self, path: &str) -> Result<(), DiskError> {
        self.state().directories.insert(path.to_owned());
        Ok(())
    }

    fn sync_directory(&self, path: &str) -> Result<(), DiskError> {
        let mut state = self.state();
        state.count("sync", path)?;
        if !state.ignores_syncs {
            let covers = |pending: &Pending| matches!(pending, Pending::Name { directory, .. } if directory == path);
            for change in state.take_pending(covers) {
                state.apply_durably(&change);
            }
        }
        Ok(())
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        let state = self.state();
        Ok(state.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used_bytes())))
    }
}

/// A file of the simulated disk.
#[derive(Debug)]
pub(crate) struct SimulatedFile {
    disk: SimulatedDisk,
    file: u64,
    life: u64,
    path: String,
}

impl SimulatedFile {
    fn alive(&self, state: &State) -> Result<(), DiskError> {
        if state.life == self.life {
            return Ok(());
        }
        Err(error("use", &self.path, DiskErrorKind::Other("its process is dead".to_owned())))
    }
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let state = self.disk.state();
        self.alive(&state)?;
        let content = &state.files[&self.file].current;
        let start = usize::try_from(offset).unwrap();
        let Some(bytes) = content.get(start..start + buffer.len()) else {
            return Err(error("read", &self.path, DiskErrorKind::Other("the file ends before".to_owned())));
        };
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut state = self.disk.state();
        self.alive(&state)?;
        let counted = state.count("write", &self.path);
        let bytes = match &counted {
            Err(_) if state.short_writes && !state.dead => &bytes[..bytes.len() / 2],
            Err(error) => return Err(error.clone()),
            Ok(()) => bytes,
        };
        let mut at = usize::try_from(offset).unwrap();
        let grows = (at + bytes.len()).saturating_sub(state.files[&self.file].current.len()) as u64;
        if state.capacity_bytes.is_some_and(|capacity| state.used_bytes() + grows > capacity) {
            return Err(error("write", &self.path, DiskErrorKind::NoSpace));
        }
        write_into(&mut state.files.get_mut(&self.file).unwrap().current, at, bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let cut = state.write_split_bytes.map_or(rest.len(), |split| (split - at % split).min(rest.len()));
            let (piece, after) = rest.split_at(cut);
            state.pending.push(Pending::Write { file: self.file, offset: at, bytes: piece.to_vec() });
            at += cut;
            rest = after;
        }
        counted
    }

    fn sync(&self) -> Result<(), DiskError> {
        let mut state = self.disk.state();
        self.alive(&state)?;
        let counted = state.count("sync", &self.path);
        if state.ignores_syncs {
            return counted;
        }
        let covers = |pending: &Pending| matches!(pending, Pending::Write { file, .. } | Pending::Size { file, .. } if *file == self.file);
        let pending = state.take_pending(covers);
        // After a failed sync the pages are marked clean: readable until the crash, and no later sync writes them.
        counted?;
        for change in pending {
            state.apply_durably(&change);
        }
        Ok(())
    }

    fn release(&self, offset: u64, bytes: u64) -> Result<(), DiskError> {
        let end = self.size()?.min(offset + bytes);
        self.disk.state().released_bytes += end.saturating_sub(offset);
        // Zeros are the worst that it may come to; the space is not counted as free.
        self.write_at(offset, &vec![0; usize::try_from(end.saturating_sub(offset)).unwrap()])
    }

    fn size(&self) -> Result<u64, DiskError> {
        let state = self.disk.state();
        self.alive(&state)?;
        Ok(state.files[&self.file].current.len() as u64)
    }

    fn set_size(&self, bytes: u64) -> Result<(), DiskError> {
        let mut state = self.disk.state();
        self.alive(&state)?;
        state.count("set the size of", &self.path)?;
        let bytes = usize::try_from(bytes).unwrap();
        state.files.get_mut(&self.file).unwrap().current.resize(bytes, 0);
        state.pending.push(Pending::Size { file: self.file, bytes });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulated_disk_keeps_the_contract() {
        super::super::contract::holds(&SimulatedDisk::new());
    }

    #[test]
    fn a_power_cut_takes_what_was_not_synced() {
        let disk = SimulatedDisk::new();
        disk.create_directory("d").unwrap();
        let file = disk.create("d/a").unwrap();
        file.write_at(0, b"one").unwrap();
        file.sync().unwrap();
        file.write_at(0, b"two").unwrap();
        let nameless = disk.fork();
        nameless.crash(|_| false);
        assert!(!nameless.exists("d/a").unwrap(), "a name is durable only with its directory");
        disk.sync_directory("d").unwrap();
        assert_eq!(disk.pending(), 1);
        disk.crash(|_| false);
        assert_eq!(disk.content("d/a"), b"one");
        assert!(file.sync().is_err(), "a handle from before the crash is dead");
    }

    #[test]
    fn what_a_failed_sync_covered_is_never_written_by_a_later_one() {
        let disk = SimulatedDisk::new();
        disk.create_directory("d").unwrap();
        let file = disk.create("d/a").unwrap();
        disk.sync_directory("d").unwrap();
        file.write_at(0, b"lost").unwrap();
        disk.fail(1, Fault::Once);
        assert!(file.sync().is_err());
        file.sync().unwrap();
        assert_eq!(disk.content("d/a"), b"lost", "it still reads well");
        disk.crash(|_| true);
        assert_eq!(disk.content("d/a"), b"");
    }
}
