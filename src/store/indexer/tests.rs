//! What look-ups guarantee, over the index in memory and a simulated disk.

#![allow(clippy::cast_possible_truncation, clippy::format_push_string, clippy::large_stack_arrays)]

use std::sync::Arc;

use super::*;
use crate::group::{Act, Author, Authority, Decision, Entry, Event, Record, Succession, create, decide};
use crate::ids::{GroupId, OperationId, Principal, UserId};
use crate::limits::OPERATIONS_REMEMBERED;
use crate::store::carried::{Carried, CarriedEntry, CarriedOperation};
use crate::store::disk::simulated::SimulatedDisk;
use crate::store::index::IndexHome;
use crate::store::index::memory::MemoryHome;
use crate::store::journal::recovery;
use crate::store::journal::tests::{effect, group, message, user};
use crate::store::journal::writer::{Journal, Now, Writer};
use crate::store::tables::{MEMBERSHIPS_PER_VALUE, OPERATIONS_PER_VALUE, Stored, VERSION};
use crate::store::{Change, Damaged, FeedPlace, GroupState, Mark, Operation};

const SEGMENT_BYTES: u32 = 256 * 1024;

/// A journal with an index behind it.
pub(super) struct Rig {
    pub(super) disk: SimulatedDisk,
    pub(super) writer: Writer<SimulatedDisk>,
    pub(super) home: MemoryHome,
    pub(super) indexer: Indexer<SimulatedDisk>,
}

impl Rig {
    pub(super) fn new(segment_bytes: u32) -> Self {
        let disk = SimulatedDisk::new();
        let mut salt = 7;
        let salts = Box::new(move || {
            salt += 1;
            salt
        });
        let mut journal = Journal { disk: disk.clone(), directory: [9; 16], segment_bytes, salts };
        recovery::create(&mut journal).unwrap();
        let writer = recovery::open(journal, None).unwrap().writer;
        let home = MemoryHome::default();
        let indexer = open(&disk, &home, segment_bytes);
        Self { disk, writer, home, indexer }
    }

    pub(super) fn commit(&mut self, change: &Change) -> Placed {
        let placed = self.writer.append_batch([change], Now { running_ms: 1, wall_ms: 1 }).unwrap()[0];
        self.indexer.fold(placed, &change.clone().into(), 1).unwrap();
        placed
    }

    /// The same journal behind another index, brought up to date.
    pub(super) fn replayed(&self, home: &MemoryHome, segment_bytes: u32) -> Indexer<SimulatedDisk> {
        let mut indexer = open(&self.disk, home, segment_bytes);
        indexer.replay(self.writer.first(), self.writer.end(), |_| true).unwrap();
        indexer
    }
}

pub(super) fn open(disk: &SimulatedDisk, home: &MemoryHome, segment_bytes: u32) -> Indexer<SimulatedDisk> {
    Indexer::new(home.open().unwrap(), JournalReader::new(disk.clone(), segment_bytes), [9; 16]).unwrap()
}

pub(super) fn created(group: GroupId, creator: &str, members: &[String]) -> Change {
    let mut list = vec![user(creator)];
    list.extend(members.iter().map(|member| user(member)));
    effect(group, 1, 1, creator, Event::Created { title: "t".into(), members: list })
}

pub(super) fn text(body: &str) -> Event {
    Event::Message { body: body.as_bytes().into() }
}

/// Everything that can be asked, as text.
pub(super) fn everything(indexer: &mut Indexer<SimulatedDisk>, groups: &[GroupId], users: &[UserId]) -> String {
    let mut answers = String::new();
    for group in groups {
        let state = indexer.load_group(*group).unwrap();
        let entries = indexer.read_entries(*group, 1, u64::MAX, usize::MAX, usize::MAX).unwrap();
        answers.push_str(&format!("{group} {state:?} {entries:?}\n"));
    }
    for user in users {
        let memberships = indexer.load_user(user).unwrap();
        let listed = indexer.list_groups(user, None, 1000).unwrap();
        let operations = indexer.load_operations(&Principal::User(user.clone())).unwrap();
        answers.push_str(&format!("{user} {memberships:?} {listed:?} {operations:?}\n"));
    }
    answers
}

