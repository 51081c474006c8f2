//! The raw limit, as the generator sees it: requests and pushes are as long as roundtable's, and pushes are the same
//! frames, so the same code receives them.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ChildStdin;

use roundtable::wire::Push;

use super::super::child::{Child, PATIENCE};
use super::super::failed;
use super::super::raw::Plan;
use super::roundtable::{Frames, cut};
use super::{Absent, Cut, Load, Peer, PeerName, Seat, Started, Task};
use crate::cli::failure::Failure;

pub(in crate::cli::bench) struct RawLimit {
    /// It ends when its input does; none if somebody else has started it.
    process: Option<(Child, ChildStdin)>,
    address: SocketAddr,
    task: Task,
    request: Vec<u8>,
    syncs_beside: bool,
}

impl RawLimit {
    pub(in crate::cli::bench) fn start(load: &Load, directory: &Path) -> Result<Self, Failure> {
        Self::start_one(load, directory, false)
    }

    /// The raw limit of a server that does not let a slow disk stop its connections: it syncs on a thread of its own.
    pub(super) fn start_beside(load: &Load, directory: &Path) -> Result<Started, Failure> {
        if load.is_durable() {
            return Ok(Started::Peer(Box::new(Self::start_one(load, directory, true)?)));
        }
        Ok(Started::Absent(Absent::NotComparable("nothing is stored here, so it is the raw limit")))
    }

    fn start_one(load: &Load, directory: &Path, syncs_beside: bool) -> Result<Self, Failure> {
        let Frames { request, push, answer } = Frames::of(load);
        let pushes = load.receivers() > 0;
        let mut greeting = Vec::new();
        Push::Ready.encode_frame(&mut greeting);
        let plan = Plan {
            greeting,
            senders: load.senders,
            groups: if pushes { load.groups.max(1) } else { 0 },
            members: load.members,
            request_bytes: request.len(),
            answer,
            push,
            file: load.is_durable().then(|| directory.join(name(syncs_beside))),
            syncs_beside,
        };
        let (child, input, said) = Child::own("raw", &plan, |line| line.starts_with("listening on "))?;
        let line = said.await_ready(PATIENCE)?;
        let address = line.rsplit(' ').next().and_then(|text| text.parse().ok());
        let address = address.ok_or_else(|| failed(format!("the raw limit says no address: {line}")))?;
        Ok(Self { process: Some((child, input)), address, task: load.task, request, syncs_beside })
    }

    /// One that somebody else has started, for the same load.
    pub(in crate::cli::bench) fn running(load: &Load, address: SocketAddr) -> Self {
        Self { process: None, address, task: load.task, request: Frames::of(load).request, syncs_beside: false }
    }
}

fn name(syncs_beside: bool) -> &'static str {
    if syncs_beside { PeerName::RawThread.word() } else { "raw" }
}

impl Peer for RawLimit {
    fn name(&self) -> &'static str {
        name(self.syncs_beside)
    }

    fn process(&self) -> Option<u32> {
        self.process.as_ref().map(|(child, _)| child.id())
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn begin(&mut self, _round: usize) {}

    fn opening(&mut self, _seat: Seat, _number: usize) -> Vec<u8> {
        // It only has to say that it is there.
        vec![0]
    }

    fn request(&mut self, _sender: usize, group: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.request);
        let number = u32::try_from(group).unwrap_or(0);
        out[start..start + 4].copy_from_slice(&number.to_be_bytes());
    }

    fn cut(&self, seat: Seat, bytes: &[u8]) -> Result<Option<Cut>, String> {
        cut(self.task, seat, bytes)
    }
}
