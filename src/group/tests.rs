//! The rules against a model that shares nothing with them: a list of names, an owner's name, and counters.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Entry, Event, Limit, Record, Refusal, Succession, create, leave, send};
use crate::ids::{GroupId, UserId};
use crate::limits::{BODY_BYTES_MAX, GROUP_MEMBERS_MAX, TITLE_BYTES_MAX};

const AT_MS: u64 = 1_758_800_000_000;

fn user(text: &str) -> UserId {
    UserId::new(text).unwrap()
}

fn numbered(number: usize) -> UserId {
    user(&format!("user-{number}"))
}

fn group() -> GroupId {
    GroupId::generate(AT_MS, &[7; 10])
}

fn body(bytes: usize) -> Arc<[u8]> {
    vec![0x5a; bytes].into()
}

fn created(creator: &str, members: &[&str]) -> Entry {
    create(&user(creator), "lunch".into(), members.iter().map(|name| user(name)).collect(), None, AT_MS).unwrap()
}

fn record_of(entry: &Entry) -> Record {
    let record = Record::from_created(group(), entry).unwrap();
    record.check_invariants();
    record
}

fn names(record: &Record) -> Vec<&str> {
    record.members.iter().map(|member| member.user.as_str()).collect()
}

/// What a group is, said in the simplest way.
#[derive(Clone, Debug, Default)]
struct Model {
    title: String,
    owner: String,
    /// With the seq that made each a member.
    members: Vec<(String, u64)>,
    version: u64,
    head: u64,
    dissolved: bool,
}

impl Model {
    fn create(creator: &str, title: &str, members: &[String]) -> Self {
        let mut list = vec![(creator.to_owned(), 1)];
        for name in members {
            if list.iter().all(|(known, _)| known != name) {
                list.push((name.clone(), 1));
            }
        }
        Self {
            title: title.to_owned(),
            owner: creator.to_owned(),
            members: list,
            version: 1,
            head: 1,
            dissolved: false,
        }
    }

    fn has(&self, name: &str) -> bool {
        self.members.iter().any(|(known, _)| known == name)
    }

    fn changed(&mut self) {
        self.head += 1;
        self.version = self.head;
    }

    fn leave(&mut self, name: &str) -> Succession {
        self.changed();
        self.members.retain(|(known, _)| known != name);
        let Some((heir, _)) = self.members.first() else {
            self.dissolved = true;
            return Succession::Dissolved;
        };
        if self.owner != name {
            return Succession::Unchanged;
        }
        self.owner.clone_from(heir);
        Succession::Passed { owner: user(heir) }
    }
}

/// One step of a random history. The rules of this version make `Send` and `Leave`; the other changes come as entries,
/// as they will from the rules of a later one.
#[derive(Clone, Debug)]
enum Step {
    Send(u8),
    Leave(u8),
    Add(Vec<u8>),
    Remove(Vec<u8>),
    Rename(String),
    Transfer(u8),
    Whisper(u8),
    Dissolve,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..12_u8).prop_map(Step::Send),
        4 => (0..12_u8).prop_map(Step::Leave),
        3 => vec(0..12_u8, 0..4).prop_map(Step::Add),
        2 => vec(0..12_u8, 0..3).prop_map(Step::Remove),
        1 => "[a-z]{0,8}".prop_map(Step::Rename),
        1 => (0..12_u8).prop_map(Step::Transfer),
        1 => (0..12_u8).prop_map(Step::Whisper),
        1 => Just(Step::Dissolve),
    ]
}

fn name(number: u8) -> String {
    format!("u{number}")
}

fn entry_of(model: &Model, sender: &str, event: Event) -> Entry {
    let (seq, version) = (model.head, model.version);
    Entry { seq, version, at_ms: AT_MS, sender: user(sender), by: None, event }
}

