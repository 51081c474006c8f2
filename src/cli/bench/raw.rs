//! The raw limit: a process that does only the system calls that nobody can avoid.
//!
//! It waits for requests, reads them, writes as many bytes into a file and syncs that if they are to be durable, and
//! sends answers and pushes of the right lengths: what has come together is written, synced and sent together. It
//! looks at nothing in a request but the number of the group in its first four bytes. It is measured as the server is.
//!
//! It waits for its disk, and everybody for it. Where that must not be ([`Plan::syncs_beside`]), a thread writes and
//! syncs, and what comes meanwhile is read and waits for the next sync.

use std::fs::File;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender as Outlet};

use clap::Args;
use mio::{Events, Interest, Poll, Token, Waker};
use serde::{Deserialize, Serialize};

use super::failed;
use crate::cli::failure::Failure;

/// The file is filled beforehand, as segments of the journal are, and written around.
const FILE_BYTES: u64 = 64 << 20;
/// As much as the server reads at once.
const READ_BYTES: usize = 64 * 1024;
/// Something is synced; senders have the tokens below.
const SYNCED: Token = Token(usize::MAX);

/// What it does: one line of JSON on its standard input, which stays open for as long as it is to live.
#[derive(Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) senders: usize,
    pub(super) groups: usize,
    /// Members of each group that are on line.
    pub(super) members: usize,
    pub(super) request_bytes: usize,
    pub(super) answer: Vec<u8>,
    pub(super) push: Vec<u8>,
    /// What a connection is told once it is accepted.
    pub(super) greeting: Vec<u8>,
    /// Where to write what is to be durable.
    pub(super) file: Option<PathBuf>,
    /// On a thread of its own.
    pub(super) syncs_beside: bool,
}

/// The raw limit of `bench`, in a process of its own
#[derive(Args)]
pub(super) struct Raw {}

impl Raw {
    #[allow(clippy::unused_self)] // every command has this shape
    pub(super) fn run(self) -> Result<(), Failure> {
        serve().map_err(|error| failed(format!("the raw limit: {error}")))
    }
}

fn serve() -> io::Result<()> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let plan: Plan = serde_json::from_str(&line)?;
    // Whoever started it may be killed at any time.
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(0);
    });
    let mut log = plan.file.as_deref().map(Log::create).transpose()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let senders = accept(&listener, plan.senders, &plan.greeting)?;
        let members = accept(&listener, plan.groups * plan.members, &plan.greeting)?;
        let mut floor = Floor { plan: &plan, members, log: log.as_mut(), counts: vec![0; plan.groups.max(1)] };
        // A round ends when its connections do.
        if let Err(error) = floor.run(senders) {
            let over = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            if !over.contains(&error.kind()) {
                return Err(error);
            }
        }
    }
}

/// Each says a byte and is greeted: whoever connects waits for that before it makes the next connection. Without it a busy
/// system hands connections out in another order than they were made in, and members would sit in each other's groups.
fn accept(listener: &TcpListener, count: usize, greeting: &[u8]) -> io::Result<Vec<TcpStream>> {
    let one = |_| {
        let (mut socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        socket.read_exact(&mut [0])?;
        socket.write_all(greeting)?;
        Ok(socket)
    };
    (0..count).map(one).collect()
}

/// A file that is synced.
struct Log {
    file: File,
    offset: u64,
}

impl Log {
    fn create(path: &Path) -> io::Result<Self> {
        let file = File::create(path)?;
        let zeros = vec![0; 1 << 20];
        for offset in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, offset)?;
        }
        file.sync_all()?;
        Ok(Self { file, offset: 0 })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u64::try_from(bytes.len()).unwrap_or(FILE_BYTES);
        if self.offset + length > FILE_BYTES {
            self.offset = 0;
        }
        self.file.write_all_at(bytes, self.offset)?;
        self.offset += length;
        self.file.sync_data()
    }
}

/// One round.
struct Floor<'a> {
    plan: &'a Plan,
    members: Vec<TcpStream>,
    log: Option<&'a mut Log>,
    /// Requests to each group in this turn.
    counts: Vec<usize>,
}

/// A sender's connection, and the beginning of a request that has not come whole.
struct Sender {
    socket: mio::net::TcpStream,
    kept: Vec<u8>,
    /// Whole requests of this turn.
    whole: usize,
}

