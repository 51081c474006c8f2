//! Recovery of a journal that somebody forged: whole packets of any content, in any order, over up to three segments.
//!
//! ```text
//! u8  segments; whether the index has applied some of it
//! …   for each segment: what is wrong with its header, then packets, each a byte that says which and what it takes
//! …   what is wrong with HEAD
//! ```
//!
//! Every packet stands under a right CRC, LSN and chain, unless the input says what of it is wrong. So what is written
//! is known, and recovery can be held to it: it may refuse; what it accepts is a beginning of what was written, with
//! everything in it that was known to be synced; and it stays, whatever becomes of the power.

use std::sync::Arc;

use arbitrary::{Result, Unstructured};

use super::forge::Forged;
use crate::codec::Writer;
use crate::group::{Entry, Event, Succession};
use crate::ids::{GroupId, OperationId, Principal, UserId};
use crate::store::disk::simulated::SimulatedDisk;
use crate::store::disk::{Disk as _, DiskFile as _};
use crate::store::index::IndexHome as _;
use crate::store::index::memory::MemoryHome;
use crate::store::indexer::Indexer;
use crate::store::journal::head::{self, Head};
use crate::store::journal::packet::{PACKET_HEADER_BYTES, WATERMARK_BYTES};
use crate::store::journal::segment::{JOURNAL_DIRECTORY, SEGMENT_HEADER_BYTES, SegmentHeader, segment_path};
use crate::store::journal::writer::{Journal, Tail};
use crate::store::journal::{Applied, Content, JournalReader, Opened, Position, ReadError, recovery};
use crate::store::{Change, Effect, Mark, OpenError};

const SEGMENT_BYTES: u32 = 4096;
const DIRECTORY: [u8; 16] = [9; 16];
const PACKETS_MAX: u8 = 16;
const WATERMARK: u8 = 0x03;

/// What was written, as recovery may find it.
#[derive(Default)]
struct Written {
    segments: Vec<Vec<u8>>,
    /// LSN and place of each packet that can be reached from the beginning: up to the first thing that is wrong.
    reachable: Vec<(u64, Position)>,
    /// The place behind the last of them.
    reachable_end: Position,
    /// The place up to which whole packets say that everything was synced.
    line: Position,
    /// Places between packets.
    places: Vec<Tail>,
    /// Something is wrong from here on.
    broken: bool,
}

/// Recovery never panics; what it accepts is what was written, everything that was synced, and stays so.
pub(crate) fn journal(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut written = Written::default();
    let disk = SimulatedDisk::new();
    // The end of the input ends the journal, wherever it is.
    let applied = written.forge(&mut input).ok().flatten();
    written.put_on(&disk);
    let named = written.head(&mut input).unwrap_or(Head { newest: written.segments_count(), first: 1 });
    head::record(&disk, DIRECTORY, named).unwrap();
    disk.sync_directory(JOURNAL_DIRECTORY).unwrap();
    if let Some(applied) = applied {
        // The index may lie; that is found out or believed, and breaks nothing.
        let _ = recovery::open(over(&disk.fork()), Some(applied));
    }
    match recovery::open(over(&disk), None) {
        Ok(opened) => written.check(&disk, &opened),
        Err(OpenError::Corrupt { .. } | OpenError::NewerFormat { .. }) => {
            for (number, bytes) in (1..).zip(&written.segments) {
                assert_eq!(&disk.content(&segment_path(number)), bytes, "who refuses changes nothing");
            }
        }
        Err(other) => panic!("{other}"),
    }
}

fn over(disk: &SimulatedDisk) -> Journal<SimulatedDisk> {
    let mut salt = 0x0b0e_0000;
    let salts = Box::new(move || {
        salt += 1;
        salt
    });
    Journal { disk: disk.clone(), directory: DIRECTORY, segment_bytes: SEGMENT_BYTES, salts }
}

impl Written {
    fn segments_count(&self) -> u32 {
        u32::try_from(self.segments.len()).expect("three at most")
    }

    /// Writes the segments; gives what the index says that it has applied.
    fn forge(&mut self, input: &mut Unstructured<'_>) -> Result<Option<Applied>> {
        let modes: u8 = input.arbitrary()?;
        let mut tail = Tail { segment: 0, salt: 0, offset: 0, next_lsn: 1, previous_crc: 0 };
        for number in 1..=u32::from(modes % 3) + 1 {
            tail = self.segment(input, number, tail)?;
        }
        if modes & 4 == 0 {
            return Ok(None);
        }
        let mut end = input.choose(&self.places)?.position();
        end.offset += input.int_in_range(0..=1_u32)?;
        Ok(Some(Applied { lsn: input.int_in_range(0..=40)?, end }))
    }

