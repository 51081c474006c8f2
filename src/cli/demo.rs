//! `demo`: a group's whole life, told while it happens, on a throw-away server in a process of its own.
//!
//! Everything printed comes from the sockets. Whatever is not as promised ends it with an error.

mod stage;

use std::time::{Duration, Instant};

use clap::Args;
use roundtable::client::{Client, Event};
use roundtable::group::Record;
use roundtable::ids::{GroupId, UserId};
use roundtable::limits::HEADER_BYTES;
use roundtable::wire::{Created, GroupPacket, GroupShown, Header, Kind, LogEntry};
use serde_json::json;

use super::failure::Failure;
use super::interrupt::Interrupt;
use super::output::{Output, entry_line, names};
use stage::{Stage, await_ready, broken, expect_same, next, unexpected};

const TITLE: &str = "lunch";
const MESSAGES: [(usize, &str); 3] = [(0, "noon?"), (1, "noon is fine"), (2, "bring dave")];

/// Show a group's whole life, on a throw-away server
#[derive(Args)]
#[command(after_help = "Example:\n  roundtable demo\n\nNeeds nothing and leaves nothing behind.")]
pub(crate) struct Demo {}

impl Demo {
    #[allow(clippy::unused_self)] // every command has this shape
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let interrupt = Interrupt::catch()?;
        let outcome = play(&interrupt, output);
        // The stage is gone by now, with its server and its directory. What an interrupted step says is no news.
        interrupt.check().and(outcome)
    }
}

fn play(interrupt: &Interrupt, output: &mut Output) -> Result<(), Failure> {
    let began = Instant::now();
    let mut stage = Stage::open()?;
    interrupt.check()?;
    let mut online = open_scene(&stage, output)?;
    interrupt.check()?;
    let created = create(&mut online, output)?;
    interrupt.check()?;
    talk(created.group, &mut online, output)?;
    interrupt.check()?;
    late_comer(&stage, created.group, MESSAGES.len(), output)?;
    interrupt.check()?;
    let before = remember(&mut online[0], created.group)?;
    drop(online);
    crash(&mut stage, created.group, &before, output)?;
    close_scene(&created, before.1.len(), began.elapsed(), output)
}

/// A record and the whole log: what must not change.
type Memory = (Record, Vec<LogEntry>);

fn heading(output: &mut Output, number: u32, text: &str) -> Result<(), Failure> {
    output.say(|paint| format!("\n{}", paint.bold(&format!("{number}  {text}"))))?;
    Ok(())
}

fn say(output: &mut Output, text: &str) -> Result<(), Failure> {
    output.say(|_| format!("   {text}"))?;
    Ok(())
}

fn open_scene(stage: &Stage, output: &mut Output) -> Result<Vec<Client>, Failure> {
    heading(output, 1, "A server, and three of four members on line")?;
    say(output, &format!("server   {}   process {}", stage.address(), stage.process()))?;
    say(output, &format!("data     {}", stage.data().display()))?;
    let mut online = Vec::new();
    for name in ["alice", "bob", "carol"] {
        let mut client = stage.enter(name)?;
        await_ready(&mut client)?;
        online.push(client);
    }
    say(output, "on line  alice, bob, carol")?;
    say(output, "off line dave")?;
    Ok(online)
}