/// Small numbers in a fixed order.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// A random but legal next change.
pub(super) fn next_change(dice: &mut Dice, records: &mut Vec<(Record, u64)>, users: &[UserId], number: u64) -> Change {
    if records.len() < 5 || dice.below(12) == 0 {
        let mut id = [dice.below(256) as u8; 16];
        id[8..].copy_from_slice(&(number + 1).to_be_bytes());
        let id = GroupId::from_bytes(id).unwrap();
        let members: Vec<UserId> = users.iter().filter(|_| dice.below(3) == 0).cloned().collect();
        let entry = create(&author(&users[dice.below(users.len())], number), "random".into(), members).unwrap();
        records.push((Record::from_created(id, &entry).unwrap(), 1));
        return change(id, entry, number);
    }
    let at = dice.below(records.len());
    let (record, head) = &mut records[at];
    let Some(actor) = record.members.get(dice.below(8)).or(record.members.first()).map(|member| member.user.clone())
    else {
        let mark = Mark { user: users[0].clone(), group: record.group, received: number % 7, read: number % 5 };
        return Change::Marks(vec![mark]);
    };
    let seq = *head + 1;
    let entry = |event: Event| {
        let version = if event.changes_record() { seq } else { record.version };
        Entry { seq, version, at_ms: number, sender: actor.clone(), by: None, event }
    };
    let outsiders: Vec<UserId> = users.iter().filter(|user| !record.has(user)).take(3).cloned().collect();
    let entry = match dice.below(20) {
        0 => match decide(record, *head, &author(&actor, number), Act::Leave) {
            Ok(Decision::Entry(entry)) => entry,
            other => panic!("a member leaves: {other:?}"),
        },
        1..=3 if !outsiders.is_empty() => entry(Event::Added { members: outsiders }),
        4 if record.owner != actor => entry(Event::Removed { members: vec![actor.clone()] }),
        5 => entry(Event::Renamed { title: format!("title {number}").into() }),
        6 if dice.below(4) == 0 => entry(Event::Dissolved),
        7..=9 => {
            let marks = record.members.iter().map(|member| Mark {
                user: member.user.clone(),
                group: record.group,
                received: seq - 1,
                read: (seq - 1).min(number % 9),
            });
            return Change::Marks(marks.collect());
        }
        _ => entry(text(&"x".repeat(dice.below(300)))),
    };
    record.apply(&entry);
    *head = seq;
    change(record.group, entry, number)
}

fn author(sender: &UserId, at_ms: u64) -> Author {
    Author { sender: sender.clone(), by: None, authority: Authority::Sender, at_ms }
}

pub(super) fn change(group: GroupId, entry: Entry, number: u64) -> Change {
    let mut operation = [1; 16];
    operation[..8].copy_from_slice(&number.to_be_bytes());
    Change::Effect(crate::store::Effect {
        principal: Principal::User(entry.sender.clone()),
        operation: OperationId::from_bytes(operation).unwrap(),
        fingerprint: number,
        group,
        entry: Arc::new(entry),
    })
}

#[test]
fn an_index_kept_cut_or_rebuilt_gives_the_same_answers_as_the_rules() {
    for seed in 0..6 {
        let mut dice = Dice(seed);
        let users: Vec<UserId> = (0..40).map(|number| user(&format!("u{number}"))).collect();
        let mut rig = Rig::new(SEGMENT_BYTES);
        let mut records = Vec::new();
        for number in 0..3000 {
            let change = next_change(&mut dice, &mut records, &users, number);
            rig.commit(&change);
            match dice.below(60) {
                0 => rig.indexer.begin_flush(),
                // A kill: what was not flushed is gone from memory, perhaps in the middle of a flush.
                1 if dice.below(6) == 0 => rig.indexer = rig.replayed(&rig.home, SEGMENT_BYTES),
                2..=5 => drop(rig.indexer.flush_step().unwrap()),
                // A look-up in the middle of a flush settles what waits in both layers.
                6 => drop(rig.indexer.load_user(&users[dice.below(users.len())]).unwrap()),
                _ => {}
            }
        }
        let groups: Vec<GroupId> = records.iter().map(|(record, _)| record.group).collect();
        let kept = everything(&mut rig.indexer, &groups, &users);
        for (record, head) in &records {
            record.check_invariants();
            let state = rig.indexer.load_group(record.group).unwrap().unwrap().unwrap();
            assert_eq!((&state.record, state.head), (record, *head), "seed {seed}");
            for user in &users {
                let memberships = rig.indexer.load_user(user).unwrap();
                let membership = memberships.iter().find(|membership| membership.group == record.group);
                let current = membership.filter(|membership| membership.until.is_none());
                let joined = record.member(user).map(|member| member.joined);
                assert_eq!(current.map(|membership| membership.joined), joined, "{user} seed {seed}");
                assert!(memberships.windows(2).all(|pair| pair[0].group < pair[1].group));
            }
        }
        let mut rebuilt = rig.replayed(&MemoryHome::default(), SEGMENT_BYTES);
        assert_eq!(everything(&mut rebuilt, &groups, &users), kept, "rebuilt, seed {seed}");
        let mut reopened = rig.replayed(&rig.home, SEGMENT_BYTES);
        assert_eq!(everything(&mut reopened, &groups, &users), kept, "reopened, seed {seed}");
    }
}

