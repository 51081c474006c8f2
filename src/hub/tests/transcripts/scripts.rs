//! What happens in each transcript.

use super::reader::{Reader, bytes_of};
use super::stage::{Stage, Step};
use crate::hub::tests::world::requests::history_request;
use crate::hub::tests::world::users;
use crate::ids::{DeviceId, GroupId, OperationId};
use crate::limits::OUTPUT_BYTES_SOFT;
use crate::wire::{Attach, GroupSeq, Hello, Mark, Request, features};

/// Plays a transcript.
pub(super) type Play = fn(&mut Script<'_>);

/// The transcripts by the names of their blocks.
pub(super) const ALL: [(&str, Play); 5] = [
    ("first-create", first_create),
    ("back-behind", back_behind),
    ("two-devices", two_devices),
    ("removed-while-away", removed_while_away),
    ("slow-reader", slow_reader),
];

/// People who know what they want to say.
pub(super) struct Script<'r> {
    stage: Stage<'r>,
    requests: u32,
    operations: u8,
}

impl<'r> Script<'r> {
    /// The lines of a transcript.
    pub(super) fn lines(reader: &'r Reader, play: Play) -> Vec<String> {
        let mut script = Script { stage: Stage::new(reader), requests: 0, operations: 0 };
        play(&mut script);
        script.stage.lines().to_vec()
    }

    /// Somebody says something. The number of a request is its number in the transcript, so each line has its own.
    fn says(&mut self, who: &str, request: &Request) {
        self.requests += 1;
        let mut bytes = Vec::new();
        request.encode_frame(&mut bytes, self.requests);
        self.stage.perform(&Step::Says(who.to_owned(), bytes));
    }

    fn does(&mut self, step: fn(String) -> Step, who: &str) {
        self.stage.perform(&step(who.to_owned()));
    }

    /// `who` is `USER/DEVICE`, with `#2` behind it for a second connection.
    fn goes_on_line(&mut self, who: &str, has: &[(GroupId, u64)]) {
        let (user, device) = who.split_once('/').unwrap();
        let device = device.split('#').next().unwrap();
        self.does(Step::Connects, who);
        self.says(who, &hello(user, device));
        let groups = has.iter().map(|(group, seq)| GroupSeq { group: *group, seq: *seq }).collect();
        self.says(who, &Request::Attach(Attach::Device { more: false, groups }));
    }

    /// Makes a group; its id is read from the answer as a client would.
    fn creates(&mut self, who: &str, title: &str, members: &[&str]) -> GroupId {
        let operation = self.operation();
        self.says(who, &Request::Create { operation, title: title.into(), members: users(members) });
        let answer = format!("server → {who}: #{} Created, group = ", self.requests);
        let line = self.stage.lines().iter().rev().find_map(|line| line.strip_prefix(&answer)).expect("an answer");
        line[..36].parse().expect("a group id")
    }

    fn sends(&mut self, who: &str, group: GroupId, body: &[u8]) {
        let operation = self.operation();
        self.says(who, &Request::Send { operation, group, body: body.into() });
    }

    fn operation(&mut self) -> OperationId {
        self.operations += 1;
        let mut bytes = bytes_of("0195c000000070008000000000000000");
        bytes[15] = self.operations;
        OperationId::from_bytes(bytes.try_into().unwrap()).unwrap()
    }

    fn acknowledges(&mut self, who: &str, group: GroupId, received: u64, read: u64) {
        self.says(who, &Request::Acknowledge { marks: vec![Mark { group, received, read }] });
    }

    /// The last line that the server said to somebody.
    fn last_told(&self, who: &str) -> &str {
        let told = format!("server → {who}: ");
        self.stage.lines().iter().rev().find_map(|line| line.strip_prefix(&told)).expect("something was said")
    }

    fn kind_told(&self, who: &str) -> &str {
        self.last_told(who).split([',', ' ']).find(|word| !word.starts_with('#')).unwrap()
    }
}

/// With the features that the requests below belong to.
fn hello(user: &str, device: &str) -> Request {
    Request::Hello(Hello {
        version_min: 1,
        version_max: 1,
        features: features::MEMBERSHIP,
        heartbeat_s: 0,
        device: DeviceId::new(device).unwrap(),
        token: format!("user:{user}"),
    })
}

fn first_create(script: &mut Script<'_>) {
    script.goes_on_line("alice/phone", &[]);
    script.goes_on_line("bob/phone", &[]);
    let group = script.creates("alice/phone", "lunch", &["bob", "carol"]);
    assert_eq!(script.kind_told("alice/phone"), "GroupPacket");
    assert_eq!(script.kind_told("bob/phone"), "GroupPacket");
    script.sends("bob/phone", group, b"noon?");
    assert_eq!(script.kind_told("alice/phone"), "Entry");
    assert_eq!(script.kind_told("bob/phone"), "Entry");
    script.acknowledges("alice/phone", group, 2, 2);
    script.acknowledges("bob/phone", group, 2, 0);
}

