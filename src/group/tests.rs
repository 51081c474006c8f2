//! The rules against a model that shares nothing with them: a list of names, an owner's name, and counters.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Act, Author, Authority, Decision, Entry, Event, Limit, Record, Refusal, Succession, create, decide};
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

fn author(name: &UserId) -> Author {
    Author { sender: name.clone(), by: None, authority: Authority::Sender, at_ms: AT_MS }
}

fn users(names: &[&str]) -> Vec<UserId> {
    names.iter().map(|name| user(name)).collect()
}

fn created(creator: &str, members: &[&str]) -> Entry {
    create(&author(&user(creator)), "lunch".into(), users(members)).unwrap()
}

/// What an act of a member, or of a stranger, gives.
fn asked(record: &Record, head: u64, sender: &str, act: Act) -> Result<Decision, Refusal> {
    decide(record, head, &author(&user(sender)), act)
}

/// The entry that an act makes, applied.
fn done(record: &mut Record, head: u64, sender: &str, act: Act) -> Entry {
    let Ok(Decision::Entry(entry)) = asked(record, head, sender, act) else { panic!("{sender} makes no entry") };
    record.apply(&entry);
    record.check_invariants();
    entry
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

/// One request of a random history: who asks, and what.
#[derive(Clone, Debug)]
enum Step {
    Send,
    Leave,
    Add(Vec<u8>),
    Remove(Vec<u8>),
    Rename(String),
    Transfer(u8),
    Whisper(Vec<u8>),
    Dissolve,
}

fn step() -> impl Strategy<Value = (u8, Step)> {
    let what = prop_oneof![
        4 => Just(Step::Send),
        3 => Just(Step::Leave),
        4 => vec(0..12_u8, 0..4).prop_map(Step::Add),
        3 => vec(0..12_u8, 0..3).prop_map(Step::Remove),
        1 => "[ab]{0,1}".prop_map(Step::Rename),
        2 => (0..12_u8).prop_map(Step::Transfer),
        2 => vec(0..12_u8, 0..3).prop_map(Step::Whisper),
        1 => Just(Step::Dissolve),
    ];
    (0..12_u8, what)
}

fn name(number: u8) -> String {
    format!("u{number}")
}

fn act(step: &Step) -> Act {
    let list = |numbers: &[u8]| numbers.iter().map(|number| user(&name(*number))).collect();
    match step {
        Step::Send => Act::Send { body: body(3) },
        Step::Leave => Act::Leave,
        Step::Add(numbers) => Act::Add { members: list(numbers) },
        Step::Remove(numbers) => Act::Remove { members: list(numbers) },
        Step::Rename(title) => Act::Rename { title: title.as_str().into() },
        Step::Transfer(number) => Act::Transfer { owner: user(&name(*number)) },
        Step::Whisper(numbers) => Act::Whisper { to: list(numbers), body: body(1) },
        Step::Dissolve => Act::Dissolve,
    }
}

/// What the model answers to a step of somebody; the model follows it.
#[allow(clippy::too_many_lines)] // one arm a request, each with its whole rule
fn answer(sender: &str, step: &Step, model: &mut Model) -> Result<Option<Event>, Refusal> {
    if !model.has(sender) {
        return Err(Refusal::NotFound);
    }
    let owns = model.owner == sender;
    let names = |numbers: &[u8]| {
        let mut names: Vec<String> = Vec::new();
        for name in numbers.iter().copied().map(name) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    };
    let ids = |names: &[String]| names.iter().map(|name| user(name)).collect();
    match step {
        Step::Send => {
            model.head += 1;
            Ok(Some(Event::Message { body: body(3) }))
        }
        Step::Leave => Ok(Some(Event::Left { succession: model.leave(sender) })),
        Step::Add(numbers) => {
            let new: Vec<String> = names(numbers).into_iter().filter(|name| !model.has(name)).collect();
            if new.is_empty() {
                return Ok(None);
            }
            model.changed();
            let head = model.head;
            model.members.extend(new.iter().map(|name| (name.clone(), head)));
            Ok(Some(Event::Added { members: ids(&new) }))
        }
        Step::Remove(numbers) => {
            let gone: Vec<String> = names(numbers).into_iter().filter(|name| model.has(name)).collect();
            if gone == [sender.to_owned()] {
                return Ok(Some(Event::Left { succession: model.leave(sender) }));
            }
            if !owns || gone.iter().any(|name| name == sender) {
                return Err(Refusal::Forbidden);
            }
            if gone.is_empty() {
                return Ok(None);
            }
            model.changed();
            model.members.retain(|(name, _)| !gone.contains(name));
            Ok(Some(Event::Removed { members: ids(&gone) }))
        }
        Step::Whisper(numbers) => {
            let to = names(numbers);
            if !to.iter().all(|name| model.has(name)) {
                return Err(Refusal::NotAMember);
            }
            model.head += 1;
            let to: Vec<String> = to.into_iter().filter(|name| name != sender).collect();
            Ok(Some(Event::Whisper { to: ids(&to), body: body(1) }))
        }
        Step::Rename(_) | Step::Transfer(_) | Step::Dissolve if !owns => Err(Refusal::Forbidden),
        Step::Rename(title) if *title == model.title => Ok(None),
        Step::Rename(title) => {
            model.changed();
            model.title.clone_from(title);
            Ok(Some(Event::Renamed { title: title.as_str().into() }))
        }
        Step::Transfer(number) if !model.has(&name(*number)) => Err(Refusal::NotAMember),
        Step::Transfer(number) if name(*number) == sender => Ok(None),
        Step::Transfer(number) => {
            model.changed();
            model.owner = name(*number);
            Ok(Some(Event::Transferred { owner: user(&name(*number)) }))
        }
        Step::Dissolve => {
            model.changed();
            model.members.clear();
            model.dissolved = true;
            Ok(Some(Event::Dissolved))
        }
    }
}

/// Takes the step in both and compares; gives the entry that the log has for it, if the step makes one.
fn take(by: u8, step: &Step, model: &mut Model, record: &Record) -> Result<Option<Entry>, TestCaseError> {
    let sender = name(by);
    let made = asked(record, model.head, &sender, act(step));
    let expected = answer(&sender, step, model).map(|event| {
        event.map_or(Decision::Unchanged, |event| {
            let (seq, version) = (model.head, model.version);
            Decision::Entry(Entry { seq, version, at_ms: AT_MS, sender: user(&sender), by: None, event })
        })
    });
    prop_assert_eq!(&made, &expected);
    Ok(match made {
        Ok(Decision::Entry(entry)) => Some(entry),
        Ok(Decision::Unchanged) | Err(_) => None,
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
        let first = create(&author(&user(&name(creator))), "lunch".into(), list).unwrap();
        let mut record = record_of(&first);
        let mut model = Model::create(&name(creator), "lunch", &others);
        agree(&record, &model)?;
        let mut log = vec![first];
        for (by, step) in &steps {
            if let Some(entry) = take(*by, step, &mut model, &record)? {
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
    let entry = done(&mut record, 5, "alice", Act::Leave);
    assert_eq!(entry.event, Event::Left { succession: Succession::Passed { owner: user("bob") } });
    assert_eq!((entry.seq, entry.version), (6, 6), "messages took the seqs before it");
    assert_eq!((record.owner.as_str(), names(&record)), ("bob", vec!["bob", "carol"]));
    assert_eq!(record.creator, user("alice"), "the creator stays who it was");
}

#[test]
fn an_owner_by_transfer_is_followed_by_the_longest_standing_member() {
    let mut record = record_of(&created("alice", &["bob", "carol"]));
    done(&mut record, 1, "alice", Act::Transfer { owner: user("carol") });
    let entry = done(&mut record, 2, "carol", Act::Leave);
    assert_eq!(entry.event, Event::Left { succession: Succession::Passed { owner: user("alice") } });
}

#[test]
fn whoever_comes_back_stands_last() {
    let mut record = record_of(&created("alice", &["bob", "carol"]));
    done(&mut record, 1, "bob", Act::Leave);
    done(&mut record, 2, "carol", Act::Add { members: users(&["bob"]) });
    assert_eq!(names(&record), ["alice", "carol", "bob"]);
    let entry = done(&mut record, 3, "alice", Act::Leave);
    assert_eq!(entry.event, Event::Left { succession: Succession::Passed { owner: user("carol") } });
}

#[test]
fn when_the_last_member_leaves_the_group_is_dissolved_and_nobody_can_do_anything() {
    let mut record = record_of(&created("alice", &[]));
    let entry = done(&mut record, 1, "alice", Act::Leave);
    assert_eq!(entry.event, Event::Left { succession: Succession::Dissolved });
    assert!(record.dissolved);
    for act in [Act::Leave, Act::Dissolve, Act::Send { body: body(1) }, Act::Add { members: users(&["alice"]) }] {
        assert_eq!(asked(&record, 2, "alice", act.clone()), Err(Refusal::NotFound));
        let system = Author { authority: Authority::System, ..author(&user("alice")) };
        assert_eq!(decide(&record, 2, &system, act), Err(Refusal::NotFound), "the system cannot either");
    }
}

#[test]
fn strangers_and_those_who_left_get_the_same_answer_whatever_they_ask() {
    let mut record = record_of(&created("alice", &["bob"]));
    done(&mut record, 1, "bob", Act::Leave);
    let acts = [
        Act::Send { body: body(1) },
        Act::Send { body: body(BODY_BYTES_MAX + 1) },
        Act::Whisper { to: users(&["nobody"]), body: body(1) },
        Act::Add { members: vec![] },
        Act::Remove { members: users(&["bob"]) },
        Act::Rename { title: "x".repeat(TITLE_BYTES_MAX + 1).into() },
        Act::Transfer { owner: user("nobody") },
        Act::Dissolve,
        Act::Leave,
    ];
    for outsider in ["bob", "mallory"] {
        for act in &acts {
            assert_eq!(asked(&record, 2, outsider, act.clone()), Err(Refusal::NotFound), "{act:?}");
        }
    }
}

#[test]
fn removing_oneself_alone_is_leaving_for_a_member_and_for_the_owner() {
    for (who, succession) in [("bob", Succession::Unchanged), ("alice", Succession::Passed { owner: user("bob") })] {
        let mut record = record_of(&created("alice", &["bob", "carol"]));
        let entry = done(&mut record, 1, who, Act::Remove { members: users(&[who, "stranger", who]) });
        assert_eq!(entry.event, Event::Left { succession });
    }
}

#[test]
fn an_owner_does_not_remove_itself_with_others_in_one_entry() {
    let record = record_of(&created("alice", &["bob"]));
    let both = Act::Remove { members: users(&["bob", "alice"]) };
    assert_eq!(asked(&record, 1, "alice", both), Err(Refusal::Forbidden));
}

#[test]
fn the_system_may_what_an_owner_may_and_leaves_the_owner_in_place() {
    let mut record = record_of(&created("alice", &["bob"]));
    let system = Author { authority: Authority::System, ..author(&user("console")) };
    let mut head = 1;
    for act in [
        Act::Rename { title: "tea".into() },
        Act::Add { members: users(&["carol"]) },
        Act::Remove { members: users(&["bob"]) },
        Act::Transfer { owner: user("carol") },
        Act::Send { body: body(1) },
    ] {
        let Ok(Decision::Entry(entry)) = decide(&record, head, &system, act.clone()) else { panic!("{act:?}") };
        record.apply(&entry);
        record.check_invariants();
        head = entry.seq;
    }
    let owner = Act::Remove { members: users(&["carol"]) };
    assert_eq!(decide(&record, head, &system, owner), Err(Refusal::Forbidden));
    assert_eq!(decide(&record, head, &system, Act::Leave), Err(Refusal::NotFound), "it is no member");
}

#[test]
fn a_message_leaves_the_record_as_it_is() {
    let mut record = record_of(&created("alice", &["bob"]));
    let before = record.clone();
    let gateway = Author { by: Some(user("gateway")), ..author(&user("bob")) };
    let Ok(Decision::Entry(entry)) = decide(&record, 1, &gateway, Act::Send { body: body(1) }) else { panic!() };
    assert_eq!((entry.seq, entry.version, &entry.by), (2, 1, &Some(user("gateway"))));
    record.apply(&entry);
    assert_eq!(record, before);
}

#[test]
fn members_are_limited_after_duplicates_collapsed() {
    let creator = author(&numbered(0));
    let of = |count: usize| create(&creator, "".into(), (0..count).map(numbered).collect());
    for count in [GROUP_MEMBERS_MAX - 1, GROUP_MEMBERS_MAX] {
        let record = Record::from_created(group(), &of(count).unwrap()).unwrap();
        record.check_invariants();
        assert_eq!(record.members.len(), count);
    }
    assert_eq!(of(GROUP_MEMBERS_MAX + 1), Err(Refusal::Limit(Limit::Members)));
    let twice = (0..GROUP_MEMBERS_MAX).chain(0..GROUP_MEMBERS_MAX).map(numbered).collect();
    assert!(create(&creator, "".into(), twice).is_ok());
    let mut full = Record::from_created(group(), &of(GROUP_MEMBERS_MAX - 1).unwrap()).unwrap();
    let add = |record: &Record, names: &[&str]| asked(record, 1, "user-0", Act::Add { members: users(names) });
    assert_eq!(add(&full, &["one", "two"]), Err(Refusal::Limit(Limit::Members)));
    assert!(add(&full, &["one", "one", "user-7"]).is_ok());
    done(&mut full, 1, "user-0", Act::Add { members: users(&["one"]) });
    assert_eq!(add(&full, &["two"]), Err(Refusal::Limit(Limit::Members)));
    assert_eq!(add(&full, &["one"]), Ok(Decision::Unchanged));
}

#[test]
fn titles_are_limited_in_bytes() {
    let of = |title: String| create(&author(&user("alice")), title.into(), vec![]);
    assert!(of(String::new()).is_ok());
    assert!(of("x".repeat(TITLE_BYTES_MAX - 1)).is_ok());
    assert!(of("x".repeat(TITLE_BYTES_MAX)).is_ok());
    assert_eq!(of("x".repeat(TITLE_BYTES_MAX + 1)), Err(Refusal::Limit(Limit::Title)));
    assert_eq!(of("ж".repeat(TITLE_BYTES_MAX / 2 + 1)), Err(Refusal::Limit(Limit::Title)));
}

#[test]
fn bodies_are_limited() {
    let record = record_of(&created("alice", &[]));
    let of = |bytes| asked(&record, 1, "alice", Act::Send { body: body(bytes) });
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
    let entry = create(&author(&numbered(0)), "".into(), (1..half).map(numbered).collect()).unwrap();
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
