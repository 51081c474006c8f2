//! One log of each group, out of everything that anybody saw of it (P3).

use std::collections::BTreeMap;

use super::super::format::{Answer, Entry, Event, Outcome, Push, Shown, What};
use super::book::Book;
use super::{Promise, Verdict};

/// What is known of a seq: the version, and the content unless nobody was shown it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'l> {
    pub(super) version: u64,
    pub(super) shown: Option<&'l Shown>,
    /// The line that told it first.
    pub(super) place: usize,
}

/// One group, as all of its members saw it together.
#[derive(Debug, Default)]
pub(super) struct Log<'l> {
    /// By seq - 1; `None`: nobody saw it.
    pub(super) entries: Vec<Option<Known<'l>>>,
    /// Lines that prove that a seq is there, and which; both grow.
    pub(super) evidence: Vec<(usize, u64)>,
}

impl<'l> Log<'l> {
    pub(super) fn entry(&self, seq: u64) -> Option<Known<'l>> {
        let at = usize::try_from(seq.checked_sub(1)?).ok()?;
        *self.entries.get(at)?
    }

    /// The highest seq that was proved before a line.
    pub(super) fn proved_before(&self, place: usize) -> u64 {
        let count = self.evidence.partition_point(|(line, _)| *line < place);
        count.checked_sub(1).map_or(0, |last| self.evidence[last].1)
    }

    /// The line that first proved a seq.
    pub(super) fn first_proof(&self, seq: u64) -> Option<usize> {
        let at = self.evidence.partition_point(|(_, proved)| *proved < seq);
        self.evidence.get(at).map(|(line, _)| *line)
    }

    fn prove(&mut self, place: usize, seq: u64) {
        if self.evidence.last().is_none_or(|(_, before)| *before < seq) {
            self.evidence.push((place, seq));
        }
    }
}

/// All groups, by id.
pub(super) type Logs<'l> = BTreeMap<&'l str, Log<'l>>;

/// Something that a line tells of a group: an entry, or that there is a seq.
pub(super) enum Told<'l> {
    Entry(&'l Entry),
    Seq(u64),
}

/// What a line tells, group by group.
pub(super) fn told_by(what: &What) -> Vec<(&str, Told<'_>)> {
    match what {
        What::Push { push: Push::Entry { group, entry }, .. } => vec![(group, Told::Entry(entry))],
        What::Push { push: Push::Packet(packet), .. } => vec![(&packet.group, Told::Seq(packet.head))],
        What::Push { push: Push::Behind { group, head: seq, .. } | Push::Gone { group, until: seq }, .. } => {
            vec![(group, Told::Seq(*seq))]
        }
        What::Return { answer, .. } => match answer {
            Answer::Created { group, seq, .. }
            | Answer::Changed { group, seq, .. }
            | Answer::Shown { group, head: seq, .. }
            | Answer::Unchanged { group, version: seq } => vec![(group, Told::Seq(*seq))],
            Answer::Listed { groups, .. } => {
                groups.iter().map(|summary| (summary.group.as_str(), Told::Seq(summary.head))).collect()
            }
            Answer::Page { parts } => {
                let mut told = Vec::new();
                for part in parts {
                    if let Outcome::Entries { head, entries, .. } = &part.outcome {
                        told.push((part.group.as_str(), Told::Seq(*head)));
                        told.extend(entries.iter().map(|entry| (part.group.as_str(), Told::Entry(entry))));
                    }
                }
                told
            }
            Answer::Attached | Answer::Refused { .. } => Vec::new(),
        },
        _ => Vec::new(),
    }
}

pub(super) fn read<'l>(book: &Book<'l>, verdict: &mut Verdict) -> Logs<'l> {
    let mut logs = Logs::new();
    for (place, line) in book.lines.iter().enumerate() {
        for (group, told) in told_by(&line.what) {
            match told {
                Told::Seq(0) => {}
                Told::Seq(seq) => logs.entry(group).or_default().prove(place, seq),
                Told::Entry(entry) => {
                    let log = logs.entry(group).or_default();
                    log.prove(place, entry.seq);
                    see(log, group, entry, place, verdict);
                }
            }
        }
    }
    for (group, log) in &logs {
        check_gaps(group, log, verdict);
    }
    logs
}

/// The same seq means the same to everybody and at all times; but a whisper is hidden from some.
fn see<'l>(log: &mut Log<'l>, group: &str, entry: &'l Entry, place: usize, verdict: &mut Verdict) {
    verdict.count("entries seen");
    let Some(at) = entry.seq.checked_sub(1).and_then(|at| usize::try_from(at).ok()).filter(|at| *at < 100_000_000)
    else {
        return verdict.accuse(Promise::P3, place, format!("{group} has an entry {}", entry.seq));
    };
    if log.entries.len() <= at {
        log.entries.resize(at + 1, None);
    }
    let Some(known) = &mut log.entries[at] else {
        log.entries[at] = Some(Known { version: entry.version, shown: entry.shown.as_ref(), place });
        return;
    };
    let same = match (known.shown, entry.shown.as_ref()) {
        (Some(before), Some(now)) => before == now,
        (None, None) => true,
        (Some(content), None) | (None, Some(content)) => matches!(content.event, Event::Whisper { .. }),
    };
    if !same || known.version != entry.version {
        let first = known.place + 1;
        let text = format!("seq {} of {group} is {entry:?} here and was something else in line {first}", entry.seq);
        return verdict.accuse(Promise::P3, place, text);
    }
    known.shown = known.shown.or(entry.shown.as_ref());
}

fn check_gaps(group: &str, log: &Log<'_>, verdict: &mut Verdict) {
    let proved = log.evidence.last().map_or(0, |(_, seq)| *seq);
    for seq in 1..=proved {
        if log.entry(seq).is_none() {
            let place = log.first_proof(seq).unwrap_or(0);
            verdict.count("seqs that nobody saw");
            verdict.accuse(Promise::P3, place, format!("nobody ever saw seq {seq} of {group}, which has {proved}"));
        }
    }
}
