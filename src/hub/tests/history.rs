//! Reading the log, and becoming live by it.

use super::world::requests::{history_request, page_seqs};
use super::world::{Peer, Reading, World, users};
use crate::ids::GroupId;
use crate::limits::{HISTORY_BYTES_MAX, HISTORY_ENTRIES_MAX, HISTORY_GROUPS_MAX, RING_ENTRIES};
use crate::wire::{HistoryOutcome, Push, Reply, Request};

/// Many more entries than the ring has.
const LONG: u64 = 3 * RING_ENTRIES as u64;

fn with_group(head: u64) -> (World, Peer, GroupId) {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    let group = world.create(alice, "", &["bob"]).group;
    for number in 1..head {
        world.send(alice, group, &number.to_be_bytes());
    }
    (world, alice, group)
}

fn refused(outcome: HistoryOutcome) -> (&'static str, u64) {
    match outcome {
        HistoryOutcome::Refused(error) => (error.name(), error.detail),
        other @ HistoryOutcome::Entries { .. } => panic!("not refused: {other:?}"),
    }
}

#[test]
fn pages_join_log_and_ring_without_a_gap() {
    let (mut world, alice, group) = with_group(LONG);
    for from in 1..=LONG + 1 {
        let (seqs, head) = world.history_seqs(alice, group, from);
        assert_eq!((seqs, head), ((from..=LONG).collect(), LONG));
    }
}

#[test]
fn entries_that_come_while_the_log_is_read_are_in_the_page_or_pushed_never_lost() {
    for sends in [1, RING_ENTRIES - 1, RING_ENTRIES, RING_ENTRIES + 5] {
        let (mut world, alice, group) = with_group(LONG);
        let bob = world.attach("bob", "phone", &[(group, 2)]);
        world.pushes(bob);
        world.loads_held = true;
        let id = world.ask(bob, &history_request(&[(group, 3)], 0, 0));
        let answer = world.take_answer();
        for _ in 0..sends {
            world.send(alice, group, b"meanwhile");
        }
        assert!(world.pushes(bob).is_empty());
        world.loads_held = false;
        world.storage(answer);
        let Reply::HistoryPage { mut groups } = world.reply(bob, id) else { panic!() };
        let (seqs, _) = page_seqs(groups.pop().unwrap().outcome);
        world.catch_up(bob, group, seqs.last().unwrap() + 1);
        world.send(alice, group, b"live");
        assert_eq!(world.pushed_seqs(bob), [LONG + sends as u64 + 1]);
    }
}

#[test]
fn a_page_has_at_most_so_many_entries() {
    let (mut world, alice, group) = with_group(HISTORY_ENTRIES_MAX as u64 + 20);
    for (wanted, given) in [(0, HISTORY_ENTRIES_MAX), (1, 1), (7, 7), (u32::MAX, HISTORY_ENTRIES_MAX)] {
        let id = world.ask(alice, &history_request(&[(group, 1), (group, 5)], wanted, 0));
        let Reply::HistoryPage { groups } = world.reply(alice, id) else { panic!() };
        let [first, second] = &groups[..] else { panic!("each group has its part") };
        assert_eq!(page_seqs(first.outcome.clone()).0, (1..=given as u64).collect::<Vec<_>>());
        assert!(page_seqs(second.outcome.clone()).0.is_empty(), "the page was full");
    }
}

#[test]
fn a_page_has_at_most_so_many_bytes_but_always_one_entry() {
    let (mut world, alice, group) = with_group(1);
    for _ in 0..9 {
        world.send(alice, group, &vec![7; 60_000]);
    }
    let (seqs, head) = world.history_seqs(alice, group, 1);
    assert_eq!((seqs.len(), head), (1 + HISTORY_BYTES_MAX / 61_000, 10));
    let id = world.ask(alice, &history_request(&[(group, 3)], 0, 1));
    let Reply::HistoryPage { mut groups } = world.reply(alice, id) else { panic!() };
    assert_eq!(page_seqs(groups.pop().unwrap().outcome).0, [3], "the first entry is larger than the page");
    assert_eq!(world.catch_up(alice, group, 1), (1..=10).collect::<Vec<_>>());
}

