//! The operations of the file system, as the kernel asks for them. What they mean stands in `image`, what becomes of them
//! in `plan`.
//!
//! Nothing is cached by the kernel (`FOPEN_DIRECT_IO`, no time to live): each write and each read comes here, and
//! `sync_file_range` makes nothing durable. One thread answers, and never blocks: what has to wait is kept with its reply.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::image::Image;
use super::plan::{Act, Failure, Plan, Syncs, Verdict};

/// Of the whole disk.
const BLOCKS: u64 = 16 << 20;
const BLOCK_BYTES: u32 = 4096;
/// Nothing that the kernel is told is true for longer than that.
const AT_ONCE: Duration = Duration::ZERO;
/// `fallocate` that gives space back: `FALLOC_FL_KEEP_SIZE` and `FALLOC_FL_PUNCH_HOLE`.
const PUNCH_HOLE: i32 = 3;

/// An answer that waits until the process that asked is dead.
type Held = Box<dyn FnOnce() + Send>;

/// Everything that the file system and the test share.
pub(crate) struct State {
    pub(crate) image: Image,
    pub(crate) plan: Plan,
    pub(crate) syncs: Syncs,
    held: Vec<Held>,
    /// Whoever asked when the power went was killed: nobody waits any more.
    dead: bool,
    pub(crate) held_syncs: Vec<(u64, ReplyEmpty)>,
    /// What is never lost: permissions, and a name to tell people.
    about: BTreeMap<u64, (u16, String)>,
    listings: BTreeMap<u64, Vec<(OsString, u64, FileType)>>,
    handles: u64,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            image: Image::new(),
            plan: Plan::default(),
            syncs: Syncs::Done,
            held: Vec::new(),
            dead: false,
            held_syncs: Vec::new(),
            about: BTreeMap::new(),
            listings: BTreeMap::new(),
            handles: 0,
        }
    }

    /// Keeps an answer until its process is dead.
    fn hold(&mut self, answer: impl FnOnce() + Send + 'static) {
        if self.dead {
            answer();
        } else {
            self.held.push(Box::new(answer));
        }
    }

    /// Answers what waits, and what is still on its way.
    pub(crate) fn let_the_dead_go(&mut self) {
        self.dead = true;
        self.held.drain(..).for_each(|answer| answer());
        self.held_syncs.drain(..).for_each(|(_, reply)| reply.error(Errno::EIO));
    }

    /// Another process takes over.
    pub(crate) fn revive(&mut self) {
        self.dead = false;
        self.plan.turn_on();
    }

    pub(crate) fn name(&self, inode: u64) -> &str {
        self.about.get(&inode).map_or("the disk itself", |(_, name)| name)
    }

    fn is_there(&self, inode: u64) -> bool {
        self.image.names(inode).is_some() || self.image.content(inode).is_some()
    }

    fn kind(&self, inode: u64) -> FileType {
        if self.image.names(inode).is_some() { FileType::Directory } else { FileType::RegularFile }
    }

    fn attributes(&self, inode: u64) -> FileAttr {
        let content = self.image.content(inode);
        let time = SystemTime::UNIX_EPOCH;
        FileAttr {
            ino: INodeNo(inode),
            size: content.map_or(0, super::content::Content::size),
            blocks: content.map_or(0, super::content::Content::space).div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: self.kind(inode),
            perm: self.about.get(&inode).map_or(0o700, |(mode, _)| *mode),
            nlink: 1,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        }
    }

    fn describe(&mut self, inode: u64, mode: u32, name: &OsStr) {
        let mode = u16::try_from(mode & 0o7777).expect("twelve bits");
        self.about.insert(inode, (mode, name.to_string_lossy().into_owned()));
    }

    fn next_handle(&mut self) -> u64 {
        self.handles += 1;
        self.handles
    }

    /// Syncs, or what the test has put in its place.
    fn sync(&mut self, inode: u64) {
        if self.syncs != Syncs::Ignored {
            self.image.sync(inode);
        }
    }
}

/// The state, and a bell that rings when the power goes or a sync begins to wait.
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) changed: Condvar,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State::new()), changed: Condvar::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One mount of the file system.
pub(crate) struct Mounted(pub(crate) Arc<Shared>);

/// An answer that can say that something failed.
trait Refusable: Send + 'static {
    fn refuse(self, why: Errno);
}

