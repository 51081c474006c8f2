//! Several threads at once on few groups: what each was told must fit one order of everything, in which nothing takes
//! effect before it was asked for or after it was answered (linearizability, each group for itself).

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use roundtable::Engine;
use roundtable::engine::{Actor, Changed, EngineError, Snapshot};
use roundtable::group::{Act, Decision};
use roundtable::ids::{GroupId, OperationId, UserId};

use super::rules::{Replayed, perform};
use super::{log, open, seed, user};

const THREADS: u64 = 6;
const CALLS: usize = 250;

/// One call, with the moments between which it took effect.
#[derive(Debug)]
struct Call {
    group: GroupId,
    begun: u64,
    ended: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Changed {
        actor: Actor,
        act: Act,
        outcome: Result<Changed, EngineError>,
    },
    Shown(Snapshot),
    /// The line of a group in the list of a user: title, version, head.
    Listed(UserId, Option<(String, u64, u64)>),
}

/// What all threads share.
struct Stage<'a> {
    engine: &'a Engine,
    groups: &'a [GroupId],
    users: &'a [UserId],
    clock: AtomicU64,
    calls: Mutex<Vec<Call>>,
}

impl Stage<'_> {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn play(&self, mut random: StdRng) {
        for _ in 0..CALLS {
            let group = self.groups[random.random_range(0..self.groups.len())];
            let begun = self.now();
            let what = match random.random_range(0..10) {
                0 => What::Shown(self.engine.group(group).expect("it is there")),
                1 => self.list(group, &self.users[random.random_range(0..self.users.len())]),
                _ => self.change(group, &mut random),
            };
            let ended = self.now();
            self.calls.lock().expect("nobody panicked").push(Call { group, begun, ended, what });
        }
    }

    fn change(&self, group: GroupId, random: &mut StdRng) -> What {
        let actor = match random.random_range(0..8) {
            0 => Actor::System,
            _ => Actor::from(&self.users[random.random_range(0..self.users.len())]),
        };
        let act = random_act(self.users, random);
        let operation = random.random_bool(0.5).then(OperationId::random);
        let outcome = perform(self.engine, &actor, operation, group, &act);
        What::Changed { actor, act, outcome }
    }

    fn list(&self, group: GroupId, user: &UserId) -> What {
        let mut lines = self.engine.groups_of(user).map(|line| line.expect("a line"));
        let line = lines.find(|line| line.group == group);
        What::Listed(user.clone(), line.map(|line| (line.title, line.version, line.head)))
    }
}

/// Never the end of a group: there are few of them.
fn random_act(users: &[UserId], random: &mut StdRng) -> Act {
    let some = |random: &mut StdRng| -> Vec<UserId> {
        let count = random.random_range(1..4);
        (0..count).map(|_| users[random.random_range(0..users.len())].clone()).collect()
    };
    match random.random_range(0..12) {
        0..4 => Act::Add { members: some(random) },
        4 => Act::Remove { members: some(random) },
        5 => Act::Leave,
        6 | 7 => Act::Rename { title: random.random_range(0..4).to_string().into() },
        8 => Act::Transfer { owner: some(random).remove(0) },
        9 => Act::Whisper { to: some(random), body: b"psst"[..].into() },
        _ => Act::Send { body: vec![7; random.random_range(0..300)].into() },
    }
}

