//! Answers that do not fit the order of the log and real time (P4).

use super::{
    asked_and_answered, change_everywhere, each_is_named, is_answer, is_message, move_line, pushed_message, quiet,
    users,
};
use crate::checker::Promise;
use crate::format::{Answer, Entry, Event, Line, Outcome, What};

#[test]
fn an_entry_that_is_seen_before_it_was_asked_for_is_named() {
    each_is_named(Promise::P4, is_message, |lines, place| {
        let Some((_, _, _, _, body)) = pushed_message(&lines[place]) else { return false };
        let Some((invoked, _)) = asked_and_answered(lines, &body) else { return false };
        if invoked >= place {
            return false;
        }
        move_line(lines, place, invoked);
        true
    });
}

#[test]
fn an_order_that_is_not_that_of_real_time_is_named() {
    each_is_named(Promise::P4, is_message, |lines, place| {
        let Some((_, group, second, sender, body)) = pushed_message(&lines[place]) else { return false };
        let before = lines[..place].iter().rev().filter_map(pushed_message);
        let mut before = before.filter(|shown| shown.1 == group && shown.2 < second && shown.3 == sender);
        let Some((_, _, first, _, earlier)) = before.next() else { return false };
        let (Some((invoked, _)), Some((_, answered))) =
            (asked_and_answered(lines, &body), asked_and_answered(lines, &earlier))
        else {
            return false;
        };
        if answered > invoked {
            return false;
        }
        // Everybody sees them the other way round, and the answers say so too.
        let swap = |entry: &mut Entry, to: &str| {
            if let Some(Event::Message(body)) = entry.shown.as_mut().map(|shown| &mut shown.event) {
                to.clone_into(body);
            }
        };
        change_everywhere(lines, &group, first, |entry| swap(entry, &body));
        change_everywhere(lines, &group, second, |entry| swap(entry, &earlier));
        for line in lines.iter_mut() {
            if let What::Return { answer: Answer::Changed { group: of, seq, .. }, .. } = &mut line.what
                && *of == group
            {
                *seq = if *seq == first {
                    second
                } else if *seq == second {
                    first
                } else {
                    *seq
                };
            }
        }
        true
    });
}

/// The answers of an earlier call to the same question, where something has happened in between.
fn make_stale(lines: &mut [Line], place: usize, same: impl Fn(&Answer, &Answer) -> bool) -> bool {
    let What::Return { conn, answer, .. } = &lines[place].what else { return false };
    let users = users(lines);
    let earlier = lines[..place].iter().find_map(|line| match &line.what {
        What::Return { conn: other, answer: earlier, .. } if users[other] == users[conn] && same(earlier, answer) => {
            Some(earlier.clone())
        }
        _ => None,
    });
    let Some(earlier) = earlier else { return false };
    if let What::Return { answer, .. } = &mut lines[place].what {
        *answer = earlier;
    }
    true
}

#[test]
fn a_record_that_is_stale_is_named() {
    each_is_named(Promise::P4, is_answer, |lines, place| {
        let quiet = quiet(lines);
        place > quiet
            && make_stale(lines, place, |earlier, now| match (earlier, now) {
                (Answer::Shown { group: a, head: old, .. }, Answer::Shown { group: b, head: new, .. }) => {
                    a == b && old < new
                }
                _ => false,
            })
    });
}

#[test]
fn a_list_that_is_stale_is_named() {
    each_is_named(Promise::P4, is_answer, |lines, place| {
        let quiet = quiet(lines);
        place > quiet
            && make_stale(lines, place, |earlier, now| match (earlier, now) {
                (Answer::Listed { groups: old, .. }, Answer::Listed { groups: new, .. }) => old != new,
                _ => false,
            })
    });
}

#[test]
fn a_page_that_ends_below_what_was_there_is_named() {
    each_is_named(Promise::P4, is_answer, |lines, place| {
        let quiet = quiet(lines);
        let What::Return { answer: Answer::Page { parts }, .. } = &mut lines[place].what else { return false };
        let Some(Outcome::Entries { head, entries, .. }) = parts.last_mut().map(|part| &mut part.outcome) else {
            return false;
        };
        if place < quiet || *head < 2 || entries.len() < 2 {
            return false;
        }
        entries.pop();
        *head -= 1;
        true
    });
}

#[test]
fn a_list_without_one_of_its_groups_is_named() {
    each_is_named(Promise::P4, is_answer, |lines, place| {
        let quiet = quiet(lines);
        let What::Return { answer: Answer::Listed { groups, .. }, .. } = &mut lines[place].what else { return false };
        place > quiet && groups.pop().is_some()
    });
}

#[test]
fn a_refusal_that_fits_no_state_is_named() {
    each_is_named(Promise::P4, is_answer, |lines, place| {
        let What::Return { answer, .. } = &mut lines[place].what else { return false };
        let is_shown = matches!(answer, Answer::Shown { .. });
        if is_shown {
            *answer = Answer::Refused { code: "NOT_FOUND".to_owned(), detail: 0 };
        }
        is_shown && place > quiet(lines)
    });
}

#[test]
fn a_floor_among_the_newest_entries_is_named() {
    each_is_named(Promise::P4, is_answer, |lines, place| {
        let What::Return { answer: Answer::Page { parts }, .. } = &mut lines[place].what else { return false };
        let Some(Outcome::Entries { head, floor, entries }) = parts.first_mut().map(|part| &mut part.outcome) else {
            return false;
        };
        let seq = entries.first().map(|entry| entry.seq);
        *floor = *head;
        seq.is_some_and(|seq| seq > 1 && seq == *head)
    });
}
