//! Random sequences of all calls, with reopening in between and with next to no cache, against the rules of groups.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::Config;
use roundtable::Engine;
use roundtable::engine::{Actor, EngineError, EngineOptions};
use roundtable::group::{Act, Decision, Entry, create};
use roundtable::ids::{GroupId, OperationId, UserId};
use roundtable::limits::SEGMENT_BYTES_MIN;

use super::rules::{Replayed, author, perform, timeless};
use super::{log, user};

/// One step. Groups, and operations said before, are named by a number that wraps around.
#[derive(Clone, Debug)]
enum Step {
    Create { creator: u8, members: Vec<u8>, with_id: bool },
    Act { actor: u8, group: u8, act: Act, with_id: bool },
    Again { operation: u8 },
    Reuse { operation: u8 },
    Reopen,
}

/// Of these, 0 is the system.
fn actor(number: u8) -> Actor {
    if number == 0 { Actor::System } else { Actor::User(member(number)) }
}

fn member(number: u8) -> UserId {
    user(&format!("user-{number}"))
}

fn members() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(1..6_u8, 0..4)
}

fn act() -> impl Strategy<Value = Act> {
    let users = || members().prop_map(|numbers| numbers.into_iter().map(member).collect::<Vec<_>>());
    let body = || proptest::collection::vec(any::<u8>(), 0..40).prop_map(std::sync::Arc::from);
    prop_oneof![
        3 => users().prop_map(|members| Act::Add { members }),
        2 => users().prop_map(|members| Act::Remove { members }),
        2 => Just(Act::Leave),
        2 => "[a-c]{0,2}".prop_map(|title| Act::Rename { title: title.as_str().into() }),
        2 => (1..6_u8).prop_map(|number| Act::Transfer { owner: member(number) }),
        1 => Just(Act::Dissolve),
        4 => body().prop_map(|body| Act::Send { body }),
        1 => (users(), body()).prop_map(|(to, body)| Act::Whisper { to, body }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..6_u8, members(), any::<bool>())
            .prop_map(|(creator, members, with_id)| Step::Create { creator, members, with_id }),
        16 => (0..6_u8, any::<u8>(), act(), any::<bool>())
            .prop_map(|(actor, group, act, with_id)| Step::Act { actor, group, act, with_id }),
        3 => any::<u8>().prop_map(|operation| Step::Again { operation }),
        1 => any::<u8>().prop_map(|operation| Step::Reuse { operation }),
        1 => Just(Step::Reopen),
    ]
}

/// What was asked for with an operation id and had an effect.
#[derive(Clone, Debug)]
struct Done {
    id: OperationId,
    actor: Actor,
    /// `None` for a create: it is asked for with no other members.
    act: Option<(GroupId, Act)>,
    members: Vec<UserId>,
    /// Group, seq, version.
    answer: (GroupId, u64, u64),
}

struct Model {
    home: tempfile::TempDir,
    engine: Engine,
    logs: BTreeMap<GroupId, Vec<Entry>>,
    made: Vec<GroupId>,
    done: Vec<Done>,
}