#[test]
fn whatever_threads_do_at_once_fits_one_order_of_each_group() {
    let seed = seed();
    let home = tempfile::tempdir().expect("a directory");
    let engine = open(home.path());
    let users: Vec<_> = (0..5).map(|number| user(&format!("user-{number}"))).collect();
    // One who never acts, so that no group ends.
    let anchor = user("anchor");
    let members: Vec<_> = users.iter().take(3).cloned().collect();
    let groups: Vec<_> =
        (0..3).map(|_| engine.acting(&anchor).create("g", &members).expect("it is made").group).collect();
    let (clock, calls) = (AtomicU64::new(1), Mutex::default());
    let stage = Stage { engine: &engine, groups: &groups, users: &users, clock, calls };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (stage, random) = (&stage, StdRng::seed_from_u64(seed ^ thread));
            scope.spawn(move || stage.play(random));
        }
    });
    let mut calls = stage.calls.into_inner().expect("nobody panicked");
    calls.sort_by_key(|call| call.begun);
    assert_eq!(calls.len(), usize::try_from(THREADS).expect("few") * CALLS);
    let mut effects = 0;
    for group in groups {
        let replayed = Replayed::of(group, log(&engine, group)).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(Some(&*engine.group(group).expect("it is there").record), timed(&replayed, &engine, group).as_ref());
        effects += replayed.head() - 1;
        let of_group: Vec<&Call> = calls.iter().filter(|call| call.group == group).collect();
        let wrong = violations(&replayed, &of_group);
        assert!(wrong.is_empty(), "seed {seed}: {group}:\n{}", wrong.join("\n"));
    }
    assert!(effects > 300, "there was something to order: {effects}");
}

fn timed(replayed: &Replayed, engine: &Engine, group: GroupId) -> Option<roundtable::group::Record> {
    let created_at_ms = engine.group(group).ok()?.record.created_at_ms;
    replayed.at(replayed.head()).map(|record| roundtable::group::Record { created_at_ms, ..record.clone() })
}

/// Everything that does not fit, in words.
fn violations(replayed: &Replayed, calls: &[&Call]) -> Vec<String> {
    let mut wrong = Vec::new();
    // Each entry was made by one call: when that call was under way is when the entry may have taken effect. Where
    // several could have made it (one added a member, another found it added), the first that began stands for all.
    let mut makers: BTreeMap<u64, &Call> = BTreeMap::new();
    for call in calls {
        if let What::Changed { actor, act, outcome: Ok(changed) } = &call.what
            && replayed.made(changed.seq, actor, act)
            && !makers.contains_key(&changed.seq)
        {
            makers.insert(changed.seq, call);
        }
    }
    for seq in (2..=replayed.head()).filter(|seq| !makers.contains_key(seq)) {
        wrong.push(format!("nobody was told of seq {seq}: {:?}", replayed.entry(seq)));
    }
    for call in calls {
        // An entry was there if its maker, or anybody who saw it, was answered before this call began; it cannot
        // have been there if its maker began after this call ended.
        let seen = calls.iter().filter(|other| other.ended < call.begun).filter_map(|other| head_seen(other));
        let low = seen.max().unwrap_or(1);
        let late = makers.iter().find(|(_, maker)| maker.begun > call.ended).map(|(seq, _)| *seq);
        let high = late.map_or(replayed.head(), |seq| seq - 1);
        if !fits(replayed, call, &makers, low, high) {
            wrong.push(format!("between seq {low} and {high} nothing explains {call:?}"));
        }
    }
    wrong
}

/// The highest seq that a call tells of.
fn head_seen(call: &Call) -> Option<u64> {
    match &call.what {
        What::Changed { outcome, .. } => outcome.as_ref().ok().map(|changed| changed.seq),
        What::Shown(snapshot) => Some(snapshot.head),
        What::Listed(_, line) => line.as_ref().map(|(_, _, head)| *head),
    }
}