macro_rules! refusable {
    ($($reply:ty),*) => { $(impl Refusable for $reply {
        fn refuse(self, why: Errno) {
            self.error(why);
        }
    })* };
}

refusable!(ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty, ReplyEntry, ReplyWrite);

fn errno(failure: Failure) -> Errno {
    if failure == Failure::NoSpace { Errno::ENOSPC } else { Errno::EIO }
}

impl Mounted {
    fn judge(&self, state: &mut State, act: Act, inode: u64) -> Verdict {
        let verdict = state.plan.judge(act, inode);
        if verdict == Verdict::Off {
            self.0.changed.notify_all();
        }
        verdict
    }

    /// Gives the reply back if the operation goes on; else it was answered, or will be.
    fn admit<R: Refusable>(&self, state: &mut State, act: Act, inode: u64, reply: R) -> Option<R> {
        match self.judge(state, act, inode) {
            Verdict::Go => return Some(reply),
            Verdict::Off => state.hold(move || reply.refuse(Errno::EIO)),
            Verdict::Fail(failure) => reply.refuse(errno(failure)),
        }
        None
    }

    fn make(&self, parent: INodeNo, name: &OsStr, reply: ReplyEntry, mode: u32, directory: Node) {
        let mut state = self.0.lock();
        if state.image.find(parent.0, name).is_some() {
            return reply.error(Errno::EEXIST);
        }
        let Some(reply) = self.admit(&mut state, Act::Create, parent.0, reply) else { return };
        let inode = directory.make(&mut state.image);
        state.describe(inode, mode, name);
        state.image.rename(parent.0, vec![(name.to_owned(), Some(inode))]);
        reply.entry(&AT_ONCE, &state.attributes(inode), Generation(0));
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut state = self.0.lock();
        let Some(inode) = state.image.find(parent.0, name) else { return reply.error(Errno::ENOENT) };
        if state.image.names(inode).is_some_and(|names| !names.is_empty()) {
            return reply.error(Errno::ENOTEMPTY);
        }
        let Some(reply) = self.admit(&mut state, Act::Remove, inode, reply) else { return };
        state.image.rename(parent.0, vec![(name.to_owned(), None)]);
        reply.ok();
    }

    fn sync(&self, act: Act, inode: u64, reply: ReplyEmpty) {
        let mut state = self.0.lock();
        match self.judge(&mut state, act, inode) {
            Verdict::Off => return state.hold(move || reply.error(Errno::EIO)),
            Verdict::Fail(failure) => {
                state.image.fail_sync(inode);
                return if failure == Failure::HiddenSync { reply.ok() } else { reply.error(Errno::EIO) };
            }
            Verdict::Go => {}
        }
        match state.syncs {
            Syncs::Done | Syncs::Ignored => {
                state.sync(inode);
                reply.ok();
            }
            Syncs::Held => {
                state.held_syncs.push((inode, reply));
                self.0.changed.notify_all();
            }
            Syncs::Slow(time) => self.sync_later(time, inode, reply),
        }
    }

    fn sync_later(&self, time: Duration, inode: u64, reply: ReplyEmpty) {
        let shared = self.0.clone();
        std::thread::spawn(move || {
            // The latency of the disk itself, which nothing waits for by it.
            std::thread::sleep(time);
            let mut state = shared.lock();
            if state.plan.is_off() {
                state.hold(move || reply.error(Errno::EIO));
            } else {
                state.sync(inode);
                reply.ok();
            }
        });
    }
}

/// Whether a thread is one of this process: what the test itself reads (the key, to make tokens) neither counts nor fails.
fn is_ours(thread: u32) -> bool {
    std::path::Path::new("/proc/self/task").join(thread.to_string()).exists()
}

#[derive(Clone, Copy)]
enum Node {
    File,
    Directory,
}

impl Node {
    fn make(self, image: &mut Image) -> u64 {
        match self {
            Self::File => image.make_file(),
            Self::Directory => image.make_directory(),
        }
    }
}

