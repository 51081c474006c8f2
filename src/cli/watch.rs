//! `watch`: what happens in the groups of a user, as it happens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use roundtable::client::{Client, Event};
use roundtable::ids::{DeviceId, GroupId};
use roundtable::wire::Mark;

use super::connect::IdentityArgs;
use super::failure::{Exit, Failure, Format};
use super::json;
use super::output::{Output, event_line};
use super::text::escape;

/// How long a wait may last until it is looked whether an interrupt came between two waits.
const WAIT: Duration = Duration::from_millis(500);
/// Events that are printed before they are acknowledged, at most.
const BATCH_MAX: usize = 256;

/// Print group packets and entries as they come, since what you received last
#[derive(Args)]
#[command(after_help = "Examples:\n  roundtable watch --as bob\n  roundtable watch --as bob --json --count 2\n\nSays \
                        `ready` on standard error once all that was missed has been printed or asked for.")]
pub(crate) struct Watch {
    #[command(flatten)]
    identity: IdentityArgs,
    /// The device; the newest connection of one takes the older one's place [default: one of this process alone]
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
        let mut client = self.identity.connect_to_stay(self.device())?;
        client.attach_marks()?;
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0 && !stopped.load(Ordering::Relaxed) {
            let Some(first) = client.next_event(Some(WAIT))? else { continue };
            let marks = print_batch(&mut client, output, first, &mut left)?;
            if !marks.is_empty() {
                client.acknowledge(&marks)?;
            }
        }
        // The pong comes after the marks were taken.
        client.ping()?;
        Ok(())
    }

    /// Two `watch` of one user do not push each other out, unless they are told to be the same device.
    fn device(&self) -> DeviceId {
        self.device.clone().unwrap_or_else(|| {
            DeviceId::new(&format!("watch-{}", std::process::id())).expect("a number makes a short name")
        })
    }
}

/// Prints an event and those that are there already, and gives what may be acknowledged: only what was printed.
fn print_batch(client: &mut Client, output: &mut Output, first: Event, left: &mut u64) -> Result<Vec<Mark>, Failure> {
    let mut marks: BTreeMap<GroupId, u64> = BTreeMap::new();
    let mut next = Some(first);
    let mut printed = 0;
    while let Some(event) = next {
        if print(client, output, &event)? {
            *left -= 1;
            printed += 1;
        }
        if let Some((group, seq)) = received(&event) {
            let mark = marks.entry(group).or_insert(0);
            *mark = seq.max(*mark);
        }
        let more = *left > 0 && printed < BATCH_MAX;
        next = if more { client.next_event(Some(Duration::ZERO))? } else { None };
    }
    output.flush()?;
    Ok(marks.into_iter().map(|(group, received)| Mark { group, received, read: 0 }).collect())
}

/// Prints an event; whether it was a line.
fn print(client: &Client, output: &mut Output, event: &Event) -> Result<bool, Failure> {
    match event {
        Event::Ready => ready(client, output.format()),
        Event::TakenOver => {
            return Err(Failure::new(
                Exit::Refused,
                "TAKEN_OVER",
                "a newer connection of the same user and device took this one's place: give each its own --device",
            ));
        }
        Event::GoingAway { within_ms } => notice(output.format(), &format!("the server stops within {within_ms} ms")),
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
    Ok(true)
}

fn ready(client: &Client, format: Format) {
    match format {
        Format::Human => eprintln!("ready: watching as {}", escape(client.user().as_str())),
        Format::Json => eprintln!("{}", serde_json::json!({"ready": true, "user": client.user().as_str()})),
    }
}

fn notice(format: Format, text: &str) {
    match format {
        Format::Human => eprintln!("{text}"),
        Format::Json => eprintln!("{}", serde_json::json!({"notice": text})),
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
