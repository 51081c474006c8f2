//! The raw limit, as the generator sees it: requests and pushes are as long as roundtable's, and pushes are the same
//! frames, so the same code receives them.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};

use super::super::child::Child;
use super::super::failed;
use super::super::raw::Plan;
use super::roundtable::{Frames, cut};
use super::{Cut, Load, Peer, Seat, Task};
use crate::cli::failure::Failure;

pub(in crate::cli::bench) struct RawLimit {
    child: Child,
    /// It ends when this does.
    _input: ChildStdin,
    address: SocketAddr,
    task: Task,
    request: Vec<u8>,
}

impl RawLimit {
    pub(in crate::cli::bench) fn start(load: &Load, directory: &Path) -> Result<Self, Failure> {
        let Frames { request, push, answer } = Frames::of(load);
        let durable = !matches!(load.task, Task::Signal | Task::Idle);
        let pushes = load.receivers() > 0;
        let plan = Plan {
            senders: load.senders,
            groups: if pushes { load.groups.max(1) } else { 0 },
            members: load.members,
            request_bytes: request.len(),
            answer,
            push,
            file: durable.then(|| directory.join("raw")),
        };
        let program = std::env::current_exe().map_err(|error| failed(format!("where is this program? {error}")))?;
        let mut command = Command::new(program);
        command.args(["bench", "raw"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let (child, input, line) = start(command, &plan)?;
        let address = line.rsplit(' ').next().and_then(|text| text.parse().ok());
        let address = address.ok_or_else(|| failed(format!("the raw limit says no address: {line}")))?;
        Ok(Self { child, _input: input, address, task: load.task, request })
    }
}

fn start(command: Command, plan: &Plan) -> Result<(Child, ChildStdin, String), Failure> {
    let mut line = serde_json::to_string(plan).map_err(|error| failed(error.to_string()))?;
    line.push('\n');
    let (mut child, said) = Child::begin("raw", command, |line| line.starts_with("listening on "))?;
    let mut input = child.input().ok_or_else(|| failed("the raw limit has no input"))?;
    input.write_all(line.as_bytes()).map_err(|error| failed(format!("the raw limit reads nothing: {error}")))?;
    let line = said.await_ready()?;
    Ok((child, input, line))
}

impl Peer for RawLimit {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn process(&self) -> Option<u32> {
        Some(self.child.id())
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn begin(&mut self, _round: usize) {}

    fn opening(&mut self, _seat: Seat, _number: usize) -> Vec<u8> {
        Vec::new()
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