#[test]
fn sixty_four_groups_are_read_at_once_and_each_is_live_from_there() {
    let mut world = World::new();
    let alice = world.open("alice", "phone");
    let groups: Vec<_> = (0..HISTORY_GROUPS_MAX).map(|_| world.create(alice, "", &["bob"]).group).collect();
    for group in &groups {
        world.send(alice, *group, b"hi");
    }
    let has: Vec<_> = groups.iter().map(|group| (*group, 1)).collect();
    let bob = world.attach("bob", "phone", &has);
    world.pushes(bob);
    let asked: Vec<_> = groups.iter().map(|group| (*group, 2)).collect();
    let id = world.ask(bob, &history_request(&asked, 0, 0));
    let Reply::HistoryPage { groups: parts } = world.reply(bob, id) else { panic!() };
    assert!(parts.into_iter().all(|part| page_seqs(part.outcome) == (vec![2], 2)));
    for group in groups {
        world.send(alice, group, b"live");
        assert_eq!(world.pushed_seqs(bob), [3]);
    }
}

/// The part of one group is read while the log of another is still awaited: nothing is pushed before the page.
#[test]
fn a_group_of_a_page_is_not_live_before_the_page_is_sent() {
    let (mut world, alice, first) = with_group(LONG);
    let second = world.create(alice, "", &["bob"]).group;
    for _ in 0..LONG {
        world.send(alice, second, b"long");
    }
    let bob = world.attach("bob", "phone", &[(first, LONG - 1), (second, 1)]);
    world.pushes(bob);
    world.loads_held = true;
    let id = world.ask(bob, &history_request(&[(first, LONG), (second, 2)], 0, 0));
    world.send(alice, first, b"while the log of the second is read");
    assert!(world.pushes(bob).is_empty(), "the page of the first has not been sent");
    world.answer_all();
    let Reply::HistoryPage { groups } = world.reply(bob, id) else { panic!() };
    let (seqs, head) = page_seqs(groups[0].outcome.clone());
    let reached = seqs.last() == Some(&head);
    let mut all = seqs;
    if !reached {
        all.extend(world.catch_up(bob, first, all.last().unwrap() + 1));
    }
    world.send(alice, first, b"live");
    all.extend(world.pushed_seqs(bob));
    assert_eq!(all, [LONG, LONG + 1, LONG + 2]);
}

#[test]
fn a_group_of_an_unfinished_page_stays_loaded() {
    let (mut world, alice, first) = with_group(3);
    let second = world.create(alice, "", &["bob"]).group;
    for _ in 0..LONG {
        world.send(alice, second, b"long");
    }
    let bob = world.attach("bob", "phone", &[(first, 1), (second, 1)]);
    world.pushes(bob);
    world.loads_held = true;
    let id = world.ask(bob, &history_request(&[(first, 2), (second, 2)], 0, 0));
    world.hub.cache.bytes_max = 0;
    world.advance(1);
    world.advance(1);
    world.answer_all();
    let Reply::HistoryPage { .. } = world.reply(bob, id) else { panic!() };
    world.hub.cache.bytes_max = usize::MAX;
    world.send(alice, first, b"live");
    assert_eq!(world.pushed_seqs(bob), [4]);
    world.hub.check_idle();
}

#[test]
fn history_below_the_joining_or_the_floor_is_truncated() {
    let (mut world, alice, group) = with_group(20);
    world.model.groups.get_mut(&group).unwrap().floor = 5;
    let mut world = world.restarted();
    let _ = alice;
    let alice = world.open("alice", "phone");
    assert_eq!(refused(world.history(alice, group, 4)), ("TRUNCATED", 5));
    let (seqs, _) = world.history_seqs(alice, group, 5);
    assert_eq!(seqs.first(), Some(&5));
    let bob = world.attach("bob", "phone", &[(group, 1)]);
    assert_eq!(world.pushes(bob), [Push::Behind { group, from: 5, head: 20 }, Push::Ready]);
}