impl Model {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let engine = open(home.path());
        Self { home, engine, logs: BTreeMap::new(), made: Vec::new(), done: Vec::new() }
    }

    fn run(mut self, steps: &[Step]) {
        for step in steps {
            self = self.step(step);
        }
        self.compare();
    }

    fn step(mut self, step: &Step) -> Self {
        match step {
            Step::Create { creator, members, with_id } => {
                self.create(&actor(*creator), members.iter().copied().map(member).collect(), *with_id);
            }
            Step::Act { actor: number, group, act, with_id } if !self.made.is_empty() => {
                let group = self.made[usize::from(*group) % self.made.len()];
                self.act(&actor(*number), group, act, *with_id);
            }
            Step::Again { operation } if !self.done.is_empty() => {
                let done = self.done[usize::from(*operation) % self.done.len()].clone();
                self.again(&done);
            }
            Step::Reuse { operation } if !self.done.is_empty() => {
                let Done { id, actor, .. } = self.done[usize::from(*operation) % self.done.len()].clone();
                let reused = self.engine.acting(actor).operation(id).create("something else", &[user("new")]);
                assert_eq!(reused, Err(EngineError::IdReused));
            }
            Step::Reopen => {
                self.compare();
                self.engine.close().expect("it closes");
                self.engine = open(self.home.path());
            }
            Step::Act { .. } | Step::Again { .. } | Step::Reuse { .. } => {}
        }
        self
    }

    fn create(&mut self, actor: &Actor, members: Vec<UserId>, with_id: bool) {
        let id = with_id.then(OperationId::random);
        let acting = self.engine.acting(actor.clone());
        let created = id.map_or(acting.clone(), |id| acting.operation(id)).create("t", &members);
        let sender = match actor {
            Actor::User(user) => Some(user.clone()),
            Actor::System => members.first().cloned(),
        };
        let Some(sender) = sender else { return assert_eq!(created, Err(EngineError::NotAMember)) };
        let author = roundtable::group::Author { sender, ..author(actor) };
        let entry = create(&author, "t".into(), members.clone()).expect("few members");
        let created = created.expect("it is made");
        assert_eq!((created.seq, created.version, created.repeated), (1, 1, false));
        assert!(self.logs.insert(created.group, vec![entry]).is_none(), "a new id");
        self.made.push(created.group);
        let answer = (created.group, 1, 1);
        self.done.extend(id.map(|id| Done { id, actor: actor.clone(), act: None, members, answer }));
    }

    fn act(&mut self, actor: &Actor, group: GroupId, act: &Act, with_id: bool) {
        let id = with_id.then(OperationId::random);
        let answer = perform(&self.engine, actor, id, group, act);
        let entries = self.logs.get_mut(&group).expect("it was made");
        let replayed = Replayed::of(group, entries.clone()).expect("a log of the model");
        let version = replayed.at(replayed.head()).map_or(0, |record| record.version);
        match replayed.decide(replayed.head(), actor, act) {
            Err(error) => assert_eq!(answer, Err(error)),
            Ok(Decision::Unchanged) => {
                let answer = answer.expect("it is so already");
                assert_eq!((answer.seq, answer.version, answer.repeated), (version, version, false));
            }
            Ok(Decision::Entry(entry)) => {
                let answer = answer.expect("the rules allow it");
                assert_eq!((answer.seq, answer.version, answer.repeated), (entry.seq, entry.version, false));
                entries.push(entry);
                let answer = (group, answer.seq, answer.version);
                let (actor, act) = (actor.clone(), Some((group, act.clone())));
                self.done.extend(id.map(|id| Done { id, actor, act, members: Vec::new(), answer }));
            }
        }
    }

    fn again(&self, Done { id, actor, act, members, answer }: &Done) {
        let (group, seq, version) = *answer;
        let again = match act {
            Some((group, act)) => perform(&self.engine, actor, Some(*id), *group, act)
                .map(|changed| (changed.group, changed.seq, changed.version, changed.repeated)),
            None => self
                .engine
                .acting(actor.clone())
                .operation(*id)
                .create("t", members)
                .map(|created| (created.group, created.seq, created.version, created.repeated)),
        };
        assert_eq!(again, Ok((group, seq, version, true)));
    }

    /// Everything that the engine has is what the model has.
    fn compare(&self) {
        let all: Vec<_> = self.engine.groups().map(|group| group.expect("a group")).collect();
        assert!(all.iter().map(|group| group.record.group).eq(self.logs.keys().copied()));
        for snapshot in all {
            let group = snapshot.record.group;
            let entries = log(&self.engine, group);
            assert!(entries.iter().map(timeless).eq(self.logs[&group].iter().cloned()), "{group}");
            let replayed = Replayed::of(group, entries).unwrap_or_else(|wrong| panic!("{wrong}"));
            assert_eq!(Some(&*snapshot.record), replayed.at(snapshot.head));
            assert_eq!(snapshot.head, replayed.head());
            assert_eq!(self.engine.group(group).expect("it is there"), snapshot);
        }
        for number in 1..6 {
            let listed = self.engine.groups_of(&member(number)).map(|line| line.expect("a line").group);
            let is_in = |(group, entries): (&GroupId, &Vec<Entry>)| {
                let replayed = Replayed::of(*group, entries.clone()).expect("a log of the model");
                replayed.at(replayed.head()).is_some_and(|record| record.has(&member(number))).then_some(*group)
            };
            assert!(listed.eq(self.logs.iter().filter_map(is_in)), "the groups of user-{number}");
        }
    }
}

/// Next to nothing stays loaded.
fn open(directory: &std::path::Path) -> Engine {
    let options = EngineOptions::new(directory);
    let options = EngineOptions { segment_bytes: SEGMENT_BYTES_MIN, cache_bytes_max: 0, ..options };
    Engine::open_with(&options).expect("it opens")
}

/// Each opens real directories, so fewer than usual unless told otherwise.
fn cases() -> u32 {
    std::env::var_os("PROPTEST_CASES").map_or(48, |_| Config::default().cases)
}

proptest! {
    #![proptest_config(Config { cases: cases(), ..Config::default() })]

    #[test]
    fn random_sequences_of_all_calls_make_what_the_rules_say(steps in proptest::collection::vec(step(), 1..60)) {
        Model::new().run(&steps);
    }
}
