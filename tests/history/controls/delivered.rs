//! What devices lack, and what they are shown that is not for them (P5, P7, P8).

use std::collections::BTreeSet;

use super::{change_everywhere, each_is_named, entries_of, good, is_message, is_push, pushed_message};
use crate::checker::{Promise, check};
use crate::format::{Answer, Call, Line, Push, What};

#[test]
fn a_gap_in_what_is_pushed_is_named() {
    each_is_named(Promise::P5, is_message, |lines, place| {
        let Some((conn, group, ..)) = pushed_message(&lines[place]) else { return false };
        let goes_on = lines[place + 1..].iter().find_map(|line| match &line.what {
            What::Push { conn: other, push } if *other == conn => match push {
                Push::Entry { group: of, .. } => (*of == group).then_some(true),
                Push::Behind { group: of, .. } | Push::Gone { group: of, .. } => (*of == group).then_some(false),
                Push::Packet(packet) => (packet.group == group).then_some(false),
                _ => None,
            },
            What::Return { conn: other, answer: Answer::Page { .. }, .. } if *other == conn => Some(false),
            _ => None,
        });
        if goes_on == Some(true) {
            lines.remove(place);
        }
        goes_on == Some(true)
    });
}

#[test]
fn an_entry_that_is_pushed_twice_is_named() {
    each_is_named(Promise::P5, is_message, |lines, place| {
        let is_push = pushed_message(&lines[place]).is_some();
        let again = lines[place].clone();
        lines.insert(place + 1, again);
        is_push
    });
}

#[test]
fn what_a_device_lacks_in_the_end_is_named() {
    let mut lines = good().to_vec();
    let finish = lines.len() - 1;
    let ended: BTreeSet<u32> = lines
        .iter()
        .filter_map(|line| if let What::End { conn, .. } = &line.what { Some(*conn) } else { None })
        .collect();
    // A packet that a device of the end never gets: somebody made a group and it does not know.
    let (conn, group) = lines[..finish]
        .iter()
        .find_map(|line| match &line.what {
            What::Push { conn, push: Push::Entry { group, .. } } if !ended.contains(conn) => {
                Some((*conn, group.clone()))
            }
            What::Push { conn, push: Push::Packet(packet) } if !ended.contains(conn) => {
                Some((*conn, packet.group.clone()))
            }
            What::Push { conn, push: Push::Behind { group, .. } } if !ended.contains(conn) => {
                Some((*conn, group.clone()))
            }
            _ => None,
        })
        .expect("the last connections were told something");
    lines.retain(|line| match &line.what {
        What::Push { conn: other, push } if *other == conn => match push {
            Push::Entry { group: of, .. } | Push::Behind { group: of, .. } | Push::Gone { group: of, .. } => {
                *of != group
            }
            Push::Packet(packet) => packet.group != group,
            _ => true,
        },
        What::Return { conn: other, answer: Answer::Page { .. }, .. } => *other != conn,
        _ => true,
    });
    let found: BTreeSet<Promise> = check(&lines).anomalies.iter().map(|anomaly| anomaly.promise).collect();
    assert!(found.contains(&Promise::P5), "{found:?}");
}

#[test]
fn a_place_to_read_on_from_that_is_too_high_is_named() {
    each_is_named(Promise::P5, is_push, |lines, place| {
        let What::Push { conn, push: Push::Behind { .. } } = &lines[place].what else { return false };
        // By marks the place depends on what the user's other devices have acknowledged.
        let keeps = |line: &Line| match &line.what {
            What::Invoke { conn: attached, call: Call::Attach { has: Some(_) }, .. } => attached == conn,
            _ => false,
        };
        if !lines.iter().any(keeps) {
            return false;
        }
        if let What::Push { push: Push::Behind { from, head, .. }, .. } = &mut lines[place].what {
            *from += 1;
            return *from <= *head;
        }
        false
    });
}

#[test]
fn a_packet_that_is_not_the_group_is_named() {
    each_is_named(Promise::P5, is_push, |lines, place| match &mut lines[place].what {
        What::Push { push: Push::Packet(packet), .. } => packet.members.pop().is_some(),
        _ => false,
    });
}

#[test]
fn an_entry_that_a_stranger_is_shown_is_named() {
    each_is_named(Promise::P7, is_message, |lines, place| {
        let t = lines[place].t;
        let conn = 1_000_000;
        let connect = What::Connect { conn, user: "stranger".to_owned(), device: "device".to_owned() };
        let attach = What::Invoke { conn, req: 2, call: Call::Attach { has: None } };
        let mut shown = lines[place].clone();
        if let What::Push { conn: to, .. } = &mut shown.what {
            *to = conn;
        }
        let end = What::End { conn, why: "control".to_owned() };
        lines.splice(
            place + 1..=place,
            [Line { t, what: connect }, Line { t, what: attach }, shown, Line { t, what: end }],
        );
        true
    });
}

#[test]
fn a_whisper_that_others_are_shown_is_named() {
    each_is_named(Promise::P7, is_push, |lines, place| {
        let What::Push { push: Push::Entry { group, entry }, .. } = &lines[place].what else { return false };
        let (group, seq) = (group.clone(), entry.seq);
        if entry.shown.is_some() {
            return false;
        }
        let mut shown = None;
        for line in lines.iter_mut() {
            let entries = entries_of(line).into_iter();
            let mut whispers = entries.filter(|(of, entry)| *of == group && entry.seq == seq);
            shown = whispers.find_map(|(_, entry)| entry.shown.clone()).or(shown);
        }
        let Some(shown) = shown else { return false };
        if let What::Push { push: Push::Entry { entry, .. }, .. } = &mut lines[place].what {
            entry.shown = Some(shown);
        }
        true
    });
}

#[test]
fn a_sender_who_did_not_ask_is_named() {
    each_is_named(Promise::P8, is_message, |lines, place| {
        let Some((_, group, seq, sender, _)) = pushed_message(&lines[place]) else { return false };
        let others = lines.iter().filter_map(pushed_message).find(|other| other.1 == group && other.3 != sender);
        let Some((_, _, _, other, _)) = others else { return false };
        change_everywhere(lines, &group, seq, |entry| {
            if let Some(shown) = &mut entry.shown {
                shown.sender.clone_from(&other);
            }
        });
        true
    });
}
