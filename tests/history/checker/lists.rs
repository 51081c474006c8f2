//! Lists of groups: each line fits the log of its group, and no group of the user is missing (P4).

use std::collections::{BTreeMap, HashMap};

use super::super::format::{Answer, Call, Summary};
use super::book::{Asked, Book};
use super::replay::{Replay, Replays};
use super::window::Windows;
use super::{Promise, Verdict};

pub(super) fn check<'l>(book: &Book<'l>, replays: &Replays<'l>, windows: &Windows<'_, 'l>, verdict: &mut Verdict) {
    let mut groups_of: HashMap<&str, Vec<&str>> = HashMap::new();
    for (group, replay) in replays {
        for user in replay.users() {
            groups_of.entry(user).or_default().push(group);
        }
    }
    for asked in &book.calls {
        let (Call::List { after }, Some((line, Answer::Listed { more, groups }))) = (asked.call, asked.returned) else {
            continue;
        };
        verdict.count("lists read");
        let listed: BTreeMap<&str, &Summary> = groups.iter().map(|line| (line.group.as_str(), line)).collect();
        let last = groups.last().map(|line| line.group.as_str());
        let on_page = |group: &str| {
            after.as_ref().is_none_or(|after| group > after.as_str())
                && (!more || last.is_some_and(|last| group <= last))
        };
        if listed.len() != groups.len()
            || !groups.is_sorted_by(|a, b| a.group < b.group)
            || !listed.keys().all(|group| on_page(group))
        {
            verdict.accuse(Promise::P4, line, "a list is in the order of its groups, each once".to_owned());
        }
        for group in groups_of.get(asked.user).map_or(&[][..], Vec::as_slice).iter().filter(|group| on_page(group)) {
            let Some((replay, window)) = replays.get(group).zip(windows.of(group)) else { continue };
            let heads = window.heads(asked.invoked, line);
            let found = check_line(book, asked, (line, heads), replay, listed.get(group).copied());
            if let Err(why) = found {
                verdict.accuse(Promise::P4, line, format!("the list of {}: {group}: {why}", asked.user));
            }
        }
        let strange =
            listed.keys().find(|group| replays.get(**group).is_none_or(|replay| replay.stays(asked.user).is_empty()));
        if let Some(group) = strange {
            verdict.accuse(Promise::P7, line, format!("the list of {} has {group}", asked.user));
        }
    }
}

fn check_line(
    book: &Book<'_>,
    asked: &Asked<'_>,
    (line, (lowest, highest)): (usize, (u64, u64)),
    replay: &Replay<'_>,
    listed: Option<&Summary>,
) -> Result<(), String> {
    let Some(listed) = listed else {
        let mut states = replay.states(lowest, highest);
        let was_out = states.any(|state| state.is_none_or(|state| !state.has(asked.user)));
        return was_out.then_some(()).ok_or_else(|| "missing, and the user is in it".to_owned());
    };
    if !(lowest..=highest).contains(&listed.head) {
        return Err(format!("head {}, and it was {lowest} at least and {highest} at most", listed.head));
    }
    let state = replay.state(listed.head).filter(|state| state.has(asked.user)).ok_or("the user is not in it")?;
    if (listed.version, &listed.title, listed.members as usize) != (state.version, &state.title, state.members.len()) {
        return Err(format!("{listed:?}, and at that head it is {state:?}"));
    }
    let acknowledged = book.acknowledged_before(asked.user, &listed.group, line);
    if listed.received > acknowledged {
        return Err(format!("received {}, and the user has acknowledged {acknowledged} at most", listed.received));
    }
    Ok(())
}