/// Takes the step in the model and gives the entry that the log has for it, if the step makes one.
fn take(step: &Step, model: &mut Model, record: &Record) -> Result<Option<Entry>, TestCaseError> {
    let owner = model.owner.clone();
    Ok(match step {
        Step::Send(number) => {
            let sender = name(*number);
            let made = send(record, model.head, &user(&sender), body(3), None, AT_MS);
            if !model.has(&sender) {
                prop_assert_eq!(made, Err(Refusal::NotFound));
                return Ok(None);
            }
            model.head += 1;
            let expected = entry_of(model, &sender, Event::Message { body: body(3) });
            prop_assert_eq!(made, Ok(expected.clone()));
            Some(expected)
        }
        Step::Leave(number) => {
            let sender = name(*number);
            let made = leave(record, model.head, &user(&sender), None, AT_MS);
            if !model.has(&sender) {
                prop_assert_eq!(made, Err(Refusal::NotFound));
                return Ok(None);
            }
            let succession = model.leave(&sender);
            let expected = entry_of(model, &sender, Event::Left { succession });
            prop_assert_eq!(made, Ok(expected.clone()));
            Some(expected)
        }
        _ if model.dissolved => None,
        Step::Add(numbers) => {
            model.changed();
            for name in numbers.iter().copied().map(name) {
                if !model.has(&name) {
                    model.members.push((name, model.head));
                }
            }
            let members = numbers.iter().map(|number| user(&name(*number))).collect();
            Some(entry_of(model, &owner, Event::Added { members }))
        }
        Step::Remove(numbers) => {
            let gone: Vec<String> = numbers.iter().copied().map(name).filter(|name| *name != owner).collect();
            model.changed();
            model.members.retain(|(name, _)| !gone.contains(name));
            let members = gone.iter().map(|name| user(name)).collect();
            Some(entry_of(model, &owner, Event::Removed { members }))
        }
        Step::Rename(title) => {
            model.changed();
            model.title.clone_from(title);
            Some(entry_of(model, &owner, Event::Renamed { title: title.as_str().into() }))
        }
        Step::Transfer(number) => {
            let heir = name(*number);
            if !model.has(&heir) {
                return Ok(None);
            }
            model.changed();
            model.owner.clone_from(&heir);
            Some(entry_of(model, &owner, Event::Transferred { owner: user(&heir) }))
        }
        Step::Whisper(number) => {
            model.head += 1;
            Some(entry_of(model, &owner, Event::Whisper { to: vec![user(&name(*number))], body: body(1) }))
        }
        Step::Dissolve => {
            model.changed();
            model.members.clear();
            model.dissolved = true;
            Some(entry_of(model, &owner, Event::Dissolved))
        }
    })
}

fn agree(record: &Record, model: &Model) -> Result<(), TestCaseError> {
    record.check_invariants();
    let members: Vec<(String, u64)> =
        record.members.iter().map(|member| (member.user.to_string(), member.joined)).collect();
    prop_assert_eq!(&members, &model.members);
    prop_assert_eq!(&*record.title, model.title.as_str());
    prop_assert_eq!((record.version, record.dissolved), (model.version, model.dissolved));
    if !model.dissolved {
        prop_assert_eq!(record.owner.as_str(), model.owner.as_str());
    }
    Ok(())
}

proptest! {
    #[test]
    fn rules_and_model_agree_and_a_log_gives_the_record_again(
        creator in 0..12_u8,
        others in vec(0..12_u8, 0..10),
        steps in vec(step(), 0..60),
    ) {
        let others: Vec<String> = others.into_iter().map(name).collect();
        let list = others.iter().map(|name| user(name)).collect();
        let first = create(&user(&name(creator)), "lunch".into(), list, None, AT_MS).unwrap();
        let mut record = record_of(&first);
        let mut model = Model::create(&name(creator), "lunch", &others);
        agree(&record, &model)?;
        let mut log = vec![first];
        for step in &steps {
            if let Some(entry) = take(step, &mut model, &record)? {
                record.apply(&entry);
                log.push(entry);
            }
            agree(&record, &model)?;
        }

        let seqs: Vec<u64> = log.iter().map(|entry| entry.seq).collect();
        prop_assert_eq!(seqs, (1..=model.head).collect::<Vec<_>>());
        prop_assert!(log.iter().all(|entry| (entry.version == entry.seq) == entry.event.changes_record()));

        let mut replayed = Record::from_created(group(), &log[0]).unwrap();
        for what in ["replayed from the beginning", "old entries change nothing"] {
            for entry in &log {
                replayed.apply(entry);
            }
            prop_assert_eq!(&replayed, &record, "{}", what);
        }
    }
}

#[test]
fn the_creator_comes_first_and_duplicates_collapse() {
    let entry = created("alice", &["bob", "alice", "carol", "bob"]);
    assert_eq!(names(&record_of(&entry)), ["alice", "bob", "carol"]);
    assert_eq!((entry.seq, entry.version, entry.sender), (1, 1, user("alice")));
}

#[test]
fn a_group_of_one_is_legal() {
    for members in [&[][..], &["alice"], &["alice", "alice"]] {
        assert_eq!(names(&record_of(&created("alice", members))), ["alice"]);
    }
}

#[test]
fn when_the_owner_leaves_the_longest_standing_member_becomes_owner() {
    let mut record = record_of(&created("alice", &["bob", "carol"]));
    let entry = leave(&record, 5, &user("alice"), None, AT_MS).unwrap();
    assert_eq!(entry.event, Event::Left { succession: Succession::Passed { owner: user("bob") } });
    assert_eq!((entry.seq, entry.version), (6, 6), "messages took the seqs before it");
    record.apply(&entry);
    record.check_invariants();
    assert_eq!((record.owner.as_str(), names(&record)), ("bob", vec!["bob", "carol"]));
    assert_eq!(record.creator, user("alice"), "the creator stays who it was");
}

#[test]
fn an_owner_by_transfer_is_followed_by_the_longest_standing_member() {
    let mut record = record_of(&created("alice", &["bob", "carol"]));
    let event = Event::Transferred { owner: user("carol") };
    record.apply(&Entry { seq: 2, version: 2, at_ms: AT_MS, sender: user("alice"), by: None, event });
    let entry = leave(&record, 2, &user("carol"), None, AT_MS).unwrap();
    assert_eq!(entry.event, Event::Left { succession: Succession::Passed { owner: user("alice") } });
}

