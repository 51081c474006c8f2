//! What a client can ask, method by method. Each blocks until the answer is there; see [`Client`] for what happens to
//! connections that break meanwhile.
//!
//! Each change has a form with an operation id: the same id again gives the same answer and changes nothing, also from
//! another process, also after a crash of either side. A program that may die between asking and hearing makes the id
//! itself, keeps it, and asks again with it.

use std::time::{Duration, Instant};

use super::driver::{Driver, Manner};
use super::{Client, ConnectOptions};
use crate::client::error::{ClientError, SessionError};
use crate::client::retry::{Backoff, RetryPolicy};
use crate::ids::{GroupId, OperationId, UserId};
use crate::wire::{
    Changed, ConnectionRow, Created, GroupHistory, GroupSeq, GroupShown, GroupSummary, HistoryOutcome, HistoryRequest,
    LogEntry, Reply, Request, Stat, UserMarks,
};

/// One page of a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryPart {
    /// The seq of the last entry of the group.
    pub head: u64,
    /// The lowest seq that the log still has.
    pub floor: u64,
    /// Ascending, without gap, from the seq that was asked for. The page is full if they end below the head.
    pub entries: Vec<LogEntry>,
}

/// What a server says to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// The server's clock, in milliseconds since 1970.
    pub server_time_ms: u64,
    /// Whether it serves requests already.
    pub ready: bool,
    /// How long the answer took.
    pub round_trip: Duration,
}

/// Changes.
impl Client {
    /// Makes a group of the user and these members. Returns once it is durable and in the buffers of all who are on
    /// line. `title`: at most 256 bytes, may be empty. `members`: the creator need not be named; duplicates collapse.
    pub fn create(&mut self, title: &str, members: &[UserId]) -> Result<Created, ClientError> {
        self.create_with(OperationId::random(), title, members)
    }

    /// The same with an operation id: saying it again changes nothing and gives the same group.
    pub fn create_with(
        &mut self,
        operation: OperationId,
        title: &str,
        members: &[UserId],
    ) -> Result<Created, ClientError> {
        let request = Request::Create { operation, title: title.into(), members: members.to_vec() };
        match self.ask(&request, Some(operation), Manner::Persistent)? {
            Reply::Created(created) => Ok(created),
            other => Err(unexpected(&other)),
        }
    }

    /// Adds members, in this order; those who are members already stay where they are. Any member may. Whoever is added
    /// gets the group packet.
    pub fn add(&mut self, group: GroupId, members: &[UserId]) -> Result<Changed, ClientError> {
        self.add_with(OperationId::random(), group, members)
    }

    /// The same with an operation id.
    pub fn add_with(
        &mut self,
        operation: OperationId,
        group: GroupId,
        members: &[UserId],
    ) -> Result<Changed, ClientError> {
        self.change(operation, &Request::Add { operation, group, members: members.to_vec() })
    }

    /// Removes members; those who are none are ignored. The owner may; removing oneself alone is leaving.
    pub fn remove(&mut self, group: GroupId, members: &[UserId]) -> Result<Changed, ClientError> {
        self.remove_with(OperationId::random(), group, members)
    }

    /// The same with an operation id.
    pub fn remove_with(
        &mut self,
        operation: OperationId,
        group: GroupId,
        members: &[UserId],
    ) -> Result<Changed, ClientError> {
        self.change(operation, &Request::Remove { operation, group, members: members.to_vec() })
    }

    /// Leaves a group. When the owner leaves, the longest-standing member becomes owner; when the last member leaves,
    /// the group is dissolved.
    pub fn leave(&mut self, group: GroupId) -> Result<Changed, ClientError> {
        self.leave_with(OperationId::random(), group)
    }

    /// The same with an operation id.
    pub fn leave_with(&mut self, operation: OperationId, group: GroupId) -> Result<Changed, ClientError> {
        self.change(operation, &Request::Leave { operation, group })
    }

    /// Gives a group another title: at most 256 bytes, may be empty. The owner may.
    pub fn rename(&mut self, group: GroupId, title: &str) -> Result<Changed, ClientError> {
        self.rename_with(OperationId::random(), group, title)
    }

    /// The same with an operation id.
    pub fn rename_with(&mut self, operation: OperationId, group: GroupId, title: &str) -> Result<Changed, ClientError> {
        self.change(operation, &Request::Rename { operation, group, title: title.into() })
    }

    /// Makes another member the owner. The owner may.
    pub fn transfer(&mut self, group: GroupId, owner: &UserId) -> Result<Changed, ClientError> {
        self.transfer_with(OperationId::random(), group, owner)
    }

