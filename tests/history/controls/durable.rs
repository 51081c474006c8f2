//! Losses, halves, and logs that are no logs (P1, P2, P3).

use std::collections::BTreeSet;

use super::{
    asked_and_answered, change_everywhere, each_is_named, entries_of, is_answer, is_message, is_push, pushed_message,
    quiet,
};
use crate::checker::Promise;
use crate::format::{Act, Answer, Call, Event, Line, Outcome, Push, What};

#[test]
fn an_acknowledged_entry_that_is_not_in_the_last_read_is_a_loss() {
    each_is_named(Promise::P1, is_message, |lines, place| {
        let Some((_, group, lost, _, _)) = pushed_message(&lines[place]) else { return false };
        let quiet = quiet(lines);
        for line in &mut lines[quiet..] {
            let What::Return { answer: Answer::Page { parts }, .. } = &mut line.what else { continue };
            for part in parts.iter_mut().filter(|part| part.group == group) {
                let Outcome::Entries { head, entries, .. } = &mut part.outcome else { continue };
                entries.retain(|entry| entry.seq < lost);
                *head = lost - 1;
            }
        }
        place < quiet
    });
}

#[test]
fn an_acknowledgement_of_another_place_is_a_loss() {
    each_is_named(Promise::P1, is_message, |lines, place| {
        let Some((_, _, _, _, body)) = pushed_message(&lines[place]) else { return false };
        let Some((_, answered)) = asked_and_answered(lines, &body) else { return false };
        let What::Return { answer: Answer::Changed { seq, .. }, .. } = &mut lines[answered].what else { return false };
        *seq += 1;
        true
    });
}

#[test]
fn a_body_that_is_cut_is_half_an_effect() {
    each_is_named(Promise::P2, is_message, |lines, place| {
        let Some((_, group, seq, _, _)) = pushed_message(&lines[place]) else { return false };
        change_everywhere(lines, &group, seq, |entry| {
            if let Some(Event::Message(body)) = entry.shown.as_mut().map(|shown| &mut shown.event) {
                body.push('x');
            }
        });
        true
    });
}

#[test]
fn a_create_with_a_member_less_is_half_an_effect() {
    each_is_named(Promise::P2, is_answer, |lines, place| {
        let What::Return { answer: Answer::Page { parts }, .. } = &lines[place].what else { return false };
        let created = parts.iter().find(|part| {
            let Outcome::Entries { entries, .. } = &part.outcome else { return false };
            entries.first().is_some_and(|entry| entry.seq == 1)
        });
        let Some(group) = created.map(|part| part.group.clone()) else { return false };
        change_everywhere(lines, &group, 1, |entry| {
            if let Some(Event::Created { members, .. }) = entry.shown.as_mut().map(|shown| &mut shown.event) {
                members.remove(1);
            }
        });
        true
    });
}

#[test]
fn an_entry_that_nobody_asked_for_is_named() {
    each_is_named(Promise::P2, is_message, |lines, place| {
        let Some((_, _, _, _, body)) = pushed_message(&lines[place]) else { return false };
        let asks = |call: &Call| matches!(call, Call::Change { act: Act::Send(asked), .. } if *asked == body);
        let requests: BTreeSet<(u32, u32)> = lines
            .iter()
            .filter_map(|line| match &line.what {
                What::Invoke { conn, req, call } if asks(call) => Some((*conn, *req)),
                _ => None,
            })
            .collect();
        lines.retain(|line| match &line.what {
            What::Invoke { conn, req, .. } | What::Return { conn, req, .. } | What::Unknown { conn, req } => {
                !requests.contains(&(*conn, *req))
            }
            _ => true,
        });
        true
    });
}

