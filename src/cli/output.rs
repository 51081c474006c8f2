//! Standard output: one place that writes it, for people or for programs.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, StdoutLock, Write};

use roundtable::client::Event as ClientEvent;
use roundtable::group::{Entry, Event, Record, Succession};
use roundtable::ids::{GroupId, UserId};
use roundtable::wire::{ConnectionRow, GroupPacket, GroupSummary, LogEntry, UserMarks};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use super::failure::Format;
use super::text::{body, escape, json_line, time};

/// Members that are listed on a line before the rest is counted.
const MEMBERS_SHOWN_MAX: usize = 12;

/// Standard output of one command.
pub(crate) struct Output {
    out: StdoutLock<'static>,
    format: Format,
    coloured: bool,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        let coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { out: io::stdout().lock(), format, coloured }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// One line for people, or one object for programs.
    pub(crate) fn line(
        &mut self,
        human: impl FnOnce(&Paint) -> String,
        json: impl FnOnce() -> Value,
    ) -> io::Result<()> {
        match self.format {
            Format::Human => writeln!(self.out, "{}", human(&Paint { coloured: self.coloured })),
            Format::Json => writeln!(self.out, "{}", json_line(&json())),
        }
    }

    /// One object, whoever reads it: for commands whose output is data.
    pub(crate) fn object(&mut self, object: &Value) -> io::Result<()> {
        writeln!(self.out, "{}", json_line(object))
    }