/// A home whose index keeps only the first so many batches, as after a cut in the middle of a flush.
#[test]
fn a_flush_cut_after_any_batch_is_completed_by_replay() {
    let mut dice = Dice(99);
    let users: Vec<UserId> = (0..60).map(|number| user(&format!("{number:060}"))).collect();
    let mut rig = Rig::new(4 * SEGMENT_BYTES);
    let mut records = Vec::new();
    for number in 0..6000 {
        let change = next_change(&mut dice, &mut records, &users, number);
        rig.commit(&change);
        if number == 2000 {
            rig.indexer.flush().unwrap();
        }
    }
    let groups: Vec<GroupId> = records.iter().map(|(record, _)| record.group).collect();
    let kept = everything(&mut rig.indexer, &groups, &users);
    rig.indexer.begin_flush();
    let mut batches = 0;
    loop {
        let copy = MemoryHome::default();
        copy.content().clone_from(&rig.home.content());
        let mut cut = rig.replayed(&copy, 4 * SEGMENT_BYTES);
        assert_eq!(everything(&mut cut, &groups, &users), kept, "after {batches} batches");
        cut.flush().unwrap();
        assert_eq!(everything(&mut cut, &groups, &users), kept, "flushed after {batches} batches");
        if rig.indexer.flush_step().unwrap() == Flush::Done {
            break;
        }
        batches += 1;
    }
    assert!(batches >= 3, "{batches}");
}

#[test]
fn a_record_too_large_for_the_index_is_read_from_the_journal() {
    let mut rig = Rig::new(SEGMENT_BYTES);
    let names: Vec<String> = (0..1000).map(|number| format!("member-{number}")).collect();
    let change = created(group(1), "owner", &names);
    let Change::Effect(first) = &change else { unreachable!() };
    let mut record = Record::from_created(group(1), &first.entry).unwrap();
    rig.commit(&change);
    for seq in 2..=600 {
        let event = match seq % 3 {
            0 => Event::Left { succession: Succession::Unchanged },
            1 => Event::Added { members: vec![user(&format!("new-{seq}"))] },
            _ => Event::Renamed { title: format!("{seq}").into() },
        };
        let sender = format!("member-{seq}");
        let change = effect(group(1), seq, seq, &sender, event);
        let Change::Effect(next) = &change else { unreachable!() };
        record.apply(&next.entry);
        rig.commit(&change);
    }
    for _ in 0..2 {
        let state = rig.indexer.load_group(group(1)).unwrap().unwrap().unwrap();
        assert_eq!(state.record, record);
        let summary = &rig.indexer.list_groups(&user("member-1"), None, 9).unwrap().0[0];
        assert_eq!((summary.members as usize, summary.title.as_str()), (record.members.len(), "599"));
        assert_eq!(rig.indexer.load_user(&user("member-3")).unwrap()[0].until, Some(3));
        rig.indexer.flush().unwrap();
    }
    rig.commit(&effect(group(1), 601, 601, "owner", Event::Dissolved));
    let state = rig.indexer.load_group(group(1)).unwrap().unwrap().unwrap();
    assert!(state.record.dissolved && state.record.members.is_empty());
    assert_eq!(rig.indexer.load_user(&user("member-1")).unwrap()[0].until, Some(601));
    assert_eq!(rig.indexer.load_user(&user("member-3")).unwrap()[0].until, Some(3));
    assert!(rig.indexer.list_groups(&user("member-1"), None, 9).unwrap().0.is_empty());
}

