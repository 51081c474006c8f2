//! An honest client: the production conversation, what its application keeps, and what it should see.

use std::collections::BTreeMap;

use super::manner::{Duties, Manner};
use super::truth::{Attempt, Truth};
use crate::client::{CallId, Conversation, Event as Told, Standing};
use crate::group::Event;
use crate::ids::{DeviceId, GroupId, OperationId, UserId};
use crate::wire::{ErrorBody, GroupSeq, GroupShown, Hello, LogEntry, Reply, Request};

/// What requests that are legal in themselves may be refused with.
const REFUSALS: [&str; 7] =
    ["NOT_FOUND", "RANGE", "FORBIDDEN", "NOT_A_MEMBER", "TRUNCATED", "STORAGE_FULL", "GOING_AWAY"];

/// What is kept of a group: how far it was told. What is shown of it is the conversation's.
struct Held {
    next: u64,
}

/// A call without an answer, and what was known when it was made.
struct Asked {
    request: Request,
    /// For whom a service asks.
    user: Option<UserId>,
    /// The highest seq of its group that anybody had been told of.
    told: u64,
    /// Since when its user was in the group.
    joined: Option<u64>,
    /// The connection on which it was first said, if there was one.
    line: Option<usize>,
}

/// One installation of a user's client.
pub(super) struct Device {
    pub(super) user: UserId,
    name: DeviceId,
    manner: Manner,
    pub(super) duties: Duties,
    pub(super) conversation: Conversation,
    held: BTreeMap<GroupId, Held>,
    /// The next seq of each group that it follows.
    nexts: BTreeMap<GroupId, u64>,
    asked: BTreeMap<CallId, Asked>,
    /// Its connection, by number.
    pub(super) line: Option<usize>,
    /// Before that it does not connect again.
    pub(super) away_until_ms: u64,
    /// What came that is worth counting.
    pub(super) rare: Vec<&'static str>,
}

impl Device {
    pub(super) fn new(user: UserId, name: &str, manner: Manner) -> Self {
        let name = DeviceId::new(name).expect("a legal name");
        let conversation = Conversation::new(Some(hello(&user, &name, manner)));
        let mut device = Self {
            user,
            name,
            manner,
            duties: Duties::default(),
            conversation,
            held: BTreeMap::new(),
            nexts: BTreeMap::new(),
            asked: BTreeMap::new(),
            line: None,
            away_until_ms: 0,
            rare: Vec::new(),
        };
        device.attach();
        device
    }

    /// For people.
    pub(super) fn title(&self) -> String {
        format!("{}/{}", self.user, self.name.as_str())
    }

    /// What it is.
    pub(super) fn manner(&self) -> Manner {
        self.manner
    }

    fn keeps(&self) -> bool {
        self.manner == Manner::Keeps
    }

    fn attach(&mut self) {
        match self.manner {
            Manner::Keeps => {
                let has: Vec<GroupSeq> =
                    self.held.iter().map(|(group, held)| GroupSeq { group: *group, seq: held.next - 1 }).collect();
                self.nexts = self.held.iter().map(|(group, held)| (*group, held.next)).collect();
                self.conversation.attach_device(&has);
            }
            Manner::Marks => {
                self.held.clear();
                self.nexts.clear();
                self.conversation.attach_marks();
            }
            Manner::Service => self.ask_for_feed(),
            Manner::Operator => self.duties.kicking.clear(),
        }
    }

    fn ask_for_feed(&mut self) {
        let request = Request::Feed { position: self.duties.feed.unwrap_or(0) };
        self.call(Asked { request, user: None, told: 0, joined: None, line: self.line });
    }

    /// It asks to cut off whoever has these connections.
    pub(super) fn kicks(&mut self, lines: Vec<usize>) {
        self.duties.kicking.push(lines);
    }

    /// The program ends and is started again, with what it has stored: positions, and changes without an answer.
    pub(super) fn restart(&mut self) {
        self.conversation = Conversation::new(Some(hello(&self.user, &self.name, self.manner)));
        self.line = None;
        let asked = std::mem::take(&mut self.asked);
        self.attach();
        for asked in asked.into_values() {
            if operation_of(&asked.request).is_some() {
                self.call(asked);
            }
        }
    }

    fn call(&mut self, asked: Asked) {
        let call = self.conversation.call(asked.request.clone(), asked.user.clone()).expect("a small request");
        self.asked.insert(call, asked);
    }

