//! Brings groups into a data directory as they were: ids, seqs, versions, times, members, marks.
//!
//! What comes in is checked against the rules that made it: each entry must follow from the log before it, and the
//! record that the log makes must be the one that was announced. So nothing comes in that a server could not have
//! written. It is gone through twice: first nothing is written, then nothing can be wrong any more.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::archive::Archive;
use crate::group::{Entry, Event, Record, Succession};
use crate::ids::{GroupId, OperationId, Principal, UserId};
use crate::limits::{BODY_BYTES_MAX, GROUP_MEMBERS_MAX, TITLE_BYTES_MAX};
use crate::store::{Change, Effect, GroupState, Mark, Membership, OpenError, change_bytes};

/// Changes that are written together.
const BATCH_BYTES: usize = 1024 * 1024;
/// Marks in one packet.
const MARKS: usize = 1_000;
/// Under this name the operations of imported entries are remembered: nobody asks for them.
const PRINCIPAL: &str = "roundtable-import";

/// Why something cannot be imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportError {
    /// What was given is wrong, in words.
    Wrong(String),
    /// The directory cannot be read or written.
    Open(OpenError),
}

impl From<OpenError> for ImportError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

/// What came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Groups that were not there, or not wholly.
    pub groups: u64,
    /// Groups of which everything was there already.
    pub groups_unchanged: u64,
    /// Entries that were not there.
    pub entries: u64,
    /// Marks.
    pub marks: u64,
}

/// Whether it is only checked, or written too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Nothing is written.
    Check,
    /// It is written; a check of the same has found nothing wrong.
    Write,
}

/// Takes groups, their entries and memberships, in this order.
#[derive(Debug)]
pub struct Importer<'a> {
    archive: &'a mut Archive,
    pass: Pass,
    current: Option<Incoming>,
    /// The groups that came, each with its head.
    seen: HashMap<GroupId, u64>,
    changes: Vec<Change>,
    bytes: usize,
    marks: Vec<Mark>,
    imported: Imported,
}

/// The group that is coming in.
#[derive(Debug)]
struct Incoming {
    announced: GroupState,
    record: Option<Record>,
    head: u64,
    /// The head of the same group in the directory; 0 where it is not there.
    there: u64,
    /// Entries of it that were read ahead.
    page: VecDeque<Entry>,
}

impl<'a> Importer<'a> {
    /// Into an open directory.
    pub fn new(archive: &'a mut Archive, pass: Pass) -> Self {
        Self {
            archive,
            pass,
            current: None,
            seen: HashMap::new(),
            changes: Vec::new(),
            bytes: 0,
            marks: Vec::new(),
            imported: Imported::default(),
        }
    }

    /// A group begins; its entries follow.
    pub fn group(&mut self, announced: GroupState) -> Result<(), ImportError> {
        self.finish_group()?;
        let group = announced.record.group;
        if announced.floor != 1 {
            return wrong(format!(
                "the log of group {group} begins at entry {}: only whole logs can be imported",
                announced.floor
            ));
        }
        if self.seen.insert(group, announced.head).is_some() {
            return wrong(format!("group {group} comes a second time"));
        }
        let there = self.archive.group(group)?.map_or(0, |state| state.head);
        if there > announced.head {
            return wrong(format!("group {group} is there already, and has gone on: up to entry {there}"));
        }
        self.current = Some(Incoming { announced, record: None, head: 0, there, page: VecDeque::new() });
        Ok(())
    }