/// Whether some state between the two seqs explains what a call was told.
fn fits(replayed: &Replayed, call: &Call, makers: &BTreeMap<u64, &Call>, low: u64, high: u64) -> bool {
    match &call.what {
        What::Changed { outcome: Ok(changed), .. }
            if makers.get(&changed.seq).is_some_and(|m| std::ptr::eq(*m, call)) =>
        {
            low < changed.seq
                && changed.seq <= high
                && replayed.at(changed.seq).is_some_and(|r| r.version == changed.version)
        }
        What::Changed { actor, act, outcome: Ok(changed) } => (low..=high).any(|seq| {
            let unchanged = replayed.decide(seq, actor, act) == Ok(Decision::Unchanged);
            unchanged && replayed.at(seq).is_some_and(|record| record.version == changed.version)
        }),
        What::Changed { actor, act, outcome: Err(error) } => {
            (low..=high).any(|seq| replayed.decide(seq, actor, act).as_ref() == Err(error))
        }
        What::Shown(snapshot) => {
            (low..=high).contains(&snapshot.head) && replayed.at(snapshot.head) == Some(&*snapshot.record)
        }
        What::Listed(user, None) => (low..=high).any(|seq| replayed.at(seq).is_some_and(|record| !record.has(user))),
        What::Listed(user, Some((title, version, head))) => {
            (low..=high).contains(head)
                && replayed
                    .at(*head)
                    .is_some_and(|record| record.has(user) && *record.title == **title && record.version == *version)
        }
    }
}

/// The check itself, on histories that are wrong on purpose.
#[test]
fn control_a_late_read_and_a_lost_entry_are_seen() {
    let home = tempfile::tempdir().expect("a directory");
    let engine = open(home.path());
    let alice = user("alice");
    let group = engine.acting(&alice).create("g", &[]).expect("it is made").group;
    let early = engine.group(group).expect("it is there");
    let act = Act::Rename { title: "new".into() };
    let outcome = perform(&engine, &Actor::from(&alice), None, group, &act);
    let replayed = Replayed::of(group, log(&engine, group)).expect("a log");
    let renamed = Call { group, begun: 1, ended: 2, what: What::Changed { actor: Actor::from(&alice), act, outcome } };
    let read = |begun, ended| Call { group, begun, ended, what: What::Shown(early.clone()) };
    assert!(violations(&replayed, &[&renamed, &read(0, 3)]).is_empty(), "it may have been before");
    assert_eq!(violations(&replayed, &[&renamed, &read(3, 4)]).len(), 1, "after it was answered it may not");
    assert_eq!(violations(&replayed, &[&read(0, 3)]).len(), 1, "an entry that nobody asked for");
    let foretold = Call { group, begun: 1, ended: 2, what: What::Shown(engine.group(group).expect("it is there")) };
    let renamed = Call { begun: 3, ended: 4, ..renamed };
    assert_eq!(violations(&replayed, &[&foretold, &renamed]).len(), 2, "nobody sees what was not asked for yet");
}

#[test]
fn one_operation_id_said_by_many_threads_at_once_takes_effect_once() {
    let home = tempfile::tempdir().expect("a directory");
    let engine = open(home.path());
    let (alice, bob) = (user("alice"), user("bob"));
    for round in 0..20 {
        let id = OperationId::random();
        let create =
            || engine.acting(&alice).operation(id).create("once", std::slice::from_ref(&bob)).expect("it is made");
        let answers: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
            threads.into_iter().map(|thread| thread.join().expect("it ends")).collect()
        });
        assert_eq!(answers.iter().filter(|answer| !answer.repeated).count(), 1, "one made it");
        assert!(answers.iter().all(|answer| answer.group == answers[0].group && answer.members == 2));
        assert_eq!(engine.groups().count(), round + 1);
    }
}

#[test]
fn many_threads_with_little_room_in_small_segments_are_never_told_that_the_disk_is_full() {
    let home = tempfile::tempdir().expect("a directory");
    let engine = open(home.path());
    std::thread::scope(|scope| {
        for number in 0..8 {
            let engine = &engine;
            scope.spawn(move || {
                let alice = user(&format!("alice-{number}"));
                let group = engine.acting(&alice).create("g", &[]).expect("it is made").group;
                for _ in 0..60 {
                    engine.acting(&alice).append(group, vec![7; 60_000]).expect("there is room");
                }
            });
        }
    });
    assert!(home.path().join("journal/00000006.seg").exists(), "segments were rolled");
}