    /// A segment behind `previous`; the end of the input leaves one that is whole.
    fn segment(&mut self, input: &mut Unstructured<'_>, number: u32, previous: Tail) -> Result<Tail> {
        let mut header = SegmentHeader {
            number,
            directory: DIRECTORY,
            segment_bytes: u64::from(SEGMENT_BYTES),
            salt: 0x5a17_0000 + number,
            previous_crc: previous.previous_crc,
            first_lsn: previous.next_lsn,
            previous_end: previous.position(),
            running_ms: 5,
        };
        let right = header;
        let flipped = spoil_header(input, &mut header).unwrap_or_default();
        // Clocks prove nothing, and a log may begin with any LSN behind any packet.
        let mut harmless = SegmentHeader { running_ms: header.running_ms, ..right };
        if number == 1 && header.first_lsn > 0 {
            (harmless.first_lsn, harmless.previous_crc) = (header.first_lsn, header.previous_crc);
        }
        self.broken |= header != harmless;
        self.broken |= flipped.is_some();
        let mut tail = Tail {
            segment: number,
            salt: header.salt,
            offset: SEGMENT_HEADER_BYTES,
            next_lsn: header.first_lsn,
            previous_crc: header.previous_crc,
        };
        let mut bytes = header.encode();
        if let Some(at) = flipped {
            bytes[at] ^= 1;
        }
        bytes.resize(SEGMENT_BYTES as usize, 0);
        if !self.broken {
            self.reachable_end = tail.position();
        }
        self.places.push(tail);
        let outcome = self.packets(input, &mut bytes, &mut tail);
        self.segments.push(bytes);
        outcome.map(|()| tail)
    }

    fn packets(&mut self, input: &mut Unstructured<'_>, bytes: &mut [u8], tail: &mut Tail) -> Result<()> {
        for _ in 0..input.int_in_range(0..=PACKETS_MAX)? {
            let (kind, body) = self.body(input, *tail)?;
            let lsn = tail.next_lsn;
            let forged = Forged { kind, version: 1, lsn, previous_crc: tail.previous_crc, body: &body };
            let wrong = input.int_in_range(0..=63_u8)?;
            let forged = match wrong {
                0 => Forged { lsn: lsn ^ 1, ..forged },
                1 => Forged { previous_crc: !forged.previous_crc, ..forged },
                2 => Forged { version: 2, ..forged },
                _ => forged,
            };
            let (mut packet, crc) = forged.encode(tail.salt);
            match wrong {
                3 => packet.fill(0),
                4 => packet[4] ^= 0x40,
                _ => {}
            }
            let start = tail.offset as usize;
            let Some(room) = bytes.get_mut(start..start + packet.len()) else { return Ok(()) };
            room.copy_from_slice(&packet);
            self.broken |= wrong <= 4;
            // Whoever looks for a watermark looks behind bad places too, as long as it is whole itself.
            if kind == WATERMARK && !matches!(wrong, 2..=4) && body.len() == WATERMARK_BYTES - PACKET_HEADER_BYTES {
                let word = |at: usize| u32::from_be_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
                self.line = self.line.max(Position { segment: word(0), offset: word(4) });
            }
            if !self.broken {
                self.reachable.push((lsn, tail.position()));
            }
            tail.offset += u32::try_from(packet.len()).expect("within a segment");
            tail.next_lsn = tail.next_lsn.wrapping_add(1);
            tail.previous_crc = crc;
            if !self.broken {
                self.reachable_end = tail.position();
            }
            self.places.push(*tail);
        }
        Ok(())
    }