#[test]
fn a_record_that_grows_too_large_moves_to_the_journal() {
    let mut rig = Rig::new(SEGMENT_BYTES);
    rig.commit(&created(group(1), "owner", &[]));
    for seq in 2..=300 {
        let members = vec![user(&format!("somebody-with-a-long-name-{seq}"))];
        rig.commit(&effect(group(1), seq, seq, "owner", Event::Added { members }));
        let record = rig.indexer.load_group(group(1)).unwrap().unwrap().unwrap().record;
        assert_eq!((record.members.len() as u64, record.version), (seq, seq));
    }
}

#[test]
fn the_window_of_operations_is_trimmed_from_the_old_end() {
    let mut rig = Rig::new(4 * SEGMENT_BYTES);
    rig.commit(&created(group(1), "49", &[]));
    for seq in 2..=2500 {
        rig.commit(&effect(group(1), seq, 1, "49", text("")));
        if seq % 700 == 0 {
            rig.indexer.flush().unwrap();
        }
    }
    let operations = rig.indexer.load_operations(&Principal::User(user("49"))).unwrap();
    let seqs: Vec<u64> = operations.iter().map(|operation| operation.seq).collect();
    assert_eq!(seqs, (2500 - 1023..=2500).collect::<Vec<_>>());
    rig.indexer.flush().unwrap();
    let stored = rig.home.content().keys().filter(|key| key[0] == 0x40).count();
    assert!(stored <= 23, "{stored} values are kept");
    assert!(rig.indexer.load_operations(&Principal::Service(user("49"))).unwrap().is_empty());
}

#[test]
fn what_was_trimmed_is_not_passed_again_by_each_trim() {
    const TRIMS: usize = 40;
    let first = OPERATIONS_REMEMBERED + (TRIMS + 2) * OPERATIONS_PER_VALUE;
    let mut rig = Rig::new(16 * SEGMENT_BYTES);
    rig.commit(&created(group(1), "49", &[]));
    for seq in 2..=first as u64 {
        rig.commit(&effect(group(1), seq, 1, "49", text("")));
    }
    rig.indexer.flush().unwrap();
    let before = rig.home.scans();
    for seq in first as u64 + 1..=(first + TRIMS * OPERATIONS_PER_VALUE) as u64 {
        rig.commit(&effect(group(1), seq, 1, "49", text("")));
    }
    let scans = rig.home.scans() - before;
    assert!(scans <= 5 * TRIMS, "{scans} for {TRIMS} trims of a value each");
}

#[test]
fn a_flush_cut_between_a_trim_and_what_it_counts_costs_the_window_nothing() {
    const USERS: u64 = 20;
    let names: Vec<String> = (0..USERS).map(|number| format!("{number:060}")).collect();
    let mut rig = Rig::new(16 * SEGMENT_BYTES);
    rig.commit(&created(group(1), &names[0], &names[1..]));
    for seq in 2..=1_500 * USERS {
        rig.commit(&effect(group(1), seq, 1, &names[(seq % USERS) as usize], text("")));
        if seq == 1_200 * USERS {
            rig.indexer.flush().unwrap();
        }
    }
    let windows = |indexer: &Indexer<SimulatedDisk>| -> Vec<Vec<Operation>> {
        names.iter().map(|name| indexer.load_operations(&Principal::User(user(name))).unwrap()).collect()
    };
    let kept = windows(&rig.indexer);
    assert!(kept.iter().all(|window| window.len() == OPERATIONS_REMEMBERED));
    rig.indexer.begin_flush();
    let mut batches = 0;
    while rig.indexer.flush_step().unwrap() == Flush::More {
        batches += 1;
        let copy = MemoryHome::default();
        copy.content().clone_from(&rig.home.content());
        assert!(windows(&rig.replayed(&copy, 16 * SEGMENT_BYTES)) == kept, "after {batches} batches");
    }
    assert!(batches >= 3, "{batches}");
}

#[test]
fn an_operation_that_is_carried_again_behind_a_flush_changes_nothing() {
    let mut rig = Rig::new(SEGMENT_BYTES);
    let principal = Principal::User(user("49"));
    rig.commit(&created(group(1), "49", &[]));
    rig.commit(&message(2, ""));
    let operation = rig.indexer.load_operations(&principal).unwrap()[0];
    let older =
        CarriedOperation { principal: principal.clone(), lsn: 0, operation: Operation { fingerprint: 7, ..operation } };
    rig.indexer.rebuilding = true;
    for _ in 0..2 {
        rig.indexer.fold_carried_operation(10, &older).unwrap();
        rig.indexer.flush().unwrap();
    }
    rig.indexer.fold_carried_operation(11, &older).unwrap();
    rig.indexer.rebuilding = false;
    for seq in 3..=100 {
        rig.commit(&message(seq, ""));
    }
    let operations = rig.indexer.load_operations(&principal).unwrap();
    let seqs: Vec<u64> = operations[1..].iter().map(|operation| operation.seq).collect();
    assert_eq!((operations[0].fingerprint, seqs), (7, (1..=100).collect::<Vec<_>>()));
}