fn create(online: &mut [Client], output: &mut Output) -> Result<Created, Failure> {
    heading(output, 2, "alice makes a group of four, with one request")?;
    let members = ["bob", "carol", "dave"].map(|name| UserId::new(name).expect("short names are legal"));
    let began = Instant::now();
    let created = online[0].create(TITLE, &members).map_err(broken)?;
    let took = began.elapsed();
    say(output, &format!("alice ──▶ server   Create \"{TITLE}\" with bob, carol, dave"))?;
    say(output, &format!("alice ◀── server   Created, on disk, after {}", milliseconds(took)))?;
    say(output, &format!("                   group    {}", created.group))?;
    say(output, &format!("                   members  {}", created.members))?;
    say(output, &format!("                   pushed   {}   bob and carol have the packet", created.pushed))?;
    say(output, &format!("                   queued   {}   dave gets it when he connects", created.queued))?;
    let receipt = (created.members, created.pushed, created.queued);
    expect_same(&receipt, &(4, 2, 1), "the receipt should say 4 members, 2 pushed, 1 queued")?;

    heading(output, 3, "One packet each: id and all members, nothing asked back")?;
    let mut frames = Vec::new();
    for client in online.iter_mut() {
        let (packet, frame) = group_packet(client, created.group)?;
        if frames.is_empty() {
            show_packet(&packet, &frame, output)?;
        }
        frames.push(frame);
    }
    for (client, frame) in online.iter().zip(&frames) {
        expect_same(frame, &frames[0], "all should get the same bytes")?;
        say(output, &format!("{:<6} got these {} bytes", client.user().as_str(), frame.len()))?;
    }
    Ok(created)
}

fn group_packet(client: &mut Client, group: GroupId) -> Result<(GroupPacket, Vec<u8>), Failure> {
    let (packet, frame) = match next(client)? {
        Event::Group { packet, frame } if packet.group == group => (packet, frame),
        other => return Err(unexpected(format!("{} should get the group packet, not {other:?}", client.user()))),
    };
    let shown = client.group_view(group).ok_or_else(|| unexpected("the group is not in the list"))?;
    let listed: Vec<UserId> = shown.members().cloned().collect();
    expect_same(&listed, &packet.members, "the list of groups should show the members of the packet")?;
    expect_same(&listed.len(), &4, "the packet should name all four members")?;
    Ok((packet, frame))
}

fn show_packet(packet: &GroupPacket, frame: &[u8], output: &mut Output) -> Result<(), Failure> {
    let bytes = frame.first_chunk::<HEADER_BYTES>().ok_or_else(|| unexpected("a frame is shorter than its header"))?;
    let header = Header::decode(bytes).map_err(|error| unexpected(format!("{error:?}")))?;
    let kind = Kind::from_number(header.kind).map_or("unknown", Kind::name);
    let fields = [
        (0..4, "magic", "RTBL".to_owned()),
        (4..5, "version", bytes[4].to_string()),
        (5..6, "flags", header.flags.to_string()),
        (6..8, "kind", kind.to_owned()),
        (8..12, "body", format!("{} bytes", header.body_bytes)),
        (12..16, "request", format!("{}: a push, nobody asked", header.request_id)),
        (16..20, "crc", "of the body".to_owned()),
        (20..24, "crc", "of these 20 bytes".to_owned()),
    ];
    for (range, name, meaning) in fields {
        let raw = hex(bytes.get(range).unwrap_or_default());
        output.say(|paint| format!("   {raw:<10} {}  {meaning}", paint.faint(&format!("{name:<8}"))))?;
    }
    say(output, "body")?;
    for (name, value) in [
        ("group", packet.group.to_string()),
        ("title", packet.title.clone()),
        ("owner", packet.owner.to_string()),
        ("members", names(packet.members.iter())),
        ("version", packet.version.to_string()),
        ("read from", format!("entry {}", packet.from)),
    ] {
        output.say(|paint| format!("              {}  {value}", paint.faint(&format!("{name:<9}"))))?;
    }
    Ok(())
}

fn talk(group: GroupId, online: &mut [Client], output: &mut Output) -> Result<(), Failure> {
    heading(output, 4, "They talk: sent to the group's id, fanned out by the server")?;
    for ((speaker, text), seq) in MESSAGES.into_iter().zip(2..) {
        let sent = online[speaker].send(group, text).map_err(broken)?;
        expect_same(&sent.seq, &seq, "messages should be numbered 2, 3, 4")?;
        let mut got = Vec::new();
        for client in online.iter_mut() {
            let entry = next_entry(client, group)?;
            expect_same(&entry.seq(), &seq, "each should get each message once, in order")?;
            got.push(entry);
            expect_same(&got[0], &got[got.len() - 1], "all should get the same message")?;
        }
        output.say(|paint| format!("   {}   ▶ alice, bob, carol", entry_line(paint, &got[0])))?;
    }
    Ok(())
}