    fn body(&mut self, input: &mut Unstructured<'_>, tail: Tail) -> Result<(u8, Vec<u8>)> {
        match input.int_in_range(0..=15_u8)? {
            0..=3 => {
                let mut synced = if input.ratio(3, 4)? { tail } else { *input.choose(&self.places)? }.position();
                synced.offset = synced.offset.wrapping_add(if input.ratio(1, 16)? { input.arbitrary()? } else { 0 });
                Ok((WATERMARK, [synced.segment, synced.offset, 0, 5, 0, 7].map(u32::to_be_bytes).concat()))
            }
            4 => {
                let kind = input.int_in_range(1..=0x17_u8)?;
                let length = input.int_in_range(0..=100_usize)?;
                Ok((kind, input.bytes(length)?.to_vec()))
            }
            5 => Ok((0x02, bytes_of(&Change::Marks(vec![mark(input)?])))),
            _ => Ok((0x01, bytes_of(&Change::Effect(effect(input, tail.next_lsn)?)))),
        }
    }

    fn put_on(&mut self, disk: &SimulatedDisk) {
        disk.create_directory(JOURNAL_DIRECTORY).unwrap();
        head::create(disk, DIRECTORY).unwrap();
        if self.segments.is_empty() {
            self.segments.push(vec![0; SEGMENT_BYTES as usize]);
            self.broken = true;
        }
        for (number, bytes) in (1..).zip(&self.segments) {
            let file = disk.create(&segment_path(number)).unwrap();
            file.write_at(0, bytes).unwrap();
            file.sync().unwrap();
        }
    }

    /// What `HEAD` says: the newest segment mostly, or anything.
    fn head(&self, input: &mut Unstructured<'_>) -> Result<Head> {
        let newest = self.segments_count();
        Ok(match input.int_in_range(0..=15_u8)? {
            0 => Head { newest: input.int_in_range(0..=4)?, first: input.int_in_range(0..=4)? },
            1 => Head { newest: input.arbitrary()?, first: input.arbitrary()? },
            2 => Head { newest: newest - 1, first: 1 },
            _ => Head { newest, first: 1 },
        })
    }

    /// Holds what was accepted to what was written.
    fn check(&self, disk: &SimulatedDisk, opened: &Opened<SimulatedDisk>) {
        let found = contents(disk, opened.first, opened.end);
        if opened.first == 1 {
            let kept = found.iter().filter(|(lsn, _)| self.reachable.iter().any(|(written, _)| written == lsn));
            assert!(kept.count() <= self.reachable.len());
            let changes = found.iter().filter(|(_, content)| !matches!(content, Content::Watermark(_)));
            for (lsn, content) in changes {
                let place = self.reachable.iter().find(|(written, _)| written == lsn);
                let (_, place) = place.unwrap_or_else(|| panic!("LSN {lsn} was never written whole: {content:?}"));
                assert_eq!(read_from(&self.segments, *place), *content, "LSN {lsn}");
            }
            let synced = self.reachable.iter().filter(|(_, place)| *place < self.line);
            for (lsn, place) in synced {
                let is_there = found.iter().any(|(found, _)| found == lsn);
                assert!(is_there, "LSN {lsn} at {place:?} was synced, {:?} says, and is not accepted", self.line);
            }
            let (line, end) = (self.line, self.reachable_end);
            assert!(line <= end, "up to {line:?} everything was synced, and it is accepted up to {end:?}");
        }
        let (killed, cut) = (disk.fork(), disk.fork());
        killed.kill();
        cut.crash(|_| false);
        for later in [killed, cut] {
            let again = recovery::open(over(&later), None).unwrap_or_else(|error| panic!("opened once, then: {error}"));
            assert_eq!((again.first, again.end), (opened.first, opened.end), "recovery twice is recovery once");
            assert_eq!(contents(&later, again.first, again.end), found, "what one start showed, the next one shows");
        }
        fold(disk, opened);
    }
}

/// Spoils what the header says, or gives the byte to flip under its CRC.
fn spoil_header(input: &mut Unstructured<'_>, header: &mut SegmentHeader) -> Result<Option<usize>> {
    match input.int_in_range(0..=63_u8)? {
        0 => header.first_lsn = input.arbitrary()?,
        1 => header.previous_end.offset = input.arbitrary()?,
        2 => header.previous_end.segment = input.arbitrary()?,
        3 => header.previous_crc ^= 1,
        4 => header.number = input.arbitrary()?,
        5 => header.segment_bytes = input.arbitrary()?,
        6 => return Ok(Some(input.int_in_range(0..=511_usize)?)),
        7 => header.running_ms = input.arbitrary()?,
        8 => header.first_lsn = header.first_lsn.wrapping_add(u64::from(input.arbitrary::<u8>()?)),
        _ => {}
    }
    Ok(None)
}

