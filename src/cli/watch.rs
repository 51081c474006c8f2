//! `watch`: what happens in the groups of a user, as it happens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use roundtable::client::{Client, Event};
use roundtable::ids::{DeviceId, GroupId};
use roundtable::limits::CONNECTIONS_PER_USER_MAX;
use roundtable::wire::{ErrorCode, Mark};

use super::connect::IdentityArgs;
use super::failure::{Exit, Failure, Format, notice, tell};
use super::json;
use super::output::{Output, event_line};
use super::text::{escape, json_line};

/// How long a wait may last until it is looked whether an interrupt came between two waits.
const WAIT: Duration = Duration::from_millis(500);
/// Events that are printed before they are acknowledged, at most.
const BATCH_MAX: usize = 256;

/// Print group packets and entries as they come, since what you received last
#[derive(Args)]
#[command(after_help = "Examples:\n  roundtable watch --as bob\n  roundtable watch --as bob --json --count 2\n\nSays \
                        `ready` on standard error once all that was missed has been printed or asked for.\n\nBegins \
                        with what you have received last, on whatever device: marks are per user. A line is \
                        acknowledged after it was printed, so after a crash some come twice, and none is lost. A \
                        lost connection is made again, for as long as it takes; what was missed meanwhile is printed \
                        then.")]
pub(crate) struct Watch {
    #[command(flatten)]
    identity: IdentityArgs,
    /// The device; the newest connection of one takes the older one's place [default: the token's, or else one
    /// of this process alone]
    #[arg(long, value_parser = DeviceId::new)]
    device: Option<DeviceId>,
    /// Exit after so many lines, once they are acknowledged
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

impl Watch {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let stopped = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stopped))
                .map_err(|error| Failure::new(Exit::Refused, "SIGNALS", error.to_string()))?;
        }
        let mut client = self.identity.connect_to_stay(self.device.as_ref(), device_of_process())?;
        client.attach_marks()?;
        let mut watching = Watching { client, left: self.count.unwrap_or(u64::MAX) };
        watching.follow(output, &stopped)
    }
}

/// Two `watch` of one user do not push each other out, unless they are told to be the same device.
fn device_of_process() -> DeviceId {
    DeviceId::new(&format!("watch-{}", std::process::id())).expect("a number makes a short name")
}

/// A `watch` that is connected.
struct Watching {
    client: Client,
    /// Lines that are still to be printed.
    left: u64,
}

impl Watching {
    fn follow(&mut self, output: &mut Output, stopped: &AtomicBool) -> Result<(), Failure> {
        while self.left > 0 && !stopped.load(Ordering::Relaxed) {
            let first = self.client.next_event(Some(WAIT))?;
            let marks = first.map_or(Ok(Vec::new()), |first| self.print_batch(output, first))?;
            if output.is_abandoned() {
                // As other programs end whose reader is gone. What it may not have read is not acknowledged.
                return Ok(());
            }
            if !marks.is_empty() {
                self.client.acknowledge(&marks)?;
            }
        }
        // The pong comes after the marks were taken. Without a connection it would be waited for for ever; what was
        // printed and not acknowledged is printed again the next time.
        if self.client.is_connected() {
            self.client.ping()?;
        }
        Ok(())
    }

    /// Prints an event and those that are there already, and gives what may be acknowledged: only what was printed. If
    /// a line cannot be written, nothing of the batch is: what is said twice is better than what nobody saw.
    fn print_batch(&mut self, output: &mut Output, first: Event) -> Result<Vec<Mark>, Failure> {
        let mut marks: BTreeMap<GroupId, u64> = BTreeMap::new();
        let mut next = Some(first);
        let mut printed = 0;
        while let Some(event) = next {
            if self.print(output, &event)? {
                self.left -= 1;
                printed += 1;
            }
            if let Some((group, seq)) = received(&event) {
                let mark = marks.entry(group).or_insert(0);
                *mark = seq.max(*mark);
            }
            let more = self.left > 0 && printed < BATCH_MAX;
            next = if more { self.client.next_event(Some(Duration::ZERO))? } else { None };
        }
        Ok(marks.into_iter().map(|(group, received)| Mark { group, received, read: 0 }).collect())
    }

    /// Prints an event and flushes it; whether it was a line.
    fn print(&mut self, output: &mut Output, event: &Event) -> Result<bool, Failure> {
        match event {
            Event::Ready => ready(&self.client, output.format()),
            Event::TakenOver => return Err(taken_over()),
            Event::GoingAway { within_ms } => {
                notice(output.format(), &format!("the server stops within {within_ms} ms"));
            }
            Event::Interrupted { reason } => {
                let why = reason.as_ref().map_or(String::new(), |reason| format!(" ({})", escape(&reason.message)));
                notice(output.format(), &format!("the connection is lost{why}; trying again"));
            }
            Event::Resumed => notice(output.format(), "there is a connection again"),
            Event::AuthenticateSoon { .. } => {
                notice(output.format(), "the token expires soon: start `watch` again with a new one");
            }
            Event::Unreadable { group, error } => {
                notice(output.format(), &format!("cannot read on in {group}: {}", escape(&error.message)));
            }
            _ => {}
        }
        let Some(object) = json::event(event) else { return Ok(false) };
        output.line(|paint| event_line(paint, event).unwrap_or_default(), || object)?;
        output.flush()?;
        Ok(true)
    }
}

/// The server does not say which of the two it was.
fn taken_over() -> Failure {
    Failure::new(
        Exit::Refused,
        ErrorCode::TakenOver.name(),
        format!(
            "a newer connection of the same user took this one's place: it is of the same device (give each its own \
             --device), or the user has more than {CONNECTIONS_PER_USER_MAX} connections, of which the oldest gives way"
        ),
    )
}

fn ready(client: &Client, format: Format) {
    match format {
        Format::Human => tell(&format!("ready: watching as {}", escape(client.user().as_str()))),
        Format::Json => tell(&json_line(&serde_json::json!({"ready": true, "user": client.user().as_str()}))),
    }
}

/// What an event says was received. A group packet tells everything before the seq to read on from.
fn received(event: &Event) -> Option<(GroupId, u64)> {
    match event {
        Event::Group { packet, .. } => Some((packet.group, packet.from.saturating_sub(1))),
        Event::Entry { group, entry } => Some((*group, entry.seq())),
        _ => None,
    }
}
