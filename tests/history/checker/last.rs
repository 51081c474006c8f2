//! What is there in the end: everything that was acknowledged, and everything that anybody saw (P1).
//!
//! The last reads begin behind the line `Quiet`, on a server that was killed and started once more.

use std::collections::{BTreeMap, BTreeSet};

use super::super::format::{Answer, Outcome};
use super::book::Book;
use super::logs::Logs;
use super::{Promise, Verdict};

/// What the last reads found of a group.
#[derive(Default)]
struct Found {
    head: u64,
    floor: u64,
    seqs: BTreeSet<u64>,
}

pub(super) fn check(book: &Book<'_>, logs: &Logs<'_>, verdict: &mut Verdict) {
    let Some(quiet) = book.quiet else {
        return verdict.accuse(Promise::File, book.lines.len(), "there is no last read");
    };
    let found = last_reads(book, quiet);
    for (group, log) in logs {
        let Some(found) = found.get(group) else {
            let place = log.evidence.first().map_or(0, |(place, _)| *place);
            verdict.accuse(Promise::P1, place, format!("{group} was seen, and is not in the last read"));
            continue;
        };
        verdict.count("groups read back");
        let proved = log.evidence.last().map_or(0, |(_, seq)| *seq);
        let lost = (found.floor.max(1)..=proved).filter(|seq| !found.seqs.contains(seq));
        for seq in lost.take(10) {
            let place = log.first_proof(seq).unwrap_or(0);
            let text = format!("seq {seq} of {group} is not in the last read, which ends at {}", found.head);
            verdict.accuse(Promise::P1, place, text);
        }
        *verdict.checked.entry("entries read back").or_default() += found.seqs.len() as u64;
    }
}

fn last_reads<'l>(book: &Book<'l>, quiet: usize) -> BTreeMap<&'l str, Found> {
    let mut groups: BTreeMap<&str, Found> = BTreeMap::new();
    for asked in book.calls.iter().filter(|asked| asked.invoked > quiet) {
        let Some((_, Answer::Page { parts })) = asked.returned else { continue };
        for part in parts {
            let Outcome::Entries { head, floor, entries } = &part.outcome else { continue };
            let found = groups.entry(&part.group).or_default();
            found.head = found.head.max(*head);
            found.floor = found.floor.max(*floor);
            found.seqs.extend(entries.iter().map(|entry| entry.seq));
        }
    }
    groups
}