    /// The same with an operation id.
    pub fn transfer_with(
        &mut self,
        operation: OperationId,
        group: GroupId,
        owner: &UserId,
    ) -> Result<Changed, ClientError> {
        self.change(operation, &Request::Transfer { operation, group, owner: owner.clone() })
    }

    /// Ends a group. The owner may.
    pub fn dissolve(&mut self, group: GroupId) -> Result<Changed, ClientError> {
        self.dissolve_with(OperationId::random(), group)
    }

    /// The same with an operation id.
    pub fn dissolve_with(&mut self, operation: OperationId, group: GroupId) -> Result<Changed, ClientError> {
        self.change(operation, &Request::Dissolve { operation, group })
    }

    /// Sends a message to all members. `body`: at most 64 KiB, opaque to the server. Returns its seq, once durable.
    pub fn send(&mut self, group: GroupId, body: impl AsRef<[u8]>) -> Result<Changed, ClientError> {
        self.send_with(OperationId::random(), group, body)
    }

    /// The same with an operation id.
    pub fn send_with(
        &mut self,
        operation: OperationId,
        group: GroupId,
        body: impl AsRef<[u8]>,
    ) -> Result<Changed, ClientError> {
        self.change(operation, &Request::Send { operation, group, body: body.as_ref().into() })
    }

    /// Sends a message to some members, all of whom have to be; the others see that a seq was used, and nothing more.
    pub fn whisper(&mut self, group: GroupId, to: &[UserId], body: impl AsRef<[u8]>) -> Result<Changed, ClientError> {
        self.whisper_with(OperationId::random(), group, to, body)
    }

    /// The same with an operation id.
    pub fn whisper_with(
        &mut self,
        operation: OperationId,
        group: GroupId,
        to: &[UserId],
        body: impl AsRef<[u8]>,
    ) -> Result<Changed, ClientError> {
        self.change(operation, &Request::Whisper { operation, group, to: to.to_vec(), body: body.as_ref().into() })
    }