#[test]
fn history_beyond_the_head_is_a_range_error_and_at_its_end_an_empty_part() {
    let (mut world, alice, group) = with_group(3);
    assert_eq!(refused(world.history(alice, group, 5)), ("RANGE", 3));
    assert_eq!(refused(world.history(alice, group, u64::MAX)), ("RANGE", 3));
    assert_eq!(world.history_seqs(alice, group, 4), (vec![], 3));
}

#[test]
fn groups_that_are_absent_or_not_ones_own_are_refused_alike_each_by_itself() {
    let (mut world, alice, group) = with_group(3);
    let absent = GroupId::from_bytes([1; 16]).unwrap();
    let carol = world.open("carol", "phone");
    let own = world.create(carol, "", &[]).group;
    let id = world.ask(carol, &history_request(&[(absent, 1), (group, 1), (own, 1)], 0, 0));
    let Reply::HistoryPage { groups } = world.reply(carol, id) else { panic!() };
    let codes: Vec<_> = groups[..2].iter().map(|part| part.outcome.clone()).collect();
    assert_eq!(codes[0], codes[1]);
    assert_eq!(refused(codes[0].clone()).0, "NOT_FOUND");
    assert_eq!(page_seqs(groups[2].outcome.clone()), (vec![1], 1));
    assert_eq!(world.leave(alice, group).seq, 4);
    world.acknowledge(alice, group, 4);
    assert_eq!(refused(world.history(alice, group, 1)).0, "NOT_FOUND", "it has received the end");
}

#[test]
fn a_former_member_reads_up_to_its_leaving_until_it_has_received_that() {
    let (mut world, alice, group) = with_group(3);
    let bob = world.online("carol", "phone");
    let add = Request::Add { operation: world.operation(), group, members: users(&["carol"]) };
    assert_eq!(world.change(alice, &add).seq, 4);
    world.packet(bob);
    world.send(alice, group, b"hello, carol");
    let carol = world.open("carol", "tablet");
    world.leave(carol, group);
    world.send(alice, group, b"about carol");
    assert_eq!(world.history_seqs(carol, group, 4), (vec![4, 5, 6], 6));
    assert_eq!(refused(world.history(carol, group, 3)), ("TRUNCATED", 4), "it came with entry 4");
    assert_eq!(refused(world.history(carol, group, 8)), ("RANGE", 6));
    let id = world.acknowledge(carol, group, 7);
    assert_eq!(world.refusal(carol, id).name(), "RANGE", "the end of its stay is the end");
    let id = world.ask(carol, &Request::GetGroup { group, newer_than: 0 });
    assert_eq!(world.refusal(carol, id).name(), "NOT_FOUND");
    world.acknowledge(carol, group, 5);
    assert_eq!(world.history_seqs(carol, group, 6), (vec![6], 6));
    world.acknowledge(carol, group, 6);
    assert_eq!(refused(world.history(carol, group, 6)).0, "NOT_FOUND");
    let id = world.acknowledge(carol, group, 6);
    assert_eq!(world.refusal(carol, id).name(), "NOT_FOUND");
    world.sync();
    assert_eq!(refused(world.history(carol, group, 6)).0, "NOT_FOUND", "journalled or not");
}

#[test]
fn a_damaged_place_is_told_to_whoever_asks_for_it() {
    let (mut world, alice, group) = with_group(LONG);
    world.model.damaged.insert(group);
    assert_eq!(refused(world.history(alice, group, 1)).0, "DAMAGED");
    assert_eq!(world.history_seqs(alice, group, LONG).0, [LONG], "what is in memory is whole");
    let mut world = world.restarted();
    let alice = world.open("alice", "phone");
    let id = world.ask(alice, &Request::GetGroup { group, newer_than: 0 });
    assert_eq!(world.refusal(alice, id).name(), "DAMAGED");
}