#[test]
fn a_log_goes_on_behind_its_carried_entries_when_the_last_value_of_places_was_let_go() {
    let mut rig = Rig::new(SEGMENT_BYTES);
    let entry = |seq| Entry { seq, version: 1, at_ms: 1, sender: user("49"), by: None, event: text("") };
    let carried = |seq| Carried::Entry(CarriedEntry { group: group(1), running_ms: 1, entry: entry(seq) });
    let Change::Effect(creation) = created(group(1), "49", &[]) else { unreachable!() };
    let record = Record::from_created(group(1), &creation.entry).unwrap();
    let now = Now { running_ms: 1, wall_ms: 1 };
    // What is left when the segments of 1 to 20 are cleaned, one after the other, with a floor that has moved to 15.
    let mut slice: Vec<Carried> = (10..15).map(carried).collect();
    slice.push(Carried::Floors(vec![(group(1), 15)]));
    slice.push(Carried::Record(GroupState { record, head: 20, floor: 15, last_at_ms: 1 }));
    slice.extend((15..=20).map(carried));
    rig.writer.append(&[], &slice, now).unwrap();
    rig.writer.append_batch([&message(21, ""), &message(22, "")], now).unwrap();
    let mut made_anew = rig.replayed(&MemoryHome::default(), SEGMENT_BYTES);
    let read = made_anew.read_entries(group(1), 1, u64::MAX, 1000, usize::MAX).unwrap().unwrap();
    assert_eq!(read.iter().map(|entry| entry.seq).collect::<Vec<_>>(), (15..=22).collect::<Vec<_>>());
}

#[test]
fn entries_of_interleaved_groups_over_several_segments_read_in_order() {
    let mut rig = Rig::new(16 * 1024);
    let bodies: Vec<String> = (0..7).map(|length| "b".repeat(length * 40)).collect();
    for number in 1..=5 {
        rig.commit(&created(group(number), "49", &[]));
    }
    for seq in 2..=200 {
        for number in 1..=5_u8 {
            rig.commit(&effect(group(number), seq, 1, "49", text(&bodies[(seq as usize + number as usize) % 7])));
        }
    }
    assert!(rig.writer.end().segment > 5);
    for _ in 0..2 {
        for number in 1..=5 {
            let all = rig.indexer.read_entries(group(number), 1, u64::MAX, 1000, usize::MAX).unwrap().unwrap();
            assert_eq!(all.iter().map(|entry| entry.seq).collect::<Vec<_>>(), (1..=200).collect::<Vec<_>>());
            let mut read = |from, through, entries_max, bytes_max| {
                let page = rig.indexer.read_entries(group(number), from, through, entries_max, bytes_max);
                page.unwrap().unwrap().iter().map(|entry| entry.seq).collect::<Vec<_>>()
            };
            for from in [1, 2, 57, 199, 200] {
                assert_eq!(read(from, 200, 3, usize::MAX), (from..=200.min(from + 2)).collect::<Vec<_>>());
                assert_eq!(read(from, from + 1, 9, usize::MAX), (from..=200.min(from + 1)).collect::<Vec<_>>());
                assert_eq!(read(from, 200, 9, 1), [from], "always one entry");
            }
            assert_eq!(read(201, 300, 9, 1000), [0; 0]);
        }
        rig.indexer.flush().unwrap();
    }
    let nowhere = rig.indexer.read_entries(group(9), 1, 9, 9, 9).unwrap();
    assert_eq!(nowhere, Ok(Vec::new()));
}

#[test]
fn a_feed_that_begins_before_anything_is_written_has_a_place_to_go_on_from() {
    let mut rig = Rig::new(SEGMENT_BYTES);
    let begun = rig.indexer.read_feed(None, 10).unwrap().through.lsn;
    assert_ne!(begun, 0, "that would ask for what comes from now on");
    rig.commit(&created(group(1), "49", &[]));
    let page = rig.indexer.read_feed(Some(FeedPlace::behind(begun)), 10).unwrap();
    assert_eq!(page.items.len(), 1);
}