fn next_entry(client: &mut Client, group: GroupId) -> Result<LogEntry, Failure> {
    match next(client)? {
        Event::Entry { group: of, entry } if of == group => Ok(entry),
        other => Err(unexpected(format!("{} should get an entry, not {other:?}", client.user()))),
    }
}

fn late_comer(stage: &Stage, group: GroupId, missed: usize, output: &mut Output) -> Result<(), Failure> {
    heading(output, 5, "dave connects: first the group's packet, then what he missed")?;
    let mut dave = stage.enter("dave")?;
    let (packet, frame) = group_packet(&mut dave, group)?;
    say(
        output,
        &format!("group packet, {} bytes: {} with {}", frame.len(), packet.title, names(packet.members.iter())),
    )?;
    for seq in (2..).take(missed) {
        let entry = next_entry(&mut dave, group)?;
        expect_same(&entry.seq(), &seq, "what was missed should come in order")?;
        output.say(|paint| format!("   {}", entry_line(paint, &entry)))?;
    }
    Ok(())
}

fn remember(client: &mut Client, group: GroupId) -> Result<Memory, Failure> {
    let GroupShown::Record { record, .. } = client.group(group).map_err(broken)? else {
        return Err(unexpected("a record should be shown"));
    };
    let mut log = Vec::new();
    loop {
        let page = client.history(group, next_seq(&log), 0).map_err(broken)?;
        let done = page.entries.is_empty() || page.entries.last().is_some_and(|last| last.seq() >= page.head);
        log.extend(page.entries);
        if done {
            return Ok((record, log));
        }
    }
}

fn next_seq(log: &[LogEntry]) -> u64 {
    log.last().map_or(1, |last| last.seq().saturating_add(1))
}

fn crash(stage: &mut Stage, group: GroupId, before: &Memory, output: &mut Output) -> Result<(), Failure> {
    heading(output, 6, "The server is killed (SIGKILL) and started again")?;
    let killed = stage.process();
    stage.kill()?;
    say(output, &format!("process {killed} is gone, without a chance to say good-bye"))?;
    let began = Instant::now();
    stage.restart()?;
    say(
        output,
        &format!("process {} serves the same directory, {} later", stage.process(), milliseconds(began.elapsed())),
    )?;
    let after = remember(&mut stage.connect("dave")?, group)?;
    expect_same(&after.1.len(), &(MESSAGES.len() + 1), "the log should have the creation and each message")?;
    expect_same(&after.0, &before.0, "the record should be what it was")?;
    expect_same(&after.1, &before.1, "the log should be what it was")?;
    let members: Vec<UserId> = after.0.members.iter().map(|member| member.user.clone()).collect();
    say(output, &format!("record   the same: {} with {}", after.0.title, names(members.iter())))?;
    say(output, &format!("log      the same {} entries:", after.1.len()))?;
    for entry in &after.1 {
        output.say(|paint| format!("   {}", entry_line(paint, entry)))?;
    }
    Ok(())
}

fn close_scene(created: &Created, entries: usize, took: Duration, output: &mut Output) -> Result<(), Failure> {
    output.line(
        |paint| {
            format!(
                "\n{} in {}; nothing is left behind.\n\nTry it by hand, in three terminals:\n   \
                 roundtable serve\n   roundtable watch --as bob\n   roundtable create --as alice --title lunch bob carol",
                paint.good("Everything was as promised"),
                milliseconds(took)
            )
        },
        || {
            json!({
                "ok": true,
                "group": created.group.to_string(),
                "members": created.members,
                "pushed": created.pushed,
                "queued": created.queued,
                "entries": entries,
                "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            })
        },
    )?;
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
