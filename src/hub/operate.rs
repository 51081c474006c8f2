//! What operators ask: who is connected, and that somebody be cut off. Each such request leaves a line to be logged.

use std::fmt;

use super::Hub;
use super::connection::{Connection, ConnectionKey, Presence};
use super::reads::page;
use super::task::Caller;
use crate::ids::{Role, UserId};
use crate::limits::LIST_CONNECTIONS_MAX;
use crate::wire::{ConnectionRow, ErrorCode, Reply, Request};

/// What an operator did, for the log. Text of peers is quoted and escaped when it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// The name in the operator's token.
    pub operator: UserId,
    /// The number of its connection.
    pub connection: u64,
    /// What it asked for.
    pub act: Audited,
}

/// A request of an operator that is worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audited {
    /// The record of a group.
    ShowGroup(crate::ids::GroupId),
    /// The groups of a user.
    ListGroups(UserId),
    /// The connections.
    ListConnections,
    /// That a user be cut off.
    Kick(UserId),
    /// A backup into this directory.
    Backup(String),
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operator {:?} on connection {} asks ", self.operator, self.connection)?;
        match &self.act {
            Audited::ShowGroup(group) => write!(f, "for the record of {group}"),
            Audited::ListGroups(user) => write!(f, "for the groups of {user:?}"),
            Audited::ListConnections => f.write_str("for the connections"),
            Audited::Kick(user) => write!(f, "to cut off {user:?}"),
            Audited::Backup(path) => write!(f, "for a backup into {path:?}"),
        }
    }
}

impl Hub {
    /// The next line for the log about what an operator did.
    pub fn poll_audit(&mut self) -> Option<Audit> {
        self.audits.pop_front()
    }

    /// Notes a request if an operator makes it.
    pub(super) fn audit(&mut self, caller: &Caller, request: &Request) {
        if caller.role != Role::Operator {
            return;
        }
        let Some(connection) = self.connections.find(caller.connection) else { return };
        let Some(session) = connection.session() else { return };
        let act = match request {
            Request::GetGroup { group, .. } => Audited::ShowGroup(*group),
            Request::ListGroups { .. } => Audited::ListGroups(caller.user.clone()),
            Request::Connections { .. } => Audited::ListConnections,
            Request::Kick { user } => Audited::Kick(user.clone()),
            Request::Backup { path } => Audited::Backup(path.clone()),
            other => unreachable!("{:?} is not asked by operators", other.kind()),
        };
        self.audits.push_back(Audit { operator: session.user.clone(), connection: connection.number, act });
    }

    /// A page of the connections, in the order of their numbers.
    pub(super) fn list_connections(&mut self, caller: &Caller, after: u64, count_max: u32) {
        let count_max = page(count_max, LIST_CONNECTIONS_MAX);
        let keys = self.connections.keys().into_iter();
        let later = |key: ConnectionKey| self.connections.find(key).filter(|connection| connection.number > after);
        let mut found: Vec<&Connection> = keys.filter_map(later).collect();
        found.sort_unstable_by_key(|connection| connection.number);
        let more = found.len() > count_max;
        found.truncate(count_max);
        let connections = found.into_iter().map(row).collect();
        self.answer(caller.connection, caller.request_id, &Reply::ConnectionsListed { more, connections });
    }

    /// Closes every connection of a user, attached or not.
    pub(super) fn kick(&mut self, caller: &Caller, user: &UserId) {
        let is_of_user = |key: &ConnectionKey| {
            let connection = self.connections.find(*key).filter(|connection| !connection.closing);
            connection.and_then(Connection::session).is_some_and(|session| session.user == *user)
        };
        let keys: Vec<_> = self.connections.keys().into_iter().filter(is_of_user).collect();
        let connections = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        self.answer(caller.connection, caller.request_id, &Reply::KickDone { connections });
        for key in keys.into_iter().filter(|_| !planted!("hub: who is cut off by an operator stays")) {
            self.close_with(key, ErrorCode::Kicked, 0, "an operator closed this connection");
        }
    }
}

fn row(connection: &Connection) -> ConnectionRow {
    let session = connection.session();
    let behind = session.filter(|session| matches!(session.presence, Presence::Attached));
    ConnectionRow {
        connection: connection.number,
        user: session.map(|session| session.user.clone()),
        device: session.map(|session| session.device.clone().into()),
        since_ms: connection.accepted_wall_ms,
        output_bytes: connection.outbox.bytes() as u64,
        behind: behind.map_or(0, |session| u32::try_from(session.behind.len()).unwrap_or(u32::MAX)),
    }
}