    /// One line for people; nothing for programs.
    pub(crate) fn say(&mut self, human: impl FnOnce(&Paint) -> String) -> io::Result<()> {
        match self.format {
            Format::Human => writeln!(self.out, "{}", human(&Paint { coloured: self.coloured })),
            Format::Json => Ok(()),
        }
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Whether whoever read a pipe is gone: what is written now, and what was not read yet, nobody sees.
    pub(crate) fn is_abandoned(&self) -> bool {
        let mut out = [PollFd::new(&self.out, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut out, Some(&now)).is_ok() && out[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
    }
}

/// Colours, where they are wanted.
pub(crate) struct Paint {
    coloured: bool,
}

impl Paint {
    /// Without colours, wherever it goes.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn plain() -> Self {
        Self { coloured: false }
    }

    fn with(&self, code: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn bold(&self, text: &str) -> String {
        self.with("1", text)
    }

    pub(crate) fn faint(&self, text: &str) -> String {
        self.with("2", text)
    }

    pub(crate) fn bad(&self, text: &str) -> String {
        self.with("1;31", text)
    }

    pub(crate) fn good(&self, text: &str) -> String {
        self.with("32", text)
    }
}

/// The title, or what stands for an empty one.
pub(crate) fn title(text: &str) -> String {
    if text.is_empty() { "(no title)".to_owned() } else { escape(text) }
}

/// Names, comma-separated; the rest counted.
pub(crate) fn names<'u>(users: impl ExactSizeIterator<Item = &'u UserId>) -> String {
    let count = users.len();
    let mut line = users.take(MEMBERS_SHOWN_MAX).map(|user| escape(user.as_str())).collect::<Vec<_>>().join(", ");
    if count > MEMBERS_SHOWN_MAX {
        let _ = write!(line, " and {} more", count - MEMBERS_SHOWN_MAX);
    }
    line
}

pub(crate) fn entry_line(paint: &Paint, entry: &LogEntry) -> String {
    match entry {
        LogEntry::Hidden { seq, .. } => format!("{} {}", number(paint, *seq), paint.faint("a whisper to others")),
        LogEntry::Shown(entry) => {
            let at = paint.faint(&time(entry.at_ms));
            let sender = paint.bold(&escape(entry.sender.as_str()));
            format!("{} {at}  {sender}{}", number(paint, entry.seq), what_happened(entry))
        }
    }
}

fn number(paint: &Paint, seq: u64) -> String {
    paint.faint(&format!("{seq:>5}"))
}

/// What follows the sender's name.
fn what_happened(entry: &Entry) -> String {
    match &entry.event {
        Event::Created { title: said, members } => {
            format!(" created the group {} with {}", title(said), names(members.iter()))
        }
        Event::Added { members } => format!(" added {}", names(members.iter())),
        Event::Removed { members } => format!(" removed {}", names(members.iter())),
        Event::Left { succession } => match succession {
            Succession::Unchanged => " left".to_owned(),
            Succession::Passed { owner } => format!(" left; {} is owner now", escape(owner.as_str())),
            Succession::Dissolved => " left, as the last one: the group is dissolved".to_owned(),
        },
        Event::Renamed { title: said } => format!(" named the group {}", title(said)),
        Event::Transferred { owner } => format!(" made {} the owner", escape(owner.as_str())),
        Event::Dissolved => " dissolved the group".to_owned(),
        Event::Message { body: said } => format!(": {}", body(said)),
        Event::Whisper { to, body: said } => format!(" whispers to {}: {}", names(to.iter()), body(said)),
    }
}

fn packet_line(paint: &Paint, packet: &GroupPacket) -> String {
    format!(
        "{}  group {}  {}: {}",
        packet.group,
        paint.bold(&title(&packet.title)),
        packet.members.len(),
        names(packet.members.iter())
    )
}

/// What `watch` prints of an event; `None` for one that is no line.
pub(crate) fn event_line(paint: &Paint, event: &ClientEvent) -> Option<String> {
    let in_group = |group: &GroupId, text: &str| format!("{group}  {text}");
    Some(match event {
        ClientEvent::Group { packet, .. } => packet_line(paint, packet),
        ClientEvent::Entry { group, entry } => in_group(group, &entry_line(paint, entry)),
        ClientEvent::Signal { group, sender, body: said, .. } => {
            in_group(group, &format!("{} signals {}", escape(sender.as_str()), body(said)))
        }
        ClientEvent::Gone { group, .. } => in_group(group, "you are no longer in it"),
        ClientEvent::Truncated { group, floor } => {
            in_group(group, &format!("entries before {floor} are deleted; reading on from there"))
        }
        _ => return None,
    })
}

pub(crate) fn record_lines(paint: &Paint, record: &Record, head: u64, floor: u64) -> String {
    let mut lines = vec![
        format!("group    {}", record.group),
        format!("title    {}", paint.bold(&title(&record.title))),
        format!("owner    {}", escape(record.owner.as_str())),
        format!("creator  {}", escape(record.creator.as_str())),
        format!("created  {} UTC", time(record.created_at_ms)),
        format!("version  {}", record.version),
        format!("log      {floor} to {head}"),
        format!("members  {}", record.members.len()),
    ];
    for member in &record.members {
        lines.push(format!("         {}  {}", escape(member.user.as_str()), since(paint, member.joined)));
    }
    lines.join("\n")
}

fn since(paint: &Paint, joined: u64) -> String {
    paint.faint(&format!("since entry {joined}"))
}

pub(crate) fn summary_line(paint: &Paint, summary: &GroupSummary) -> String {
    let unread = summary.head.saturating_sub(summary.received);
    format!(
        "{}  {:>5} {:<7}  head {:>6}  {:>6} new  {}  {}",
        summary.group,
        summary.members,
        if summary.members == 1 { "member" } else { "members" },
        summary.head,
        unread,
        paint.faint(&time(summary.last_at_ms)),
        paint.bold(&title(&summary.title)),
    )
}

// Columns: numbers first, in widths of their own, and text from others last. So columns stand under each other whatever
// alphabet a name is written in, `cut` and `sort -n` work, and a long name breaks nothing.

pub(crate) fn reader_titles(paint: &Paint) -> String {
    paint.faint(&format!("{:>10}  {:>10}  user", "received", "read"))
}

pub(crate) fn reader_line(paint: &Paint, marks: &UserMarks) -> String {
    format!("{:>10}  {:>10}  {}", marks.received, marks.read, paint.bold(&escape(marks.user.as_str())))
}

pub(crate) fn connection_titles(paint: &Paint) -> String {
    paint.faint(&format!("{:>10}  {:<19}  {:>10}  {:>6}  user, device", "number", "since (UTC)", "waiting B", "behind"))
}

pub(crate) fn connection_line(paint: &Paint, row: &ConnectionRow) -> String {
    let name = |user: Option<&UserId>| user.map_or("-".to_owned(), |user| escape(user.as_str()));
    format!(
        "{:>10}  {}  {:>10}  {:>6}  {}, {}",
        row.connection,
        time(row.since_ms),
        row.output_bytes,
        row.behind,
        paint.bold(&name(row.user.as_ref())),
        name(row.device.as_ref()),
    )
}