    /// The next entry of the group.
    pub fn entry(&mut self, group: GroupId, entry: Entry) -> Result<(), ImportError> {
        let Some(current) = &mut self.current else { return wrong("an entry stands before any group") };
        if current.announced.record.group != group {
            return wrong(format!(
                "an entry of group {group} stands among those of group {}",
                current.announced.record.group
            ));
        }
        check(current.record.as_ref(), current.head, &entry).map_err(ImportError::Wrong)?;
        match &mut current.record {
            Some(record) => record.apply(&entry),
            None => current.record = Record::from_created(group, &entry),
        }
        current.head = entry.seq;
        if entry.seq <= current.there {
            return self.compare(group, &entry);
        }
        self.imported.entries += 1;
        if self.pass == Pass::Write {
            let principal = Principal::Service(UserId::new(PRINCIPAL).expect("a legal name"));
            let operation = OperationId::random();
            let change = Change::Effect(Effect { principal, operation, fingerprint: 0, group, entry: Arc::new(entry) });
            self.bytes += change_bytes(&change);
            self.changes.push(change);
            if self.bytes >= BATCH_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// A membership of a group that came before, or is there: its marks.
    pub fn membership(&mut self, user: UserId, membership: &Membership) -> Result<(), ImportError> {
        self.finish_group()?;
        let Membership { group, received, read, .. } = *membership;
        // In a check nothing is written, so what came in is only known by its announcement.
        let Some(head) = self.seen.get(&group) else {
            return wrong(format!("a membership of group {group}, which did not come before it"));
        };
        if received.max(read) > *head {
            return wrong(format!("the marks of {user} in group {group} are beyond its head, {head}"));
        }
        self.imported.marks += 1;
        if self.pass == Pass::Write && received.max(read) > 0 {
            self.marks.push(Mark { user, group, received, read });
            if self.marks.len() >= MARKS {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Everything came.
    pub fn finish(mut self) -> Result<Imported, ImportError> {
        self.finish_group()?;
        self.flush()?;
        Ok(self.imported)
    }

    /// An entry that is there already must be the same.
    fn compare(&mut self, group: GroupId, entry: &Entry) -> Result<(), ImportError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        if current.page.is_empty() {
            current.page = self.archive.entries(group, entry.seq)?.into();
        }
        if current.page.pop_front().as_ref() == Some(entry) {
            return Ok(());
        }
        wrong(format!("group {group} is there already, with another entry {}", entry.seq))
    }

    /// The log must have made what was announced.
    fn finish_group(&mut self) -> Result<(), ImportError> {
        let Some(current) = self.current.take() else { return Ok(()) };
        let Incoming { announced, record, head, there, .. } = current;
        let group = announced.record.group;
        if head != announced.head {
            return wrong(format!("the log of group {group} ends at entry {head} instead of {}", announced.head));
        }
        if record.as_ref() != Some(&announced.record) {
            return wrong(format!("the log of group {group} does not make the record that stands before it"));
        }
        let count = if head > there { &mut self.imported.groups } else { &mut self.imported.groups_unchanged };
        *count += 1;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ImportError> {
        if !self.marks.is_empty() {
            let marks = std::mem::take(&mut self.marks);
            self.changes.push(Change::Marks(marks));
        }
        self.archive.append(&self.changes)?;
        self.changes.clear();
        self.bytes = 0;
        Ok(())
    }
}

fn wrong<T>(what: impl Into<String>) -> Result<T, ImportError> {
    Err(ImportError::Wrong(what.into()))
}

/// Whether an entry follows from the log before it.
fn check(record: Option<&Record>, head: u64, entry: &Entry) -> Result<(), String> {
    if entry.seq != head + 1 {
        return Err(format!("entry {} follows entry {head}", entry.seq));
    }
    let seq = entry.seq;
    let Some(record) = record else { return check_created(entry) };
    if record.dissolved {
        return Err(format!("entry {seq} stands behind the end of its group"));
    }
    let version = if entry.event.changes_record() { seq } else { record.version };
    if entry.version != version {
        return Err(format!("entry {seq} has version {} instead of {version}", entry.version));
    }
    check_event(record, entry).map_err(|what| format!("entry {seq}: {what}"))?;
    let mut after = record.clone();
    if entry.event.changes_record() {
        after.apply(entry);
    }
    if after.dissolved != after.members.is_empty() || !(after.dissolved || after.has(&after.owner)) {
        return Err(format!("entry {seq} leaves a group without members or without an owner among them"));
    }
    Ok(())
}

fn check_created(entry: &Entry) -> Result<(), String> {
    let Event::Created { title, members } = &entry.event else {
        return Err("the first entry of a group is not `created`".to_owned());
    };
    check_title(title)?;
    let is_first = members.first() == Some(&entry.sender);
    if !is_first || entry.version != 1 || members.len() > GROUP_MEMBERS_MAX || !are_distinct(members) {
        return Err("`created` has version 1 and lists each member once, at most 10,000, the sender first".to_owned());
    }
    Ok(())
}

fn check_event(record: &Record, entry: &Entry) -> Result<(), String> {
    let needed = |is_so: bool, what: &str| if is_so { Ok(()) } else { Err(what.to_owned()) };
    match &entry.event {
        Event::Created { .. } => Err("a group is created once".to_owned()),
        Event::Added { members } => {
            let new = !members.is_empty() && are_distinct(members) && !members.iter().any(|user| record.has(user));
            needed(new, "`added` lists users who are not members, each once")?;
            needed(record.members.len() + members.len() <= GROUP_MEMBERS_MAX, "the group has too many members")
        }
        Event::Removed { members } => {
            let there = !members.is_empty() && are_distinct(members) && members.iter().all(|user| record.has(user));
            needed(there, "`removed` lists members, each once")
        }
        Event::Left { succession } => {
            let is_owner = record.owner == entry.sender;
            let fits = match succession {
                Succession::Dissolved => record.members.len() == 1,
                Succession::Passed { owner } => is_owner && *owner != entry.sender && record.has(owner),
                Succession::Unchanged => !is_owner && record.members.len() > 1,
            };
            needed(record.has(&entry.sender) && fits, "`left` is of a member, and says what becomes of the group")
        }
        Event::Renamed { title } => check_title(title),
        Event::Transferred { owner } => needed(record.has(owner), "the new owner is not a member"),
        Event::Dissolved => Ok(()),
        Event::Message { body } => needed(body.len() <= BODY_BYTES_MAX, "the body has more than 64 KiB"),
        Event::Whisper { to, body } => {
            needed(body.len() <= BODY_BYTES_MAX, "the body has more than 64 KiB")?;
            needed(to.len() <= GROUP_MEMBERS_MAX && are_distinct(to), "`to` lists each user once")
        }
    }
}

fn check_title(title: &str) -> Result<(), String> {
    if title.len() <= TITLE_BYTES_MAX { Ok(()) } else { Err("the title has more than 256 bytes".to_owned()) }
}

fn are_distinct(users: &[UserId]) -> bool {
    let mut seen = HashSet::new();
    users.iter().all(|user| seen.insert(user))
}
