//! Two devices of one user: what one of them missed it has in the end, by itself, over one connection.

use std::sync::Arc;
use std::time::Instant;

use roundtable::client::{Client, ConnectOptions, Event, RetryPolicy};
use roundtable::group::{Entry, Event as LogEvent, Record};
use roundtable::ids::{DeviceId, GroupId, Role, UserId};
use roundtable::limits::HISTORY_ENTRIES_MAX;
use roundtable::wire::{GroupPacket, GroupSeq, GroupShown, LogEntry, Mark};

use crate::support::{PATIENCE, Running, user};

/// More than two pages of history.
const MESSAGES: usize = 2 * HISTORY_ENTRIES_MAX + 50;

/// How a device goes on line.
enum Basis {
    /// With what it keeps.
    Device(Vec<GroupSeq>),
    /// By the marks of its user: it keeps nothing.
    Marks,
}

/// A device, and what it knows of one group: nothing but what its events told it.
struct Device {
    client: Client,
    log: Vec<LogEntry>,
    /// By the group packet, then by the entries: what an application has that keeps its own record.
    record: Option<Kept>,
    interruptions: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    title: Arc<str>,
    owner: UserId,
    members: Vec<UserId>,
    version: u64,
}

impl Device {
    /// Goes on line, on the one connection that it has: it makes no other if that breaks.
    fn attach(server: &Running, device: &str, basis: Basis) -> Self {
        let options = ConnectOptions::new(server.address.to_string(), server.token("alice", Role::User))
            .with_device(DeviceId::new(device).unwrap())
            .with_retry(RetryPolicy::NONE);
        let mut client = Client::connect(options).unwrap();
        match basis {
            Basis::Device(groups) => client.attach_device(&groups).unwrap(),
            Basis::Marks => client.attach_marks().unwrap(),
        }
        Self { client, log: Vec::new(), record: None, interruptions: 0 }
    }

    /// The same device comes back with what it has kept.
    fn comes_back(self, server: &Running, device: &str, basis: Basis) -> Self {
        let Self { log, record, .. } = self;
        Self { log, record, ..Self::attach(server, device, basis) }
    }

    /// Takes events until it has the group up to a seq and everything that it lacked was told.
    fn follow(&mut self, group: GroupId, head: u64) {
        let mut ready = false;
        while !ready || self.last() < head {
            match self.client.next_event(Some(PATIENCE)).unwrap().expect("an event comes in time") {
                Event::Group { packet, .. } => {
                    assert_eq!(packet.group, group);
                    self.record = Some(Kept::told_by(packet));
                }
                Event::Entry { group: of, entry } => {
                    assert_eq!(of, group);
                    self.take(entry);
                }
                Event::Ready => ready = true,
                Event::Behind { .. } => {}
                Event::Interrupted { .. } | Event::Resumed => self.interruptions += 1,
                other => panic!("not expected: {other:?}"),
            }
        }
        assert_eq!(self.last(), head, "nothing comes behind the head");
    }

    /// What the protocol page tells an application to do with an entry.
    fn take(&mut self, entry: LogEntry) {
        if let Some(last) = self.log.last() {
            assert_eq!(entry.seq(), last.seq() + 1, "ascending, without a gap");
        }
        if let (LogEntry::Shown(shown), Some(record)) = (&entry, &mut self.record)
            && shown.version > record.version
        {
            record.apply(shown);
        }
        self.log.push(entry);
    }

    fn last(&self) -> u64 {
        self.log.last().map_or(0, LogEntry::seq)
    }

    /// The entries from a seq on.
    fn log_from(&self, seq: u64) -> &[LogEntry] {
        let at = self.log.partition_point(|entry| entry.seq() < seq);
        &self.log[at..]
    }

    /// What the client library shows of the group.
    fn shown(&self, group: GroupId) -> Kept {
        let view = self.client.group_view(group).expect("the group is shown");
        assert!(view.is_current(), "nothing is in doubt");
        Kept {
            title: view.title().into(),
            owner: view.owner().clone(),
            members: view.members().cloned().collect(),
            version: view.version(),
        }
    }
}

impl Kept {
    fn apply(&mut self, entry: &Entry) {
        match &entry.event {
            LogEvent::Renamed { title } => self.title = title.clone(),
            LogEvent::Transferred { owner } => self.owner = owner.clone(),
            LogEvent::Added { members } => self.members.extend(members.iter().cloned()),
            LogEvent::Removed { members } => self.members.retain(|member| !members.contains(member)),
            other => panic!("no change of a record in this test: {other:?}"),
        }
        self.version = entry.seq;
    }

    fn told_by(packet: GroupPacket) -> Self {
        let GroupPacket { title, owner, members, version, .. } = packet;
        Self { title: title.into(), owner, members, version }
    }

    fn of(record: &Record) -> Self {
        Self {
            title: record.title.clone(),
            owner: record.owner.clone(),
            members: record.members.iter().map(|member| member.user.clone()).collect(),
            version: record.version,
        }
    }
}

/// alice's group with everything that can happen while a device is away. The seq of its last entry, and what it is.
struct Story {
    group: GroupId,
    head: u64,
    record: Kept,
    log: Vec<LogEntry>,
}