#[test]
fn a_send_and_history_in_one_piece_show_the_send() {
    for synced in [true, false] {
        let (mut world, alice, group) = with_group(LONG);
        world.synced = synced;
        let send = world.send_request(group, b"mine");
        let ids = world.ask_all(alice, &[send, history_request(&[(group, LONG)], 0, 0)]);
        world.sync();
        let Reply::HistoryPage { mut groups } = world.reply(alice, ids[1]) else { panic!() };
        assert_eq!(page_seqs(groups.pop().unwrap().outcome), (vec![LONG, LONG + 1], LONG + 1));
    }
}

#[test]
fn history_of_a_group_that_was_left_while_the_log_was_read_ends_with_the_leaving() {
    let (mut world, _, group) = with_group(LONG);
    let bob = world.open("bob", "phone");
    world.loads_held = true;
    let page = world.ask(bob, &history_request(&[(group, 1)], 0, 0));
    let answer = world.take_answer();
    world.loads_held = false;
    // Another connection, for a page is read alone: what comes behind it waits.
    let desk = world.open("bob", "desk");
    let until = world.leave(desk, group).seq;
    world.storage(answer);
    let Reply::HistoryPage { mut groups } = world.reply(bob, page) else { panic!() };
    assert_eq!(page_seqs(groups.pop().unwrap().outcome), ((1..=until).collect(), until));
}

#[test]
fn a_connection_that_is_not_on_line_reads_history_and_gets_no_pushes() {
    let (mut world, alice, group) = with_group(3);
    let bob = world.open("bob", "one-shot");
    assert_eq!(world.history_seqs(bob, group, 1).0, [1, 2, 3]);
    world.send(alice, group, b"hi");
    assert!(world.got(bob).is_empty());
}

#[test]
fn a_slow_reader_falls_behind_alone_is_told_and_ends_with_the_whole_log() {
    for chunk in [700, 4_096, 100_000] {
        let mut world = World::new();
        let alice = world.online("alice", "phone");
        let (slow, fast) = (world.online("bob", "slow"), world.online("bob", "fast"));
        let group = world.create(alice, "", &["bob"]).group;
        world.got(fast);
        world.packet(slow);
        world.set_reading(slow, Reading::Nothing);
        for _ in 0..40 {
            world.send(alice, group, &[7; 5_000]);
        }
        assert_eq!(world.pushed_seqs(fast), (2..=41).collect::<Vec<_>>(), "others do not notice");
        assert!(world.waiting(slow) < 2 * crate::limits::OUTPUT_BYTES_SOFT, "a bounded amount waits");
        world.set_reading(slow, Reading::Chunks(chunk));
        let mut pushes = world.pushes(slow);
        let Some(Push::Behind { from, head: 41, .. }) = pushes.pop() else { panic!("told last that it is behind") };
        let mut seqs: Vec<_> =
            pushes.iter().map(|push| if let Push::Entry { entry, .. } = push { entry.seq() } else { 0 }).collect();
        assert_eq!(seqs, (2..from).collect::<Vec<_>>());
        seqs.extend(world.catch_up(slow, group, from));
        world.send(alice, group, b"live");
        seqs.extend(world.pushed_seqs(slow));
        assert_eq!(seqs, (2..=42).collect::<Vec<_>>());
    }
}

/// A page of the newest entries does not hide that the reader has fallen behind before them.
#[test]
fn who_falls_behind_and_reads_the_end_of_the_log_is_still_told_what_is_missing() {
    let mut world = World::new();
    let (alice, bob) = (world.online("alice", "phone"), world.online("bob", "phone"));
    let group = world.create(alice, "", &["bob"]).group;
    world.packet(bob);
    world.set_reading(bob, Reading::Nothing);
    for _ in 0..40 {
        world.send(alice, group, &[7; 5_000]);
    }
    let id = world.ask(bob, &history_request(&[(group, 41)], 0, 0));
    world.set_reading(bob, Reading::Chunks(4_096));
    let Reply::HistoryPage { .. } = world.reply(bob, id) else { panic!() };
    let pushes = world.pushes(bob);
    let Some(Push::Behind { from, head: 41, .. }) = pushes.last() else { panic!("a silent gap") };
    assert_eq!(*from, pushes.len() as u64 + 1);
}
