//! Fan-out in slices, and shared: what one turn may put into buffers, and what very many recipients cost.

use std::collections::BTreeSet;

use super::world::{Got, Peer, Reading, World, users};
use crate::hub::outbox::REFERENCE_BYTES;
use crate::ids::GroupId;
use crate::limits::{OUTPUT_BYTES_SOFT, RECIPIENTS_COPIED_MAX, RECIPIENTS_FEW_MAX, RELEASED_BYTES_PER_ROUND};
use crate::store::Event;
use crate::wire::{Push, Reply, Request};

/// A group of alice and others, all of them on line; the others have been told of it.
fn with_readers(world: &mut World, count: usize) -> (Peer, Vec<Peer>, GroupId) {
    let names: Vec<String> = (0..count).map(|number| format!("reader-{number}")).collect();
    let readers: Vec<Peer> = names.iter().map(|name| world.online(name, "phone")).collect();
    let alice = world.open("alice", "phone");
    let request = world.create_request("", &names.iter().map(String::as_str).collect::<Vec<_>>());
    world.ask(alice, &request);
    world.sync();
    let groups: Vec<GroupId> = readers.iter().map(|reader| world.packet(*reader).group).collect();
    (alice, readers, groups[0])
}

/// Everything that was sent is durable at once, as one batch of the journal.
fn one_batch(world: &mut World) -> Event {
    let mut durable = Vec::new();
    while let Some(next) = world.model.apply_next() {
        durable.push(next);
    }
    let ticket = durable.last().unwrap().0;
    Event::Durable { ticket, lsns: durable.into_iter().map(|(_, lsn)| lsn).collect() }
}

#[test]
fn a_batch_much_larger_than_the_soft_limit_puts_nobody_behind_who_reads() {
    let mut world = World::slow();
    let (alice, readers, group) = with_readers(&mut world, 3);
    let sends: Vec<_> = (0..40).map(|_| world.send_request(group, &[7; 5_000])).collect();
    let ids = world.ask_all(alice, &sends);
    let batch = one_batch(&mut world);
    world.hub.handle_storage(batch, world.now);
    let first = world.waiting(readers[0]);
    assert!((1..=RELEASED_BYTES_PER_ROUND + 5_100).contains(&first), "{first} bytes are there to be written");
    assert!(world.hub.next_deadline_ms() <= Some(world.now.monotonic_ms), "it goes on at once");
    world.hub.handle_time(world.now);
    assert_eq!(world.waiting(readers[0]), first, "but not before this was given out to be written");
    world.turn();
    for reader in readers {
        assert_eq!(world.pushed_seqs(reader), (2..42).collect::<Vec<_>>(), "everything, in order, and no Behind");
    }
    for id in ids {
        world.reply(alice, id);
    }
    world.hub.check_idle();
}

#[test]
fn who_does_not_read_falls_behind_at_the_soft_limit_and_not_at_the_size_of_a_batch() {
    let mut world = World::slow();
    let (alice, readers, group) = with_readers(&mut world, 2);
    world.set_reading(readers[0], Reading::Nothing);
    let sends: Vec<_> = (0..40).map(|_| world.send_request(group, &[7; 5_000])).collect();
    world.ask_all(alice, &sends);
    let batch = one_batch(&mut world);
    world.storage(batch);
    let waiting = world.waiting(readers[0]);
    assert!((OUTPUT_BYTES_SOFT..OUTPUT_BYTES_SOFT + 5_100).contains(&waiting), "{waiting} bytes wait");
    assert_eq!(world.pushed_seqs(readers[1]), (2..42).collect::<Vec<_>>());
}

#[test]
fn an_entry_that_nobody_takes_does_not_hold_up_those_behind_it() {
    let mut world = World::slow();
    let (alice, readers, group) = with_readers(&mut world, 1);
    for reader in readers {
        world.disconnect(reader);
    }
    let sends: Vec<_> = (0..40).map(|_| world.send_request(group, &[7; 5_000])).collect();
    world.ask_all(alice, &sends);
    let batch = one_batch(&mut world);
    world.disconnect(alice);
    world.storage(batch);
    world.hub.check_idle();
}

#[test]
fn a_frame_for_very_many_is_held_once() {
    for (recipients, shared) in [(RECIPIENTS_COPIED_MAX, false), (RECIPIENTS_COPIED_MAX + 1, true)] {
        let mut world = World::slow();
        let (alice, readers, group) = with_readers(&mut world, recipients);
        for reader in &readers {
            world.set_reading(*reader, Reading::Nothing);
        }
        let request = world.send_request(group, &[7; 500]);
        world.ask(alice, &request);
        world.sync();
        let frame_bytes = world.waiting(readers[0]);
        let once = frame_bytes + recipients * REFERENCE_BYTES;
        let expected = if shared { once } else { recipients * frame_bytes };
        assert_eq!(world.hub.output_bytes, expected, "for {recipients}");
        for reader in &readers {
            world.set_reading(*reader, Reading::Everything);
            assert_eq!(world.pushed_seqs(*reader), [2]);
        }
        assert_eq!(world.hub.output_bytes, 0);
    }
}

