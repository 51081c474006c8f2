//! The blocking client: one method for each request, one request at a time.

use std::time::{Duration, Instant};

use super::error::ClientError;
use super::event::Event;
use super::groups::GroupView;
use super::link::{Link, Pong, Turn, too_large, unexpected};
use super::session::{RequestId, TooLarge};
use crate::ids::{DeviceId, GroupId, OperationId, UserId};
use crate::wire::{
    Changed, Created, GroupHistory, GroupSeq, GroupShown, GroupSummary, Hello, HistoryOutcome, HistoryRequest,
    LogEntry, Mark, Reply, Request, Stat, VERSION, Welcome, features,
};

/// How long the socket may refuse to take output, and how long an answer may take, if nothing else is said.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// The device of a client that does not name one.
const DEVICE_DEFAULT: &str = "default";

/// How to connect.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// The server as `HOST:PORT`.
    pub server: String,
    /// Who the client is.
    pub token: String,
    /// Which installation of the user it is; the newest connection of a device takes the older one's place.
    pub device: DeviceId,
    /// The heartbeat interval to ask for, in seconds; 0 for the server's default.
    pub heartbeat_s: u16,
    /// How long to wait for the connection and for each answer.
    pub timeout: Duration,
}

impl ConnectOptions {
    /// With the device `default`, the server's heartbeat, and ten seconds for each answer.
    pub fn new(server: impl Into<String>, token: impl Into<String>) -> Self {
        let device = DeviceId::new(DEVICE_DEFAULT).expect("the default is legal");
        Self { server: server.into(), token: token.into(), device, heartbeat_s: 0, timeout: TIMEOUT_DEFAULT }
    }

    /// With another device.
    #[must_use]
    pub fn with_device(mut self, device: DeviceId) -> Self {
        self.device = device;
        self
    }
}

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

/// A connected client that blocks.
///
/// Events that come while an answer is awaited are kept for [`Client::next_event`], in order. After an error other
/// than [`ClientError::Refused`] and [`ClientError::TooLarge`] the connection is of no more use: connect again.
#[derive(Debug)]
pub struct Client {
    link: Link,
    welcome: Welcome,
}