/// bob makes the group; `before_all` is called when it is there and nothing else is.
fn tell(server: &Running, before_all: impl FnOnce(GroupId)) -> Story {
    let mut bob = server.connect("bob");
    let group = bob.create("lunch", &[user("alice"), user("carol"), user("dave")]).unwrap().group;
    before_all(group);
    bob.rename(group, "dinner").unwrap();
    for number in 0..MESSAGES {
        bob.send(group, format!("message {number}")).unwrap();
        if number == MESSAGES / 2 {
            bob.remove(group, &[user("carol")]).unwrap();
            bob.add(group, &[user("erin")]).unwrap();
        }
    }
    bob.rename(group, "supper").unwrap();
    let head = bob.transfer(group, &user("dave")).unwrap().seq;
    assert_eq!(head, MESSAGES as u64 + 6);
    let record = match bob.group(group).unwrap() {
        GroupShown::Record { record, .. } => Kept::of(&record),
        other @ GroupShown::Unchanged { .. } => panic!("{other:?}"),
    };
    assert_eq!(
        record,
        Kept {
            title: "supper".into(),
            owner: user("dave"),
            members: ["bob", "alice", "dave", "erin"].map(user).to_vec(),
            version: head
        }
    );
    let mut log: Vec<LogEntry> = Vec::new();
    while (log.len() as u64) < head {
        log.extend(bob.history(group, log.len() as u64 + 1, 0).unwrap().entries);
    }
    Story { group, head, record, log }
}

/// Both devices have the whole log behind their first entry, and the record; over one connection each.
fn assert_equal(story: &Story, devices: &[&Device]) {
    for device in devices {
        assert_eq!(device.log_from(2), &story.log[1..], "every entry behind the one that made the group");
        assert_eq!(device.record.as_ref(), Some(&story.record), "the record that the application keeps");
        assert_eq!(device.shown(story.group), story.record, "the record that the library shows");
        assert_eq!(device.interruptions, 0);
        assert_eq!(device.client.group_view(story.group).unwrap().head(), story.head);
    }
}

/// How many connections were made until now, without the one that asks.
fn connections_made(server: &Running) -> u64 {
    server.stat("accepted_total") - 1
}

/// A device that is off line all the time, with nothing to begin with: neither groups nor marks.
fn a_device_that_missed_everything(basis: impl Fn() -> Basis) {
    let server = Running::start();
    let mut phone = Device::attach(&server, "phone", Basis::Device(Vec::new()));
    let story = tell(&server, |_| {});
    phone.follow(story.group, story.head);

    let before = connections_made(&server);
    let mut tablet = Device::attach(&server, "tablet", basis());
    tablet.follow(story.group, story.head);
    // The one that asked before counts, and the tablet's.
    assert_eq!(connections_made(&server), before + 2, "in one connection");
    assert_equal(&story, &[&phone, &tablet]);

    let mut bob = server.connect("bob");
    let seq = bob.send(story.group, "and now?").unwrap().seq;
    for device in [&mut phone, &mut tablet] {
        let event = device.client.next_event(Some(PATIENCE)).unwrap();
        let live = matches!(&event, Some(Event::Entry { entry, .. }) if entry.seq() == seq);
        assert!(live, "both are live: {event:?}");
    }
}

#[test]
fn a_device_without_anything_ends_with_the_same_log_and_record_as_the_other() {
    a_device_that_missed_everything(|| Basis::Device(Vec::new()));
}

#[test]
fn a_device_by_marks_ends_with_the_same_log_and_record_as_the_other() {
    a_device_that_missed_everything(|| Basis::Marks);
}

#[test]
fn a_device_that_kept_its_positions_ends_with_the_same_log_and_record_as_the_other() {
    let server = Running::start();
    let mut phone = Device::attach(&server, "phone", Basis::Device(Vec::new()));
    let mut tablet = Some(Device::attach(&server, "tablet", Basis::Device(Vec::new())));
    let mut positions = Vec::new();
    let story = tell(&server, |group| {
        let tablet = tablet.as_mut().unwrap();
        let mut told = false;
        while !told {
            match tablet.client.next_event(Some(PATIENCE)).unwrap().expect("an event comes in time") {
                Event::Group { packet, .. } => {
                    told = true;
                    assert_eq!((packet.group, packet.head), (group, 1));
                    tablet.record = Some(Kept::told_by(packet));
                }
                other => assert_eq!(other, Event::Ready),
            }
        }
        positions = tablet.client.positions();
        assert_eq!(positions, [GroupSeq { group, seq: 1 }]);
    });
    phone.follow(story.group, story.head);
    // What waits in its socket is lost with it: it never took it.
    let tablet = tablet.take().unwrap();
    let before = connections_made(&server);
    let mut tablet = tablet.comes_back(&server, "tablet", Basis::Device(positions));
    tablet.follow(story.group, story.head);
    assert_eq!(connections_made(&server), before + 2, "in one connection");
    assert_equal(&story, &[&phone, &tablet]);
    assert_eq!(tablet.client.positions(), phone.client.positions());
}

/// The marks are the user's: what the phone has acknowledged the tablet is not told again, and what was not, it is.
#[test]
fn a_device_by_marks_reads_on_from_what_the_other_has_acknowledged() {
    let server = Running::start();
    let mut phone = Device::attach(&server, "phone", Basis::Device(Vec::new()));
    let story = tell(&server, |_| {});
    phone.follow(story.group, story.head);
    let received = story.head - HISTORY_ENTRIES_MAX as u64 - 10;
    phone.client.acknowledge(&[Mark { group: story.group, received, read: 0 }]).unwrap();
    phone.client.ping().unwrap();
    let mut tablet = Device::attach(&server, "tablet", Basis::Marks);
    tablet.follow(story.group, story.head);
    assert_eq!(tablet.log, story.log[usize::try_from(received).unwrap()..]);
    assert_eq!(tablet.interruptions, 0);
    // Without a group packet: the client fetches the record by itself.
    let began = Instant::now();
    while tablet.client.group_view(story.group).is_none() {
        assert!(began.elapsed() < PATIENCE, "the record is fetched in time");
        tablet.client.ping().unwrap();
    }
    assert_eq!(tablet.shown(story.group), story.record);
}