    /// Asks something, a service for a user.
    pub(super) fn ask(&mut self, request: Request, user: Option<UserId>, truth: &mut Truth) {
        let whose = user.as_ref().unwrap_or(&self.user);
        if let Some(operation) = operation_of(&request) {
            let by = user.is_some().then(|| self.user.clone());
            truth.attempts.insert(operation, Attempt { user: whose.clone(), by, request: request.clone() });
        }
        let kept = group_of(&request).and_then(|group| truth.groups.get(&group));
        let (told, joined) = kept.map_or((0, None), |kept| (kept.told, kept.joined(whose)));
        self.call(Asked { request, user, told, joined, line: self.line });
    }

    /// How many answers it waits for.
    pub(super) fn waiting(&self) -> usize {
        self.asked.len()
    }

    /// A place up to which it has everything of a group.
    pub(super) fn positions(&self) -> impl Iterator<Item = (GroupId, u64)> + '_ {
        self.nexts.iter().map(|(group, next)| (*group, next - 1))
    }

    /// Takes what came.
    pub(super) fn take(&mut self, truth: &mut Truth) {
        while let Some(event) = self.conversation.poll_event() {
            self.take_event(event, truth);
        }
        while let Some((call, reply)) = self.conversation.poll_answer() {
            if let Some(asked) = self.asked.remove(&call) {
                self.check_answer(&asked, &reply, truth);
            }
        }
    }

    fn take_event(&mut self, event: Told, truth: &Truth) {
        match event {
            Told::Group { packet, .. } => {
                let held = Held { next: packet.from };
                let before = self.nexts.insert(packet.group, packet.from);
                assert!(before.is_none_or(|next| next <= packet.from), "only another stay is told again");
                if packet.from > 2 {
                    self.rare.push("joined later");
                }
                self.held.insert(packet.group, held);
            }
            Told::Entry { group, entry } => self.follow(group, &entry),
            Told::Gone { group, .. } => {
                self.held.remove(&group);
                self.nexts.remove(&group);
                self.rare.push("gone while away");
            }
            Told::Truncated { group, floor } => {
                let kept = truth.group(group);
                let rejoined = kept.stays.get(&self.user).is_some_and(|stays| stays.iter().any(|stay| stay.0 == floor));
                assert!(floor <= kept.floor || rejoined, "a floor that there is");
                self.rare.push("floor passes a reader");
                self.nexts.insert(group, floor);
                if let Some(held) = self.held.get_mut(&group) {
                    held.next = floor;
                }
            }
            Told::Unreadable { error, .. } => assert_eq!(error.name(), "NOT_FOUND", "{error:?}"),
            Told::Behind { .. } => self.rare.push("behind in a group"),
            Told::Feed { position, group, seq, .. } => self.duties.take_item(position, group, seq, truth),
            Told::FeedEnded { error } => self.go_on_with_feed(&error),
            _ => {}
        }
    }

    /// Cleaning has passed the place at which the feed stood.
    fn go_on_with_feed(&mut self, error: &ErrorBody) {
        assert_eq!(error.name(), "TRUNCATED", "{error:?}");
        self.rare.push("feed truncated");
        self.duties.feed = Some(error.detail);
        self.ask_for_feed();
    }

    fn follow(&mut self, group: GroupId, entry: &LogEntry) {
        let seq = entry.seq();
        let next = self.nexts.entry(group).or_insert(seq);
        assert_eq!(seq, *next, "{}/{} in {group}: entries ascend without gap", self.user, self.name.as_str());
        *next += 1;
        if let Some(held) = self.held.get_mut(&group) {
            held.next = seq + 1;
        } else {
            assert!(!self.keeps(), "an entry comes behind its group");
        }
        if let LogEntry::Shown(entry) = entry
            && ends(&entry.event, &entry.sender, &self.user)
        {
            self.held.remove(&group);
            self.nexts.remove(&group);
        }
    }

    fn check_answer(&mut self, asked: &Asked, reply: &Reply, truth: &mut Truth) {
        self.duties.take_answer(reply);
        let operation = operation_of(&asked.request);
        let (group, seq, version) = match reply {
            Reply::Created(created) => (created.group, created.seq, created.version),
            Reply::Changed(_, changed) => (changed.group, changed.seq, changed.version),
            Reply::Error(error) => return self.check_refusal(asked, error, truth),
            Reply::GroupShown(GroupShown::Record { head, record, .. }) => {
                assert!(*head >= asked.told, "{} is shown an older state than was told before", self.user);
                return assert!(record.version <= *head);
            }
            _ => return,
        };
        let operation = operation.expect("only changes are answered so");
        let effect = truth.operation(operation);
        let Some(effect) = effect else {
            let entry = truth.group(group).entry(version).expect("a version is an entry");
            let may_change_nothing = matches!(
                asked.request,
                Request::Add { .. } | Request::Remove { .. } | Request::Rename { .. } | Request::Transfer { .. }
            );
            assert!(may_change_nothing && seq == version, "{operation} is acknowledged, and is not durable");
            return assert!(entry.event.changes_record(), "where nothing changed, the answer is the version");
        };
        assert_eq!((effect.group, effect.seq, effect.version), (group, seq, version), "the answer to {operation}");
    }

    fn check_refusal(&mut self, asked: &Asked, error: &ErrorBody, truth: &Truth) {
        if let Request::Feed { .. } = asked.request {
            return self.go_on_with_feed(error);
        }
        assert!(REFUSALS.contains(&error.name()), "{error:?} to {:?}", asked.request);
        if error.name() == "STORAGE_FULL" {
            self.rare.push("refused for a full disk");
        }
        if error.name() == "NOT_FOUND"
            && let Some(group) = group_of(&asked.request)
            && let Some(joined) = asked.joined
        {
            let user = asked.user.as_ref().unwrap_or(&self.user);
            let stays = truth.group(group).stays.get(user).and_then(|stays| stays.last());
            assert_ne!(stays, Some(&(joined, None)), "{user} was a member all the time, and is told of no group");
        }
    }

    /// A server that stops has closed a connection, and everything that it said there was heard: what it had begun for
    /// this connection it has answered.
    pub(super) fn check_finished(&self, line: usize, truth: &Truth) {
        for asked in self.asked.values().filter(|asked| asked.line == Some(line)) {
            let Some(operation) = operation_of(&asked.request) else { continue };
            let done = truth.operation(operation);
            assert!(done.is_none(), "{operation} was done, and the stop left it without an answer");
        }
    }

    /// Everything has come to rest: it has what there is.
    pub(super) fn check_at_rest(&self, truth: &Truth) {
        let title = self.title();
        assert_eq!(*self.conversation.standing(), Standing::Up, "{title} is on line");
        assert_eq!(self.conversation.unanswered(), 0, "{title} has all its answers");
        for (id, kept) in &truth.groups {
            let is_member = kept.record.has(&self.user);
            let next = self.nexts.get(id);
            if self.keeps() {
                assert_eq!(self.held.contains_key(id), is_member, "{title} has exactly its groups: {id}");
            }
            assert!(is_member || next.is_none(), "{title} was told that {id} is over for it");
            if is_member && (self.keeps() || next.is_some()) {
                assert_eq!(next, Some(&(kept.head() + 1)), "{title} has reached the head of {id}");
            }
            let Some(view) = self.conversation.session().group(*id) else { continue };
            assert!(is_member, "{title} shows {id}, and is not in it");
            assert_eq!((view.title(), view.version()), (&*kept.record.title, kept.record.version), "{title}: {id}");
            assert!(view.members().eq(kept.record.members.iter().map(|member| &member.user)), "{title}: {id}");
        }
        for operation in truth.attempts.keys() {
            if let Some(done) = truth.operation(*operation) {
                assert!(truth.group(done.group).head() >= done.seq);
            }
        }
    }
}