#[test]
fn what_comes_together_goes_out_in_one_piece_and_in_its_order_on_each_connection() {
    let mut world = World::slow();
    let (_, readers, group) = with_readers(&mut world, RECIPIENTS_COPIED_MAX + 2);
    for reader in &readers {
        world.set_reading(*reader, Reading::Nothing);
    }
    let (sender, others) = (readers[0], &readers[1..]);
    let sends: Vec<_> = (0..10).map(|number| world.send_request(group, &[number; 200])).collect();
    let ids = world.ask_all(sender, &sends);
    let batch = one_batch(&mut world);
    world.storage(batch);
    for reader in others {
        assert_eq!(world.hub.output(world.key(*reader)).count(), 1, "ten entries are one piece");
        world.take(*reader, usize::MAX);
        assert_eq!(world.pushed_seqs(*reader), (2..12).collect::<Vec<_>>());
    }
    world.take(sender, usize::MAX);
    let seen: Vec<u64> = world
        .got(sender)
        .into_iter()
        .filter_map(|got| match got {
            Got::Reply(id, Reply::Changed(_, changed)) => ids.contains(&id).then_some(changed.seq),
            Got::Push(Push::Entry { entry, .. }) => Some(entry.seq()),
            _ => None,
        })
        .collect();
    assert_eq!(seen, (2..12).flat_map(|seq| [seq, seq]).collect::<Vec<_>>(), "each answer, then its entry");
}

#[test]
fn who_leaves_between_two_messages_of_a_batch_gets_the_first_alone() {
    let mut world = World::slow();
    let (alice, readers, group) = with_readers(&mut world, 4);
    for reader in &readers {
        world.set_reading(*reader, Reading::Nothing);
    }
    let send = world.send_request(group, &[7; 200]);
    let more = world.send_request(group, &[7; 200]);
    let remove = Request::Remove { operation: world.operation(), group, members: users(&["reader-0"]) };
    let last = world.send_request(group, &[7; 200]);
    world.ask_all(alice, &[send, more, remove, last]);
    let batch = one_batch(&mut world);
    world.storage(batch);
    for (number, reader) in readers.into_iter().enumerate() {
        world.take(reader, usize::MAX);
        let expected: &[u64] = if number == 0 { &[2, 3, 4] } else { &[2, 3, 4, 5] };
        assert_eq!(world.pushed_seqs(reader), expected, "reader-{number}");
    }
}

#[test]
fn signals_of_one_piece_go_to_everybody_else_and_to_nobody_who_fell_behind_between_them() {
    let mut world = World::slow();
    let (alice, readers, group) = with_readers(&mut world, 20);
    let slow = readers[0];
    world.set_reading(slow, Reading::Nothing);
    while world.waiting(slow) + 5_000 < OUTPUT_BYTES_SOFT {
        let fill = world.send_request(group, &[7; 1_000]);
        world.ask(alice, &fill);
        world.sync();
    }
    for reader in &readers {
        world.got(*reader);
    }
    let signals: Vec<_> = (0..10).map(|number| Request::Signal { group, body: [number; 1_000].into() }).collect();
    world.ask_all(alice, &signals);
    let signals = |got: Vec<Got>| {
        let bodies = got.into_iter().filter_map(|got| match got {
            Got::Push(Push::Signal { body, .. }) => Some(body[0]),
            _ => None,
        });
        bodies.collect::<Vec<_>>()
    };
    assert!(signals(world.got(alice)).is_empty(), "nobody hears its own");
    for reader in &readers[1..] {
        assert_eq!(signals(world.got(*reader)), (0..10).collect::<Vec<_>>());
    }
    world.take(slow, usize::MAX);
    let heard = signals(world.got(slow));
    assert!((1..10).contains(&heard.len()), "{heard:?}");
    assert_eq!(heard, (0..10).take(heard.len()).collect::<Vec<_>>(), "the first ones");
}

#[test]
fn who_is_told_in_a_small_group_does_not_wait_for_all_of_a_large_one_and_they_get_every_other_turn() {
    let mut world = World::slow();
    let (alice, readers, large) = with_readers(&mut world, 4 * RECIPIENTS_FEW_MAX);
    let (bob, carols): (Peer, Vec<Peer>) =
        (world.open("bob", "phone"), (0..9).map(|number| world.online(&format!("carol-{number}"), "phone")).collect());
    let names: Vec<String> = (0..9).map(|number| format!("carol-{number}")).collect();
    let request = world.create_request("", &names.iter().map(String::as_str).collect::<Vec<_>>());
    world.ask(bob, &request);
    world.sync();
    let small = carols.iter().map(|carol| world.packet(*carol).group).next_back().unwrap();
    for (peer, group) in [(alice, large), (bob, small)] {
        let mut frame = Vec::new();
        Request::Signal { group, body: b"x"[..].into() }.encode_frame(&mut frame, 77);
        let key = world.key(peer);
        world.hub.handle_bytes(key, &frame, world.now);
    }
    let order: Vec<_> = std::iter::from_fn(|| world.hub.poll_dirty()).collect();
    assert_eq!(order.len(), readers.len() + carols.len());
    let of_small: BTreeSet<_> = carols.iter().map(|carol| world.key(*carol)).collect();
    let of_small: Vec<usize> = (0..order.len()).filter(|at| of_small.contains(&order[*at])).collect();
    assert!(of_small.windows(2).all(|pair| pair[1] == pair[0] + 2) && of_small[0] <= 1, "{of_small:?}");
    readers.into_iter().chain(carols).for_each(|peer| _ = world.take(peer, usize::MAX));
    world.turn();
    world.hub.check_idle();
}
