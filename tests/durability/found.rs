//! What a server has: logs, records, and the groups of each user, as clients can read them.

use std::collections::{BTreeMap, BTreeSet};

use roundtable::client::Client;
use roundtable::group::Record;
use roundtable::ids::{GroupId, UserId};
use roundtable::wire::{GroupShown, GroupSummary, LogEntry};

use super::server::Server;

/// One group, as a member sees it.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) entries: Vec<LogEntry>,
    pub(crate) head: u64,
    pub(crate) floor: u64,
    pub(crate) record: Record,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) groups: BTreeMap<GroupId, Group>,
    pub(crate) lists: BTreeMap<UserId, Vec<GroupSummary>>,
}

/// Connections of all users, for looking and for saying things again.
pub(crate) struct Eyes {
    pub(crate) clients: BTreeMap<UserId, Client>,
}

impl Eyes {
    pub(crate) fn open(server: &Server, users: &[UserId]) -> Self {
        let connect = |user: &UserId| server.connect(user, "eyes").expect("the server takes a client");
        Self { clients: users.iter().map(|user| (user.clone(), connect(user))).collect() }
    }

    /// Reads the lists of all users, and the groups that are on them or in `known`, as far as `wanted` says.
    pub(crate) fn look(&mut self, known: &[GroupId], wanted: impl Fn(GroupId) -> bool) -> Found {
        let mut found = Found::default();
        let mut groups: BTreeSet<GroupId> = known.iter().copied().collect();
        for (user, client) in &mut self.clients {
            let list = client.list_groups().expect("a list");
            groups.extend(list.iter().map(|summary| summary.group));
            found.lists.insert(user.clone(), list);
        }
        for group in groups {
            if wanted(group)
                && let Some(read) = self.read(group, &found.lists)
            {
                found.groups.insert(group, read);
            }
        }
        found
    }

    /// Reads one group, as a member of it does. Nothing where nobody is in it: a former member is not shown its log.
    fn read(&mut self, group: GroupId, lists: &BTreeMap<UserId, Vec<GroupSummary>>) -> Option<Group> {
        let is_in = |user: &&UserId| lists[*user].iter().any(|summary| summary.group == group);
        let client = self.clients.get_mut(lists.keys().find(is_in)?).expect("each list has a client");
        let entries = log(client, group);
        let GroupShown::Record { head, floor, record } = client.group(group).expect("a member sees the group") else {
            panic!("no version was named")
        };
        Some(Group { entries, head, floor, record })
    }
}

/// A whole log, page by page.
fn log(client: &mut Client, group: GroupId) -> Vec<LogEntry> {
    let mut entries: Vec<LogEntry> = Vec::new();
    loop {
        let next = entries.last().map_or(1, |last| last.seq() + 1);
        let page = client.history(group, next, 0).unwrap_or_else(|error| panic!("{group} from {next}: {error}"));
        let done = page.entries.last().is_none_or(|last| last.seq() >= page.head);
        entries.extend(page.entries);
        if done {
            return entries;
        }
    }
}