impl Filesystem for Mounted {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.0.lock();
        match state.image.find(parent.0, name) {
            Some(inode) => reply.entry(&AT_ONCE, &state.attributes(inode), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let state = self.0.lock();
        if !state.is_there(inode.0) {
            return reply.error(Errno::ENOENT);
        }
        reply.attr(&AT_ONCE, &state.attributes(inode.0));
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.0.lock();
        if let Some(mode) = mode {
            let name = state.name(inode.0).to_owned();
            state.describe(inode.0, mode, OsStr::new(&name));
        }
        let mut reply = reply;
        if let Some(size) = size {
            let Some(admitted) = self.admit(&mut state, Act::Resize, inode.0, reply) else { return };
            state.image.set_size(inode.0, size);
            reply = admitted;
        }
        reply.attr(&AT_ONCE, &state.attributes(inode.0));
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        self.make(parent, name, reply, mode & !umask, Node::Directory);
    }

    fn mknod(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, _: u32, reply: ReplyEntry) {
        self.make(parent, name, reply, mode & !umask, Node::File);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, reply);
    }

    fn rename(
        &self,
        _: &Request,
        from: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut state = self.0.lock();
        let Some(inode) = state.image.find(from.0, name) else { return reply.error(Errno::ENOENT) };
        let there = state.image.find(to.0, new_name).is_some();
        if there && flags.contains(RenameFlags::RENAME_NOREPLACE) {
            return reply.error(Errno::EEXIST);
        }
        if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            return reply.error(Errno::EINVAL);
        }
        let Some(reply) = self.admit(&mut state, Act::Rename, inode, reply) else { return };
        let mut gone = vec![(name.to_owned(), None)];
        let come = (new_name.to_owned(), Some(inode));
        if from == to {
            gone.push(come);
        } else {
            state.image.rename(to.0, vec![come]);
        }
        state.image.rename(from.0, gone);
        let mode = u32::from(state.attributes(inode).perm);
        state.describe(inode, mode, new_name);
        reply.ok();
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let handle = self.0.lock().next_handle();
        reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, _: i32, reply: ReplyCreate) {
        let mut state = self.0.lock();
        if state.image.find(parent.0, name).is_some() {
            return reply.error(Errno::EEXIST);
        }
        let Some(reply) = self.admit(&mut state, Act::Create, parent.0, reply) else { return };
        let inode = state.image.make_file();
        state.describe(inode, mode & !umask, name);
        state.image.rename(parent.0, vec![(name.to_owned(), Some(inode))]);
        let handle = FileHandle(state.next_handle());
        reply.created(&AT_ONCE, &state.attributes(inode), Generation(0), handle, FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        request: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut state = self.0.lock();
        let mut reply = reply;
        if !is_ours(request.pid()) {
            let Some(admitted) = self.admit(&mut state, Act::Read, inode.0, reply) else { return };
            reply = admitted;
        }
        match state.image.content(inode.0) {
            Some(content) => reply.data(&content.read(offset, size as usize)),
            None => reply.error(Errno::EISDIR),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.0.lock();
        let verdict = self.judge(&mut state, Act::Write, inode.0);
        let taken = match verdict {
            Verdict::Go => bytes,
            Verdict::Off => return state.hold(move || reply.error(Errno::EIO)),
            Verdict::Fail(Failure::HiddenWrite) => {
                return reply.written(u32::try_from(bytes.len()).expect("the kernel asks for less"));
            }
            // What fails has written some of it.
            Verdict::Fail(_) => &bytes[..bytes.len().div_ceil(2)],
        };
        state.image.write(inode.0, offset, taken);
        match verdict {
            Verdict::Fail(failure) if failure != Failure::ShortWrite => reply.error(errno(failure)),
            _ => reply.written(u32::try_from(taken.len()).expect("the kernel asks for less")),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mut state = self.0.lock();
        if mode != PUNCH_HOLE {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let Some(reply) = self.admit(&mut state, Act::Resize, inode.0, reply) else { return };
        state.image.zero(inode.0, offset, length);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(Act::Sync, inode.0, reply);
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(Act::SyncNames, inode.0, reply);
    }

    fn opendir(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let mut state = self.0.lock();
        let names = state.image.names(inode.0).cloned().unwrap_or_default();
        // As it is now: names that go while it is read move nothing.
        let listing = names.into_iter().map(|(name, inode)| (name, inode, state.kind(inode))).collect();
        let handle = state.next_handle();
        state.listings.insert(handle, listing);
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let state = self.0.lock();
        let listing = state.listings.get(&handle.0).map_or(&[][..], Vec::as_slice);
        for (place, (name, inode, kind)) in (1..).zip(listing).skip(usize::try_from(offset).expect("small")) {
            if reply.add(INodeNo(*inode), place, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.0.lock().listings.remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCK_BYTES, 255, BLOCK_BYTES);
    }
}