#[test]
fn a_removal_that_nobody_asked_for_is_named() {
    each_is_named(Promise::P2, is_push, |lines, place| {
        let What::Push { push: Push::Entry { entry, .. }, .. } = &lines[place].what else { return false };
        let Some(Event::Removed(_)) = entry.shown.as_ref().map(|shown| &shown.event) else { return false };
        let is_removal = |call: &Call| matches!(call, Call::Change { act: Act::Remove(_), .. });
        let requests: BTreeSet<(u32, u32)> = lines
            .iter()
            .filter_map(|line| match &line.what {
                What::Invoke { conn, req, call } if is_removal(call) => Some((*conn, *req)),
                _ => None,
            })
            .collect();
        lines.retain(|line| match &line.what {
            What::Invoke { conn, req, .. } | What::Return { conn, req, .. } | What::Unknown { conn, req } => {
                !requests.contains(&(*conn, *req))
            }
            _ => true,
        });
        true
    });
}

#[test]
fn an_operation_that_was_refused_has_no_effect() {
    each_is_named(Promise::P2, is_message, |lines, place| {
        let Some((_, _, _, _, wanted)) = pushed_message(&lines[place]) else { return false };
        let mut requests = BTreeSet::new();
        for line in lines.iter_mut() {
            match &mut line.what {
                What::Invoke { conn, req, call: Call::Change { act: Act::Send(body), .. } } if *body == wanted => {
                    requests.insert((*conn, *req));
                }
                What::Return { conn, req, answer } if requests.contains(&(*conn, *req)) => {
                    *answer = Answer::Refused { code: "STORAGE_FULL".to_owned(), detail: 0 };
                }
                What::Unknown { conn, req } if requests.contains(&(*conn, *req)) => return false,
                _ => {}
            }
        }
        true
    });
}

#[test]
fn two_seqs_that_change_places_before_one_pair_of_eyes_are_named() {
    each_is_named(Promise::P3, is_message, |lines, place| {
        let Some((_, group, seq, _, _)) = pushed_message(&lines[place]) else { return false };
        let other = lines.iter().filter_map(pushed_message).find(|other| other.1 == group && other.2 != seq);
        let Some((_, _, _, _, content)) = other else { return false };
        for (_, entry) in entries_of(&mut lines[place]) {
            if let Some(Event::Message(body)) = entry.shown.as_mut().map(|shown| &mut shown.event) {
                body.clone_from(&content);
            }
        }
        true
    });
}

#[test]
fn a_seq_that_is_left_out_by_everybody_is_named() {
    each_is_named(Promise::P3, is_message, |lines, place| {
        let Some((_, group, seq, _, _)) = pushed_message(&lines[place]) else { return false };
        for line in lines.iter_mut() {
            if let What::Return { answer: Answer::Page { parts }, .. } = &mut line.what {
                for part in parts.iter_mut().filter(|part| part.group == group) {
                    if let Outcome::Entries { entries, .. } = &mut part.outcome {
                        entries.retain(|entry| entry.seq != seq);
                    }
                }
            }
        }
        let shows = |line: &Line| pushed_message(line).is_some_and(|shown| shown.1 == group && shown.2 == seq);
        lines.retain(|line| !shows(line));
        true
    });
}

#[test]
fn a_version_that_is_not_that_of_the_last_change_is_named() {
    each_is_named(Promise::P3, is_message, |lines, place| {
        let Some((_, group, seq, _, _)) = pushed_message(&lines[place]) else { return false };
        change_everywhere(lines, &group, seq, |entry| entry.version = entry.seq);
        true
    });
}

#[test]
fn a_change_by_somebody_without_the_right_is_named() {
    each_is_named(Promise::P3, is_push, |lines, place| {
        let What::Push { push: Push::Entry { group, entry }, .. } = &lines[place].what else { return false };
        let (group, seq) = (group.clone(), entry.seq);
        let Some(Event::Renamed(_)) = entry.shown.as_ref().map(|shown| &shown.event) else { return false };
        change_everywhere(lines, &group, seq, |entry| {
            if let Some(shown) = &mut entry.shown {
                "nobody".clone_into(&mut shown.sender);
            }
        });
        true
    });
}