fn back_behind(script: &mut Script<'_>) {
    script.goes_on_line("alice/phone", &[]);
    script.goes_on_line("carol/phone", &[]);
    let group = script.creates("alice/phone", "lunch", &["carol"]);
    script.does(Step::Closes, "carol/phone");
    script.sends("alice/phone", group, b"noon?");
    let operation = script.operation();
    script.says("alice/phone", &Request::Rename { operation, group, title: "dinner".into() });
    script.sends("alice/phone", group, b"at eight");
    script.goes_on_line("carol/phone#2", &[(group, 1)]);
    assert_eq!(script.kind_told("carol/phone#2"), "Ready");
    script.says("carol/phone#2", &history_request(&[(group, 2)], 0, 0));
    assert_eq!(script.kind_told("carol/phone#2"), "HistoryPage");
    script.sends("alice/phone", group, b"are you there?");
    assert_eq!(script.kind_told("carol/phone#2"), "Entry");
    script.acknowledges("carol/phone#2", group, 5, 5);
}

fn two_devices(script: &mut Script<'_>) {
    script.goes_on_line("alice/phone", &[]);
    let group = script.creates("alice/phone", "lunch", &["bob"]);
    script.sends("alice/phone", group, b"noon?");
    script.goes_on_line("alice/tablet", &[]);
    script.says("alice/tablet", &history_request(&[(group, 2)], 0, 0));
    script.sends("alice/tablet", group, b"or one?");
    assert_eq!(script.kind_told("alice/phone"), "Entry");
    assert_eq!(script.kind_told("alice/tablet"), "Entry");
    script.goes_on_line("alice/phone#2", &[(group, 3)]);
    assert_eq!(script.kind_told("alice/phone"), "TakenOver");
    script.sends("alice/phone#2", group, b"one");
    assert_eq!(script.kind_told("alice/tablet"), "Entry");
    assert_eq!(script.kind_told("alice/phone"), "TakenOver");
}

fn removed_while_away(script: &mut Script<'_>) {
    script.goes_on_line("alice/phone", &[]);
    script.goes_on_line("bob/phone", &[]);
    let group = script.creates("alice/phone", "lunch", &["bob", "carol"]);
    script.does(Step::Closes, "bob/phone");
    script.sends("alice/phone", group, b"noon?");
    let operation = script.operation();
    script.says("alice/phone", &Request::Remove { operation, group, members: users(&["bob"]) });
    script.sends("alice/phone", group, b"not for bob");
    script.goes_on_line("bob/phone#2", &[(group, 1)]);
    script.says("bob/phone#2", &history_request(&[(group, 2)], 0, 0));
    let page = script.last_told("bob/phone#2");
    assert!(page.contains("entries[1].kind = 3") && !page.contains("entries[2]"), "up to his removal: {page}");
    script.acknowledges("bob/phone#2", group, 3, 0);
    script.stage.perform(&Step::Passes(1_000));
    script.says("bob/phone#2", &history_request(&[(group, 2)], 0, 0));
    assert!(script.last_told("bob/phone#2").contains("error.code = 203"), "NOT_FOUND");
}

fn slow_reader(script: &mut Script<'_>) {
    script.goes_on_line("alice/phone", &[]);
    script.goes_on_line("bob/phone", &[]);
    let group = script.creates("alice/phone", "lunch", &["bob"]);
    script.does(Step::StopsReading, "bob/phone");
    for _ in 0..2 {
        assert!(script.stage.waiting("bob/phone") <= OUTPUT_BYTES_SOFT);
        script.sends("alice/phone", group, &vec![b'z'; 40_000]);
    }
    let waiting = script.stage.waiting("bob/phone");
    assert!(waiting > OUTPUT_BYTES_SOFT);
    for body in ["four", "five", "six"] {
        script.sends("alice/phone", group, body.as_bytes());
    }
    assert_eq!(script.stage.waiting("bob/phone"), waiting, "nothing more waits for who does not read");
    script.does(Step::ReadsOn, "bob/phone");
    assert_eq!(script.kind_told("bob/phone"), "Behind");
    script.says("bob/phone", &history_request(&[(group, 4)], 2, 0));
    script.sends("alice/phone", group, b"seven");
    assert_eq!(script.kind_told("bob/phone"), "HistoryPage", "two pages are not read yet");
    script.says("bob/phone", &history_request(&[(group, 6)], 2, 0));
    script.sends("alice/phone", group, b"eight");
    assert_eq!(script.kind_told("bob/phone"), "Entry");
}