#[test]
fn a_damaged_packet_is_told_to_whoever_reads_it_and_nobody_else() {
    let mut rig = Rig::new(SEGMENT_BYTES);
    rig.commit(&created(group(1), "49", &[]));
    rig.commit(&created(group(2), "49", &[]));
    let bad = rig.commit(&effect(group(1), 2, 1, "49", text("damaged")));
    rig.commit(&effect(group(2), 2, 1, "49", text("good")));
    rig.commit(&effect(group(1), 3, 1, "49", text("good")));
    rig.disk.tamper("journal/00000001.seg", |content| content[bad.position.offset as usize + 60] ^= 4);
    let mut read = |number, from| rig.indexer.read_entries(group(number), from, 9, 9, usize::MAX).unwrap();
    assert_eq!(read(1, 1).unwrap().len(), 1, "up to the damage");
    assert_eq!(read(1, 2), Err(Damaged));
    assert_eq!(read(1, 3).unwrap().len(), 1, "behind the damage");
    assert_eq!(read(2, 1).unwrap().len(), 2);
}

/// Found by fuzzing: any byte but 1 was read as no.
#[test]
fn a_flag_in_the_index_is_0_or_1() {
    let fields = |flag: u8| [&9_u64.to_be_bytes()[..], &[0; 48], &[flag]].concat();
    for (flag, good) in [(0, true), (1, true), (2, false), (0xff, false)] {
        let fields = fields(flag);
        let key = crate::store::tables::applied_key();
        let crc = crc32fast::hash(&[&key[..], &fields].concat());
        let value = [&[VERSION][..], &crc.to_be_bytes(), &fields].concat();
        assert_eq!(Stored::decode(&key, &value).is_ok(), good, "{flag}");
    }
}

/// So that mutations begin at values of the present format: of an older one, each would be refused by its version. With
/// `ROUNDTABLE_WRITE_CORPUS=1` they are written.
#[test]
fn a_value_of_each_table_is_in_the_corpus_of_the_fuzzers() {
    let mut rig = Rig::new(SEGMENT_BYTES);
    let groups = u8::try_from(MEMBERSHIPS_PER_VALUE).unwrap() + 1;
    for number in 1..=groups {
        rig.commit(&created(group(number), "alice", &["bob".to_owned()]));
    }
    rig.commit(&effect(group(1), 2, 1, "alice", text("hello")));
    rig.commit(&effect(group(1), 3, 2, "alice", Event::Renamed { title: "another".into() }));
    rig.commit(&effect(group(1), 4, 3, "bob", Event::Left { succession: Succession::Unchanged }));
    rig.commit(&Change::Marks(vec![Mark { user: user("alice"), group: group(1), received: 4, read: 2 }]));
    rig.indexer.flush().unwrap();
    let content = rig.home.content();
    let mut tables = Vec::new();
    for (key, value) in content.iter() {
        if tables.last() == Some(&key[0]) {
            continue;
        }
        tables.push(key[0]);
        let name = format!("fuzz/corpus/records/value-{:02x}", key[0]);
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(&name);
        // As `store/fuzzing/records.rs` reads it.
        let input = [&[1, u8::try_from(key.len()).unwrap()], &key[..], &value[5..]].concat();
        if std::env::var_os("ROUNDTABLE_WRITE_CORPUS").is_some() {
            std::fs::write(&path, &input).unwrap();
        }
        assert!(Stored::decode(key, value).is_ok());
        assert_eq!(std::fs::read(&path).unwrap_or_default(), input, "{name}");
    }
    assert_eq!(tables, [0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x58, 0x60, 0x68]);
}

#[test]
fn any_flipped_bit_in_the_index_is_noticed_when_it_is_read() {
    let mut rig = Rig::new(SEGMENT_BYTES);
    rig.commit(&created(group(1), "49", &["b".to_owned()]));
    rig.indexer.flush().unwrap();
    let groups = [group(1)];
    let users = [user("49"), user("b")];
    let good = everything(&mut rig.indexer, &groups, &users);
    let items: Vec<(Vec<u8>, usize)> =
        rig.home.content().iter().map(|(key, value)| (key.clone(), value.len() * 8)).collect();
    for (key, bits) in items {
        for bit in 0..bits {
            rig.home.content().get_mut(&key).unwrap()[bit / 8] ^= 1 << (bit % 8);
            let stored = rig.home.content()[&key].clone();
            assert!(Stored::decode(&key, &stored).is_err(), "key {key:?} bit {bit}");
            rig.home.content().get_mut(&key).unwrap()[bit / 8] ^= 1 << (bit % 8);
        }
    }
    assert_eq!(everything(&mut rig.indexer, &groups, &users), good);
}