    fn change(&mut self, operation: OperationId, request: &Request) -> Result<Changed, ClientError> {
        match self.ask(request, Some(operation), Manner::Persistent)? {
            Reply::Changed(_, changed) => Ok(changed),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks until there is an answer, a refusal that waiting does not help against, or no more time.
    fn ask(&mut self, request: &Request, operation: Option<OperationId>, manner: Manner) -> Result<Reply, ClientError> {
        let (began, mut full) = (Instant::now(), Backoff::default());
        loop {
            match self.driver.ask(request.clone(), self.acting.clone(), operation, manner, began) {
                Err(ClientError::Refused(refusal)) => match self.driver.patience(&refusal, began, &mut full) {
                    Some(wait) => self.driver.wait(wait)?,
                    None => return Err(ClientError::Refused(refusal)),
                },
                other => return other,
            }
        }
    }

    fn read(&mut self, request: &Request) -> Result<Reply, ClientError> {
        self.ask(request, None, Manner::Persistent)
    }
}

/// Reading, and what is not stored.
impl Client {
    /// The record of a group.
    pub fn group(&mut self, group: GroupId) -> Result<GroupShown, ClientError> {
        self.group_if_newer(group, 0)
    }

    /// The record of a group if its version is above `version`; else [`GroupShown::Unchanged`].
    pub fn group_if_newer(&mut self, group: GroupId, version: u64) -> Result<GroupShown, ClientError> {
        match self.read(&Request::GetGroup { group, newer_than: version })? {
            Reply::GroupShown(shown) => Ok(shown),
            other => Err(unexpected(&other)),
        }
    }

    /// All groups of the user, however many pages they take. An operator asks for those of the user that it is
    /// [`Client::acting_for`].
    pub fn list_groups(&mut self) -> Result<Vec<GroupSummary>, ClientError> {
        let mut all: Vec<GroupSummary> = Vec::new();
        loop {
            let after = all.last().map(|summary| summary.group);
            match self.read(&Request::ListGroups { after, count_max: 0 })? {
                Reply::GroupsListed { more, groups } => {
                    let done = !more || groups.is_empty();
                    all.extend(groups);
                    if done {
                        return Ok(all);
                    }
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// One page of a group's log, from a seq (the first is 1), at most `limit` entries; 0 for the server's limit.
    pub fn history(&mut self, group: GroupId, from: u64, limit: u32) -> Result<HistoryPart, ClientError> {
        let groups = vec![GroupSeq { group, seq: from }];
        match self.read(&Request::History(HistoryRequest { groups, entries_max: limit, bytes_max: 0 }))? {
            Reply::HistoryPage { mut groups } => match groups.pop() {
                Some(GroupHistory { outcome: HistoryOutcome::Entries { head, floor, entries }, .. }) => {
                    Ok(HistoryPart { head, floor, entries })
                }
                Some(GroupHistory { outcome: HistoryOutcome::Refused(error), .. }) => Err(ClientError::Refused(error)),
                None => Err(unexpected(&Reply::HistoryPage { groups })),
            },
            other => Err(unexpected(&other)),
        }
    }

    /// How far the members of a group have received and read it, in the order of joining; with `seq` above 0 only
    /// those whose mark has reached it.
    pub fn readers(&mut self, group: GroupId, seq: u64) -> Result<Vec<UserMarks>, ClientError> {
        match self.read(&Request::Readers { group, seq })? {
            Reply::ReadersListed { readers, .. } => Ok(readers),
            other => Err(unexpected(&other)),
        }
    }

    /// Something ephemeral for the members who are on line at this moment: typing and the like. Never stored, never
    /// said again, no answer; [`Self::ping`] afterwards makes sure that the server has taken it.
    pub fn signal(&mut self, group: GroupId, body: impl AsRef<[u8]>) -> Result<(), ClientError> {
        let request = Request::Signal { group, body: body.as_ref().into() };
        self.driver.say_once(&request, self.acting.as_ref())
    }

    /// For a service: begins, or goes on with, the feed of all entries behind a position; 0: from now. The items come
    /// out of [`Self::next_event`]. Returns the position where it begins. Goes on by itself after a reconnection.
    pub fn feed(&mut self, position: u64) -> Result<u64, ClientError> {
        match self.driver.ask(Request::Feed { position }, None, None, Manner::Persistent, Instant::now())? {
            Reply::FeedBegun { position } => Ok(position),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks whether the server is there. Everything that was sent before has been taken once it answers.
    pub fn ping(&mut self) -> Result<Pong, ClientError> {
        pong(&mut self.driver)
    }
}

/// For operators.
impl Client {
    /// Counters and gauges of the server.
    pub fn stats(&mut self) -> Result<Vec<Stat>, ClientError> {
        match self.read(&Request::Stats)? {
            Reply::StatsListed { stats } => Ok(stats),
            other => Err(unexpected(&other)),
        }
    }

    /// All connections of the server, however many pages they take, in the order of their numbers.
    pub fn connections(&mut self) -> Result<Vec<ConnectionRow>, ClientError> {
        let mut all: Vec<ConnectionRow> = Vec::new();
        loop {
            let after = all.last().map_or(0, |row| row.connection);
            match self.read(&Request::Connections { after, count_max: 0 })? {
                Reply::ConnectionsListed { more, connections } => {
                    let done = !more || connections.is_empty();
                    all.extend(connections);
                    if done {
                        return Ok(all);
                    }
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Closes the connections of a user; says how many there were.
    pub fn kick(&mut self, user: &UserId) -> Result<u32, ClientError> {
        match self.read(&Request::Kick { user: user.clone() })? {
            Reply::KickDone { connections } => Ok(connections),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes a backup into a directory on the server's machine; gives files and bytes. Takes as long as it takes, and
    /// is not tried again: what is there after a broken connection has to be looked at.
    pub fn backup(&mut self, path: &str) -> Result<(u64, u64), ClientError> {
        match self.ask(&Request::Backup { path: path.to_owned() }, None, Manner::Patient)? {
            Reply::BackupDone { files, bytes } => Ok((files, bytes)),
            other => Err(unexpected(&other)),
        }
    }
}

/// Asks whether a server is there and ready. Needs no token, and tries once.
pub fn ping(server: &str, timeout: Duration) -> Result<Pong, ClientError> {
    let mut options = ConnectOptions::new(server, "").with_retry(RetryPolicy::NONE);
    options.timeout = timeout;
    pong(&mut Driver::begin(options, None)?)
}

fn pong(driver: &mut Driver) -> Result<Pong, ClientError> {
    let sent = Instant::now();
    match driver.ask(Request::Ping, None, None, Manner::Persistent, sent)? {
        Reply::Pong { server_time_ms, ready } => Ok(Pong { server_time_ms, ready, round_trip: sent.elapsed() }),
        other => Err(unexpected(&other)),
    }
}

pub(super) fn unexpected(reply: &Reply) -> ClientError {
    ClientError::Protocol(SessionError::Unexpected { kind: reply.kind().number() })
}