impl Client {
    /// Connects and authenticates. A connection gets pushes only after [`Self::attach_marks`] or
    /// [`Self::attach_device`].
    pub fn connect(options: ConnectOptions) -> Result<Self, ClientError> {
        let mut link = Link::connect(&options.server, options.timeout)?;
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            features: features::SERVED,
            heartbeat_s: options.heartbeat_s,
            device: options.device,
            token: options.token,
        };
        let outcome = match link.session.hello(hello) {
            Ok(request) => link.answer(request, None),
            Err(TooLarge { max }) => Err(ClientError::TooLarge { max }),
        };
        match outcome {
            Ok(Reply::Welcome(welcome)) => Ok(Self { link, welcome }),
            Ok(other) => Err(unexpected(&other)),
            // Closing is how a hello is refused.
            Err(ClientError::Closed { reason: Some(reason) }) => Err(ClientError::Refused(reason)),
            Err(error) => Err(error),
        }
    }

    /// What the server granted: the user, the limits, the heartbeat.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// The user that the token names.
    pub fn user(&self) -> &UserId {
        &self.welcome.user
    }

    /// Goes on line with the user's received marks: for a client that keeps nothing. What was missed, and then what
    /// happens, comes out of [`Self::next_event`]; [`Event::Ready`] stands between the two.
    pub fn attach_marks(&mut self) -> Result<(), ClientError> {
        let request = self.link.session.attach_marks().map_err(too_large)?;
        self.attached(request)
    }

    /// Goes on line with what this device has: the highest seq of each group that it keeps.
    pub fn attach_device(&mut self, groups: &[GroupSeq]) -> Result<(), ClientError> {
        let request = self.link.session.attach_device(groups).map_err(too_large)?;
        self.attached(request)
    }

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
        match self.change(operation, &request)? {
            Reply::Created(created) => Ok(created),
            other => Err(unexpected(&other)),
        }
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
        self.changed(operation, &Request::Send { operation, group, body: body.as_ref().into() })
    }

    /// Leaves a group. When the owner leaves, the longest-standing member becomes owner; when the last member leaves,
    /// the group is dissolved.
    pub fn leave(&mut self, group: GroupId) -> Result<Changed, ClientError> {
        self.leave_with(OperationId::random(), group)
    }

    /// The same with an operation id.
    pub fn leave_with(&mut self, operation: OperationId, group: GroupId) -> Result<Changed, ClientError> {
        self.changed(operation, &Request::Leave { operation, group })
    }

    /// The record of a group.
    pub fn group(&mut self, group: GroupId) -> Result<GroupShown, ClientError> {
        match self.ask(&Request::GetGroup { group, newer_than: 0 })? {
            Reply::GroupShown(shown) => Ok(shown),
            other => Err(unexpected(&other)),
        }
    }

    /// All groups of the user, however many pages they take.
    pub fn list_groups(&mut self) -> Result<Vec<GroupSummary>, ClientError> {
        let mut all: Vec<GroupSummary> = Vec::new();
        loop {
            let after = all.last().map(|summary| summary.group);
            match self.ask(&Request::ListGroups { after, count_max: 0 })? {
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
        let request = HistoryRequest { groups, entries_max: limit, bytes_max: 0 };
        match self.ask(&Request::History(request))? {
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

    /// Says how far this device has received and read groups. There is no answer; [`Self::ping`] afterwards makes
    /// sure that the server has taken it.
    pub fn acknowledge(&mut self, marks: &[Mark]) -> Result<(), ClientError> {
        self.link.session.request(&Request::Acknowledge { marks: marks.to_vec() }).map_err(too_large)?;
        self.link.flush()
    }

    /// Asks whether the server is there. Everything that was sent before has been taken once it answers.
    pub fn ping(&mut self) -> Result<Pong, ClientError> {
        self.link.ping()
    }

    /// Counters and gauges of the server; for the operator role.
    pub fn stats(&mut self) -> Result<Vec<Stat>, ClientError> {
        match self.ask(&Request::Stats)? {
            Reply::StatsListed { stats } => Ok(stats),
            other => Err(unexpected(&other)),
        }
    }

    /// A backup of everything that is durable when the server takes the request; for the operator role. `path`: a
    /// directory on the server's machine, absolute, empty or absent. `patience`: how long it may take. Gives how many
    /// files it has, and how many bytes.
    pub fn backup(&mut self, path: &str, patience: Duration) -> Result<(u64, u64), ClientError> {
        let request = self.link.session.request(&Request::Backup { path: path.to_owned() }).map_err(too_large)?;
        match self.link.answer_within(request, patience)? {
            Reply::BackupDone { files, bytes } => Ok((files, bytes)),
            other => Err(unexpected(&other)),
        }
    }

    /// The groups that the user is in, as far as this connection was told of them: what a user interface shows.
    pub fn groups(&self) -> impl Iterator<Item = GroupView<'_>> {
        self.link.session.groups()
    }

    /// One of them.
    pub fn group_view(&self, group: GroupId) -> Option<GroupView<'_>> {
        self.link.session.group(group)
    }

    /// The next event. `None` once the time is up, or earlier if a signal interrupted the wait; without a timeout it
    /// waits for ever. Pings the server while it waits.
    pub fn next_event(&mut self, timeout: Option<Duration>) -> Result<Option<Event>, ClientError> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            if let Some(event) = self.link.session.poll_event() {
                return Ok(Some(event));
            }
            match self.link.turn(deadline)? {
                Turn::Moved => {}
                Turn::TimeUp | Turn::Interrupted => return Ok(self.link.session.poll_event()),
            }
        }
    }

    fn attached(&mut self, request: RequestId) -> Result<(), ClientError> {
        match self.link.answer(request, None)? {
            Reply::Attached => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        let request = self.link.session.request(request).map_err(too_large)?;
        self.link.answer(request, None)
    }

    fn change(&mut self, operation: OperationId, request: &Request) -> Result<Reply, ClientError> {
        let request = self.link.session.request(request).map_err(too_large)?;
        self.link.answer(request, Some(operation))
    }

    fn changed(&mut self, operation: OperationId, request: &Request) -> Result<Changed, ClientError> {
        match self.change(operation, request)? {
            Reply::Changed(_, changed) => Ok(changed),
            other => Err(unexpected(&other)),
        }
    }
}

/// Asks whether a server is there and ready. Needs no token.
pub fn ping(server: &str, timeout: Duration) -> Result<Pong, ClientError> {
    Link::connect(server, timeout)?.ping()
}