#[test]
fn when_the_last_member_leaves_the_group_is_dissolved_and_nobody_can_do_anything() {
    let mut record = record_of(&created("alice", &[]));
    let entry = leave(&record, 1, &user("alice"), None, AT_MS).unwrap();
    assert_eq!(entry.event, Event::Left { succession: Succession::Dissolved });
    record.apply(&entry);
    record.check_invariants();
    assert!(record.dissolved);
    assert_eq!(leave(&record, 2, &user("alice"), None, AT_MS), Err(Refusal::NotFound));
    assert_eq!(send(&record, 2, &user("alice"), body(1), None, AT_MS), Err(Refusal::NotFound));
}

#[test]
fn strangers_and_those_who_left_get_the_same_answer() {
    let mut record = record_of(&created("alice", &["bob"]));
    record.apply(&leave(&record, 1, &user("bob"), None, AT_MS).unwrap());
    for outsider in ["bob", "mallory"] {
        assert_eq!(send(&record, 2, &user(outsider), body(1), None, AT_MS), Err(Refusal::NotFound));
        let too_long = body(BODY_BYTES_MAX + 1);
        assert_eq!(send(&record, 2, &user(outsider), too_long, None, AT_MS), Err(Refusal::NotFound));
        assert_eq!(leave(&record, 2, &user(outsider), None, AT_MS), Err(Refusal::NotFound));
    }
}

#[test]
fn a_message_leaves_the_record_as_it_is() {
    let mut record = record_of(&created("alice", &["bob"]));
    let before = record.clone();
    let entry = send(&record, 1, &user("bob"), body(1), Some(user("gateway")), AT_MS).unwrap();
    assert_eq!((entry.seq, entry.version, &entry.by), (2, 1, &Some(user("gateway"))));
    record.apply(&entry);
    assert_eq!(record, before);
}

#[test]
fn members_are_limited_after_duplicates_collapsed() {
    let creator = numbered(0);
    let of = |count: usize| create(&creator, "".into(), (0..count).map(numbered).collect(), None, AT_MS);
    for count in [GROUP_MEMBERS_MAX - 1, GROUP_MEMBERS_MAX] {
        let record = Record::from_created(group(), &of(count).unwrap()).unwrap();
        record.check_invariants();
        assert_eq!(record.members.len(), count);
    }
    assert_eq!(of(GROUP_MEMBERS_MAX + 1), Err(Refusal::Limit(Limit::Members)));
    let twice = (0..GROUP_MEMBERS_MAX).chain(0..GROUP_MEMBERS_MAX).map(numbered).collect();
    assert!(create(&creator, "".into(), twice, None, AT_MS).is_ok());
}

#[test]
fn titles_are_limited_in_bytes() {
    let of = |title: String| create(&user("alice"), title.into(), vec![], None, AT_MS);
    assert!(of(String::new()).is_ok());
    assert!(of("x".repeat(TITLE_BYTES_MAX - 1)).is_ok());
    assert!(of("x".repeat(TITLE_BYTES_MAX)).is_ok());
    assert_eq!(of("x".repeat(TITLE_BYTES_MAX + 1)), Err(Refusal::Limit(Limit::Title)));
    assert_eq!(of("ж".repeat(TITLE_BYTES_MAX / 2 + 1)), Err(Refusal::Limit(Limit::Title)));
}

#[test]
fn bodies_are_limited() {
    let record = record_of(&created("alice", &[]));
    let of = |bytes| send(&record, 1, &user("alice"), body(bytes), None, AT_MS);
    for bytes in [0, BODY_BYTES_MAX - 1, BODY_BYTES_MAX] {
        assert!(of(bytes).is_ok());
    }
    assert_eq!(of(BODY_BYTES_MAX + 1), Err(Refusal::Limit(Limit::Body)));
}

#[test]
#[should_panic(expected = "no user is a member twice")]
fn a_member_that_stands_there_twice_is_found() {
    let mut record = record_of(&created("alice", &["bob"]));
    record.members.push(super::Member { user: user("alice"), joined: 1 });
    record.check_invariants();
}

#[test]
fn half_of_the_largest_list_joins_and_is_removed_again() {
    let half = GROUP_MEMBERS_MAX / 2;
    let entry = create(&numbered(0), "".into(), (1..half).map(numbered).collect(), None, AT_MS).unwrap();
    let mut record = record_of(&entry);
    let before = record.members.clone();
    let members: Vec<UserId> = (half..GROUP_MEMBERS_MAX).map(numbered).collect();
    let change = |seq, event| Entry { seq, version: seq, at_ms: AT_MS, sender: numbered(0), by: None, event };
    record.apply(&change(2, Event::Added { members: members.clone() }));
    record.check_invariants();
    assert_eq!(record.members.len(), GROUP_MEMBERS_MAX);
    record.apply(&change(3, Event::Removed { members }));
    record.check_invariants();
    assert_eq!(record.members, before);
}