fn hello(user: &UserId, device: &DeviceId, manner: Manner) -> Hello {
    let token = format!("{}:{user}", manner.role());
    Hello { version_min: 1, version_max: 1, features: 0, heartbeat_s: 15, device: device.clone(), token }
}

fn ends(event: &Event, sender: &UserId, user: &UserId) -> bool {
    match event {
        Event::Left { .. } => sender == user,
        Event::Removed { members } => members.contains(user),
        Event::Dissolved => true,
        _ => false,
    }
}

/// The operation of a change.
pub(super) fn operation_of(request: &Request) -> Option<OperationId> {
    match request {
        Request::Create { operation, .. }
        | Request::Add { operation, .. }
        | Request::Remove { operation, .. }
        | Request::Leave { operation, .. }
        | Request::Rename { operation, .. }
        | Request::Transfer { operation, .. }
        | Request::Dissolve { operation, .. }
        | Request::Send { operation, .. }
        | Request::Whisper { operation, .. } => Some(*operation),
        _ => None,
    }
}

fn group_of(request: &Request) -> Option<GroupId> {
    match request {
        Request::Add { group, .. }
        | Request::Remove { group, .. }
        | Request::Leave { group, .. }
        | Request::Rename { group, .. }
        | Request::Transfer { group, .. }
        | Request::Dissolve { group, .. }
        | Request::Send { group, .. }
        | Request::Whisper { group, .. }
        | Request::GetGroup { group, .. } => Some(*group),
        _ => None,
    }
}