fn bytes_of(change: &Change) -> Vec<u8> {
    let mut body = Vec::new();
    crate::store::record::encode_change(&mut Writer::new(&mut body), change);
    body
}

fn some_user(input: &mut Unstructured<'_>) -> Result<UserId> {
    Ok(UserId::new(input.choose(&["a", "b", "c"])?).expect("a legal name"))
}

fn some_group(input: &mut Unstructured<'_>) -> Result<GroupId> {
    Ok(GroupId::from_bytes([input.int_in_range(1..=3_u8)?; 16]).expect("not nil"))
}

fn mark(input: &mut Unstructured<'_>) -> Result<Mark> {
    let (user, group) = (some_user(input)?, some_group(input)?);
    Ok(Mark { user, group, received: input.int_in_range(0..=9)?, read: input.int_in_range(0..=9)? })
}

fn effect(input: &mut Unstructured<'_>, lsn: u64) -> Result<Effect> {
    let (sender, group) = (some_user(input)?, some_group(input)?);
    let seq = input.int_in_range(1..=9)?;
    let members = || vec![UserId::new("a").expect("legal"), UserId::new("b").expect("legal")];
    let event = match input.int_in_range(0..=7_u8)? {
        0 | 1 => Event::Created { title: "t".into(), members: members() },
        2 => Event::Added { members: vec![some_user(input)?] },
        3 => Event::Removed { members: vec![some_user(input)?] },
        4 => Event::Left { succession: Succession::Unchanged },
        5 => Event::Dissolved,
        _ => Event::Message { body: vec![7; usize::from(input.int_in_range(0..=200_u8)?)].into() },
    };
    let version = if event.changes_record() { seq } else { 1 };
    let mut operation = [1; 16];
    operation[..8].copy_from_slice(&lsn.to_be_bytes());
    let operation = OperationId::from_bytes(operation).expect("not nil");
    let entry = Arc::new(Entry { seq, version, at_ms: 1, sender: sender.clone(), by: None, event });
    Ok(Effect { principal: Principal::User(sender), operation, fingerprint: lsn, group, entry })
}

/// Everything from the first segment to the end, as a reader sees it.
fn contents(disk: &SimulatedDisk, first: u32, end: Position) -> Vec<(u64, Content)> {
    let mut contents: Vec<(u64, Content)> = Vec::new();
    let start = Position { segment: first, offset: SEGMENT_HEADER_BYTES };
    let walked = JournalReader::new(disk.clone(), SEGMENT_BYTES).walk::<ReadError>(start, end, |packet| {
        let follows = contents.last().is_none_or(|(lsn, _)| lsn + 1 == packet.placed.lsn);
        assert!(follows, "LSNs have no gap");
        contents.push((packet.placed.lsn, packet.content));
        Ok(())
    });
    walked.unwrap_or_else(|error| panic!("what was accepted can be read: {error}"));
    contents
}

fn read_from(segments: &[Vec<u8>], place: Position) -> Content {
    let bytes = &segments[place.segment as usize - 1];
    let salt = SegmentHeader::decode(&bytes[..SEGMENT_HEADER_BYTES as usize]).expect("a reachable segment").salt;
    let packet = crate::store::journal::packet::Packet::decode(&bytes[place.offset as usize..], salt);
    packet.expect("a reachable packet").content().expect("a reachable value")
}

/// The index that is made of it: whatever the packets say, it is made or refused, and answers.
fn fold(disk: &SimulatedDisk, opened: &Opened<SimulatedDisk>) {
    let reader = JournalReader::new(disk.clone(), SEGMENT_BYTES);
    let index = MemoryHome::default().open().expect("an empty one");
    let mut indexer = Indexer::new(index, reader, DIRECTORY).expect("nobody else's");
    if indexer.replay(opened.first, opened.end, |_| true).is_err() {
        return;
    }
    for number in 1..=3 {
        let group = GroupId::from_bytes([number; 16]).expect("not nil");
        let _ = indexer.load_group(group);
        let _ = indexer.read_marks(group);
        let _ = indexer.read_entries(group, 1, u64::MAX, usize::MAX, usize::MAX);
    }
    for name in ["a", "b", "c"] {
        let user = UserId::new(name).expect("legal");
        let _ = indexer.load_user(&user);
        let _ = indexer.list_groups(&user, None, 1000);
        let _ = indexer.load_operations(&Principal::User(user));
    }
    indexer.flush().expect("memory takes it");
}