impl Floor<'_> {
    fn run(&mut self, senders: Vec<TcpStream>) -> io::Result<()> {
        if self.plan.syncs_beside
            && let Some(log) = self.log.take()
        {
            return self.run_beside(senders, log);
        }
        match <[TcpStream; 1]>::try_from(senders) {
            Ok([sender]) => self.run_alone(sender),
            Err(senders) => self.run_many(senders),
        }
    }

    /// One sender needs no `epoll`.
    fn run_alone(&mut self, mut sender: TcpStream) -> io::Result<()> {
        let mut scratch = vec![0; READ_BYTES];
        let mut kept = 0;
        loop {
            let read = sender.read(&mut scratch[kept..])?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let (filled, size) = (kept + read, self.plan.request_bytes);
            if filled >= scratch.len() {
                scratch.resize(2 * scratch.len(), 0);
            }
            let whole = filled / size;
            scratch[..whole * size].chunks_exact(size).for_each(|request| self.count(request));
            if whole > 0 {
                self.store(&scratch[..whole * size])?;
                sender.write_all(&self.plan.answer.repeat(whole))?;
                self.push()?;
            }
            scratch.copy_within(whole * size..filled, 0);
            kept = filled - whole * size;
        }
    }

    fn run_many(&mut self, senders: Vec<TcpStream>) -> io::Result<()> {
        let mut poll = Poll::new()?;
        let mut senders = register(&poll, senders)?;
        let mut events = Events::with_capacity(1024);
        let mut scratch = vec![0; READ_BYTES];
        let mut batch = Vec::new();
        loop {
            poll.poll(&mut events, None)?;
            batch.clear();
            for event in &events {
                let sender = &mut senders[event.token().0];
                sender.read(&mut scratch, self.plan.request_bytes, &mut batch)?;
            }
            if batch.is_empty() {
                continue;
            }
            self.store(&batch)?;
            for event in &events {
                let sender = &mut senders[event.token().0];
                let answers = self.plan.answer.repeat(std::mem::take(&mut sender.whole));
                // A few dozen bytes to somebody who waits for them.
                sender.socket.write_all(&answers)?;
            }
        }
    }

    /// A disk that is slow delays answers, and no reading.
    fn run_beside(&mut self, senders: Vec<TcpStream>, log: &mut Log) -> io::Result<()> {
        let mut poll = Poll::new()?;
        let mut senders = register(&poll, senders)?;
        let waker = Waker::new(poll.registry(), SYNCED)?;
        let mut events = Events::with_capacity(1024);
        let mut scratch = vec![0; READ_BYTES];
        std::thread::scope(|scope| {
            let (batches, to_sync) = mpsc::channel();
            let (outlet, synced) = mpsc::channel();
            scope.spawn(move || sync_all(log, &to_sync, &outlet, &waker));
            loop {
                poll.poll(&mut events, None)?;
                let mut batch = Batch::default();
                for event in events.iter().filter(|event| event.token() != SYNCED) {
                    let sender = &mut senders[event.token().0];
                    sender.read(&mut scratch, self.plan.request_bytes, &mut batch.requests)?;
                    batch.senders.extend(std::iter::repeat_n(event.token().0, std::mem::take(&mut sender.whole)));
                }
                if !batch.senders.is_empty() {
                    let _ = batches.send(batch);
                }
                while let Ok(batch) = synced.try_recv() {
                    let Batch { requests, senders: slots } = batch?;
                    requests.chunks_exact(self.plan.request_bytes).for_each(|request| self.count(request));
                    for run in slots.chunk_by(|one, next| one == next) {
                        senders[run[0]].socket.write_all(&self.plan.answer.repeat(run.len()))?;
                    }
                    self.push()?;
                }
            }
        })
    }

    fn count(&mut self, request: &[u8]) {
        let number = request.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        let groups = self.counts.len();
        self.counts[usize::try_from(number).unwrap_or(0) % groups] += 1;
    }

    fn store(&mut self, requests: &[u8]) -> io::Result<()> {
        self.log.as_mut().map_or(Ok(()), |log| log.append(requests))
    }

    /// To each member of each group what came for it, with one call.
    fn push(&mut self) -> io::Result<()> {
        if self.members.is_empty() {
            return Ok(());
        }
        for (group, count) in self.counts.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
            let block = self.plan.push.repeat(std::mem::take(count));
            let first = group * self.plan.members;
            for member in &mut self.members[first..first + self.plan.members] {
                member.write_all(&block)?;
            }
        }
        Ok(())
    }
}

/// What was read together.
#[derive(Default)]
struct Batch {
    requests: Vec<u8>,
    /// Whose each of them is.
    senders: Vec<usize>,
}

/// Writes and syncs what has come, all of it at once, and gives it back; until nothing comes any more.
fn sync_all(log: &mut Log, batches: &Receiver<Batch>, synced: &Outlet<io::Result<Batch>>, waker: &Waker) {
    while let Ok(mut batch) = batches.recv() {
        for more in batches.try_iter() {
            batch.requests.extend(more.requests);
            batch.senders.extend(more.senders);
        }
        let outcome = log.append(&batch.requests).map(|()| batch);
        // The round may be over.
        if synced.send(outcome).is_err() || waker.wake().is_err() {
            return;
        }
    }
}

fn register(poll: &Poll, senders: Vec<TcpStream>) -> io::Result<Vec<Sender>> {
    let register = |(slot, socket): (usize, TcpStream)| {
        socket.set_nonblocking(true)?;
        let mut socket = mio::net::TcpStream::from_std(socket);
        poll.registry().register(&mut socket, Token(slot), Interest::READABLE)?;
        Ok(Sender { socket, kept: Vec::new(), whole: 0 })
    };
    senders.into_iter().enumerate().map(register).collect()
}

impl Sender {
    /// Reads what is there, and appends the whole requests of it.
    fn read(&mut self, scratch: &mut [u8], request_bytes: usize, batch: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let read = match self.socket.read(scratch) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.kept.extend_from_slice(&scratch[..read]);
            let whole = self.kept.len() / request_bytes;
            batch.extend(self.kept.drain(..whole * request_bytes));
            self.whole += whole;
            if read < scratch.len() {
                return Ok(());
            }
        }
    }
}
