//! Operations with two effects or two answers (P6).

use super::{change_everywhere, each_is_named, is_answer, is_message, pushed_message, quiet};
use crate::checker::Promise;
use crate::format::{Answer, Call, Event, Line, What};

/// Whether a change was answered here when it was quiet, and before with the same: one of which no answer came may have
/// failed for all that anybody saw.
fn is_repeat_of_an_answer(lines: &[Line], place: usize) -> bool {
    let operation_of = |request: (u32, u32)| {
        lines.iter().find_map(|line| match &line.what {
            What::Invoke { conn, req, call: Call::Change { op, .. } } if (*conn, *req) == request => Some(op),
            _ => None,
        })
    };
    let What::Return { conn, req, answer: Answer::Changed { repeated: true, .. } } = &lines[place].what else {
        return false;
    };
    let operation = operation_of((*conn, *req));
    let is_first = |line: &Line| match &line.what {
        What::Return { conn, req, answer: Answer::Changed { repeated: false, .. } } => {
            operation_of((*conn, *req)) == operation
        }
        _ => false,
    };
    place > quiet(lines) && operation.is_some() && lines[..place].iter().any(is_first)
}

#[test]
fn an_operation_with_two_effects_is_named() {
    each_is_named(Promise::P6, is_message, |lines, place| {
        let Some((_, group, seq, sender, body)) = pushed_message(&lines[place]) else { return false };
        let mut others = lines.iter().filter_map(pushed_message);
        let Some(other) = others.find(|other| other.1 == group && other.2 != seq && other.3 == sender) else {
            return false;
        };
        change_everywhere(lines, &group, other.2, |entry| {
            if let Some(Event::Message(other)) = entry.shown.as_mut().map(|shown| &mut shown.event) {
                other.clone_from(&body);
            }
        });
        true
    });
}

#[test]
fn another_answer_for_the_same_operation_is_named() {
    each_is_named(Promise::P6, is_answer, |lines, place| {
        let is_repeat = is_repeat_of_an_answer(lines, place);
        match &mut lines[place].what {
            What::Return { answer: Answer::Changed { seq, .. }, .. } if is_repeat => {
                *seq += 1;
                true
            }
            _ => false,
        }
    });
}

#[test]
fn an_operation_that_is_forgotten_is_named() {
    each_is_named(Promise::P6, is_answer, |lines, place| {
        let is_repeat = is_repeat_of_an_answer(lines, place);
        if let What::Return { answer, .. } = &mut lines[place].what {
            *answer = Answer::Refused { code: "NOT_FOUND".to_owned(), detail: 0 };
        }
        is_repeat
    });
}

#[test]
fn other_content_under_a_known_id_that_is_taken_is_named() {
    each_is_named(Promise::P6, is_answer, |lines, place| {
        let What::Return { conn, req, answer: Answer::Refused { code, .. } } = &lines[place].what else { return false };
        if code != "ID_REUSED" {
            return false;
        }
        let request = (*conn, *req);
        let group = lines.iter().find_map(|line| match &line.what {
            What::Invoke { conn, req, call: Call::Change { group, .. } } if (*conn, *req) == request => {
                Some(group.clone())
            }
            _ => None,
        });
        let Some(group) = group else { return false };
        if let What::Return { answer, .. } = &mut lines[place].what {
            *answer = Answer::Changed { group, seq: 1, version: 1, repeated: true };
        }
        true
    });
}

#[test]
fn an_id_that_is_taken_for_used_is_named() {
    each_is_named(Promise::P6, is_answer, |lines, place| match &mut lines[place].what {
        What::Return { answer, .. } if matches!(answer, Answer::Changed { repeated: false, .. }) => {
            *answer = Answer::Refused { code: "ID_REUSED".to_owned(), detail: 0 };
            true
        }
        _ => false,
    });
}