#[test]
fn a_user_of_two_thousand_groups_has_few_and_small_values() {
    let mut rig = Rig::new(4 * SEGMENT_BYTES);
    let body: Arc<str> = "".into();
    for number in 0..2000_u16 {
        let mut id = [1; 16];
        id[..2].copy_from_slice(&number.reverse_bits().to_be_bytes());
        let id = GroupId::from_bytes(id).unwrap();
        let members = vec![user("49")];
        rig.commit(&effect(id, 1, 1, "49", Event::Created { title: body.clone(), members }));
    }
    rig.indexer.flush().unwrap();
    assert_eq!(rig.indexer.load_user(&user("49")).unwrap().len(), 2000);
    let values = rig.home.content().keys().filter(|key| key[0] == 0x60).count();
    assert!(values <= 2000 / 14, "{values}");
    let mut after = None;
    let mut listed = 0;
    loop {
        let (page, more) = rig.indexer.list_groups(&user("49"), after, 256).unwrap();
        listed += page.len();
        after = page.last().map(|summary| summary.group);
        if !more {
            break;
        }
    }
    assert_eq!(listed, 2000);
}

#[test]
fn a_scan_gives_every_group_once_in_the_order_of_ids_whatever_the_page() {
    let mut dice = Dice(5);
    let users: Vec<UserId> = (0..30).map(|number| user(&format!("u{number}"))).collect();
    let mut rig = Rig::new(SEGMENT_BYTES);
    let mut records = Vec::new();
    for number in 0..1500 {
        let change = next_change(&mut dice, &mut records, &users, number);
        rig.commit(&change);
        if number == 700 {
            rig.indexer.flush().unwrap();
        }
    }
    let names: Vec<String> = (0..1000).map(|number| format!("member-{number}")).collect();
    rig.commit(&created(group(0xfe), "owner", &names));
    let mut wanted: Vec<GroupId> = records.iter().map(|(record, _)| record.group).collect();
    wanted.push(group(0xfe));
    wanted.sort_unstable();
    assert!(wanted.len() > 50);
    for count_max in [1, 7, wanted.len() - 1, wanted.len(), 10_000] {
        let (mut after, mut found) = (None, Vec::new());
        loop {
            let (page, more) = rig.indexer.scan_groups(after, count_max).unwrap();
            let page = page.unwrap();
            assert!(page.len() <= count_max);
            for state in &page {
                assert_eq!(Some(state), rig.indexer.load_group(state.record.group).unwrap().unwrap().as_ref());
            }
            found.extend(page.iter().map(|state| state.record.group));
            after = found.last().copied();
            assert_eq!(more, found.len() < wanted.len());
            if !more {
                break;
            }
        }
        assert_eq!(found, wanted, "pages of {count_max}");
    }
    assert_eq!(rig.indexer.scan_groups(wanted.last().copied(), 9).unwrap(), (Ok(Vec::new()), false));
}

#[test]
fn a_scan_stops_before_a_damaged_record_and_says_so_at_it() {
    let mut rig = Rig::new(SEGMENT_BYTES);
    let names: Vec<String> = (0..1000).map(|number| format!("member-{number}")).collect();
    rig.commit(&created(group(1), "49", &[]));
    let bad = rig.commit(&created(group(2), "49", &names));
    rig.commit(&created(group(3), "49", &[]));
    rig.disk.tamper("journal/00000001.seg", |content| content[bad.position.offset as usize + 60] ^= 4);
    let (page, more) = rig.indexer.scan_groups(None, 9).unwrap();
    assert_eq!((page.unwrap().len(), more), (1, true));
    assert_eq!(rig.indexer.scan_groups(Some(group(1)), 9).unwrap(), (Err(Damaged), true));
    assert_eq!(rig.indexer.scan_groups(Some(group(2)), 9).unwrap().0.unwrap().len(), 1, "behind it");
}
