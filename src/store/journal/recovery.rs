//! Opening a journal after whatever happened: what counts, what is a torn tail, and what is damage.
//!
//! A disk may keep later bytes of what was never synced and lose earlier ones, so good packets behind a bad one prove
//! nothing. Every batch says up to where everything was synced when it was written: the highest such *watermark* in
//! any whole packet, wherever it stands, divides the last segment. Above it the first bad packet ends the log; below
//! it anything wrong is damage, and the journal is not opened. A successor's header and what the index has applied
//! are watermarks too.
//!
//! What is accepted above the watermark was perhaps never synced: after a kill or a failed sync it may be readable
//! from memory only. So it is written again, into a new segment, marked and synced, before anything is answered.

use super::head::{self, HEAD_FILE, Head};
use super::packet::{
    Body, Content, ContentError, Packet, PacketError, Position, WATERMARK_BYTES, Watermark, encode, watermark_at,
};
use super::segment::{
    HeaderError, JOURNAL_DIRECTORY, SEGMENT_FORMAT, SEGMENT_HEADER_BYTES, SegmentHeader, segment_number, segment_path,
};
use super::spare::{make_now, remove_leftovers};
use super::writer::{Journal, Now, Tail, Writer, begin_segment, beginning};
use crate::store::OpenError;
use crate::store::disk::{Disk, DiskError, DiskFile};

/// Space is given back in blocks of this size.
const BLOCK_BYTES: u64 = 4096;

/// Up to where the index has applied the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    /// The LSN of the last packet applied.
    pub(crate) lsn: u64,
    /// The place behind it.
    pub(crate) end: Position,
}

/// A journal that is open.
pub(crate) struct Opened<D: Disk> {
    /// Goes on at its end.
    pub(crate) writer: Writer<D>,
    /// The place behind its last packet.
    pub(crate) end: Position,
    /// Whether what the index says it has applied is a place in this journal; else the index is to be rebuilt.
    pub(crate) index_agrees: bool,
    /// The clocks of the newest packet.
    pub(crate) last: Now,
    /// The segment with which the log begins.
    pub(crate) first: u32,
    /// The segments that are ended, from the first on.
    pub(crate) sealed: Vec<Sealed>,
}

/// A segment that has a successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) number: u32,
    /// Where its packets end.
    pub(crate) end: u32,
    /// The running time at which its successor was begun.
    pub(crate) ended_ms: u64,
}

/// Whether a directory without a `FORMAT` file was merely interrupted while it was made: nothing was ever written.
pub(crate) fn is_unused<D: Disk>(disk: &D) -> Result<bool, OpenError> {
    if !disk.exists(JOURNAL_DIRECTORY)? {
        return Ok(true);
    }
    remove_leftovers(disk)?;
    let mut files = disk.list(JOURNAL_DIRECTORY)?;
    files.retain(|file| file.name != HEAD_FILE);
    match files.as_slice() {
        [] => Ok(true),
        [only] if only.name == "00000001.seg" && only.size_bytes > u64::from(SEGMENT_HEADER_BYTES) => {
            let bytes = read(disk, 1, u32::try_from(only.size_bytes).unwrap_or(u32::MAX))?;
            Ok(all_zero(&bytes, SEGMENT_HEADER_BYTES))
        }
        _ => Ok(false),
    }
}

/// Makes the head and the first segment of a new journal.
pub(crate) fn create<D: Disk>(journal: &mut Journal<D>) -> Result<(), OpenError> {
    journal.disk.create_directory(JOURNAL_DIRECTORY)?;
    journal.disk.sync_directory("")?;
    head::create(&journal.disk, journal.directory)?;
    let spare = make_now(&journal.disk, "first", u64::from(journal.segment_bytes))?;
    begin_segment(journal, spare, beginning(), 1, 0, |_, _| {})?;
    Ok(())
}

/// Opens a journal; `applied` is what the index says. Errors leave the segments as they are.
pub(crate) fn open<D: Disk>(journal: Journal<D>, applied: Option<Applied>) -> Result<Opened<D>, OpenError> {
    remove_leftovers(&journal.disk)?;
    let Head { newest: named, first } = head::read(&journal.disk, journal.directory)?;
    let Headers { log: headers, cleaned } = read_headers(&journal, first)?;
    let last = *headers.last().ok_or_else(|| missing(first))?;
    if named > last.number || applied.is_some_and(|applied| applied.end.segment > last.number) {
        return Err(missing(last.number + 1));
    }
    if named + 1 < last.number {
        return Err(head::behind(named, last.number));
    }
    let first_scanned = applied.map_or(first, |applied| applied.end.segment.max(first));
    let mut scan = Scan { applied, ..Scan::default() };
    for pair in headers.windows(2) {
        let [header, next] = pair else { continue };
        if header.number >= first_scanned {
            scan_closed(&journal, header, next, &mut scan)?;
        }
    }
    let segment_bytes = journal.segment_bytes;
    let bytes = read(&journal.disk, last.number, segment_bytes)?;
    let tail = scan_last(&bytes, &last, &mut scan)?;
    let synced = tail_at(&bytes, &last, scan.watermark.max(start_of(&last)))?;
    let tail = if planted!("recovery: what stands above the watermark is dropped") { synced } else { tail };
    let clean = all_zero(&bytes, tail.offset);
    let changes_above = has_changes(&bytes, synced, tail);
    let is_unmarked = scan.marked < scan.watermark
        && has_changes(&bytes, tail_at(&bytes, &last, scan.marked.max(start_of(&last)))?, synced);
    let running_ms = scan.last.running_ms.max(last.running_ms);
    let last_now = Now { running_ms, wall_ms: scan.last.wall_ms };
    let trusts = clean && planted!("recovery: what a kill left is not synced again");
    // From here on the disk may refuse, and nothing else.
    let again =
        if trusts || clean && !changes_above { None } else { Some(accepted(&bytes, synced, tail, segment_bytes)?) };
    // What a kill left may be in memory only: the name of the last segment, which is used from here on, and the head,
    // even if it says so already. Before another segment is made, because the head is one behind at most. The slot of
    // the last segment comes first: until it is durable, the other one may be the only one that is not too far behind.
    journal.disk.sync_directory(JOURNAL_DIRECTORY)?;
    head::record(&journal.disk, journal.directory, Head { newest: last.number, first })?;
    head::record(&journal.disk, journal.directory, Head { newest: last.number.saturating_sub(1), first })?;
    remove_cleaned(&journal.disk, &cleaned)?;
    let disk = journal.disk.clone();
    let mut writer = if let Some(again) = again {
        tracing::warn!(
            file = segment_path(last.number),
            synced = synced.offset,
            accepted = tail.offset - synced.offset,
            "the journal was not closed: what is whole behind the last sync is written again"
        );
        write_again(journal, &again, synced, first, last_now)?
    } else {
        go_on_in_place(journal, &bytes, synced, tail, first)?
    };
    if is_unmarked && writer.end().segment == last.number {
        // The index alone says that this was synced, and may be lost: then damage in it would look like a torn tail.
        writer.mark_again(last_now)?;
    }
    // Of the one before too: a kill may have come between the ending and this.
    release_rest(&disk, last.previous_end, segment_bytes);
    if writer.end().segment > last.number {
        release_rest(&disk, synced.position(), segment_bytes);
    }
    let mut sealed: Vec<Sealed> = headers.windows(2).filter_map(sealed_of).collect();
    if writer.end().segment > last.number {
        sealed.push(Sealed { number: last.number, end: synced.offset, ended_ms: running_ms });
    }
    let index_agrees = applied.is_none() || scan.applied_found;
    Ok(Opened { end: writer.end(), writer, index_agrees, last: last_now, first, sealed })
}

fn sealed_of(pair: &[SegmentHeader]) -> Option<Sealed> {
    let [header, next] = pair else { return None };
    Some(Sealed { number: header.number, end: next.previous_end.offset, ended_ms: next.running_ms })
}

/// Removes what a crash in the middle of a cleaning left: the head says already that the log begins behind it.
fn remove_cleaned<D: Disk>(disk: &D, cleaned: &[u32]) -> Result<(), OpenError> {
    for number in cleaned {
        tracing::info!(file = segment_path(*number), "removed: it was cleaned before the last stop");
        disk.remove(&segment_path(*number))?;
    }
    if !cleaned.is_empty() {
        disk.sync_directory(JOURNAL_DIRECTORY)?;
    }
    Ok(())
}

#[derive(Default)]
struct Scan {
    applied: Option<Applied>,
    applied_found: bool,
    watermark: Position,
    /// The same by the journal alone, whatever the index says.
    marked: Position,
    last: Now,
}

impl Scan {
    /// Takes note of a good packet that ends at `end`.
    fn note(&mut self, number: u32, packet: &Packet<'_>, end: Tail) -> Result<(), OpenError> {
        if self.applied == Some(Applied { lsn: packet.lsn, end: end.position() }) {
            self.applied_found = true;
        }
        let offset = end.offset - packet.bytes;
        match packet.content() {
            Ok(Content::Watermark(watermark)) => {
                self.watermark = self.watermark.max(watermark.synced);
                self.last = Now { running_ms: watermark.running_ms, wall_ms: watermark.wall_ms };
                Ok(())
            }
            Ok(Content::Effect(_) | Content::Marks(_) | Content::Carried(_)) => Ok(()),
            Err(ContentError::Newer) => Err(OpenError::NewerFormat {
                file: segment_path(number),
                found: u32::from(u8::MAX),
                supported: SEGMENT_FORMAT,
            }),
            Err(ContentError::Malformed(error)) => {
                Err(corrupt(number, offset, &format!("a whole packet holds no value: {error}")))
            }
        }
    }
}

/// What stands in the journal's directory.
struct Headers {
    /// The segments of the log, in their order.
    log: Vec<SegmentHeader>,
    /// The numbers of segments before the first.
    cleaned: Vec<u32>,
}

fn read_headers<D: Disk>(journal: &Journal<D>, first: u32) -> Result<Headers, OpenError> {
    let mut headers: Vec<SegmentHeader> = Vec::new();
    let mut cleaned = Vec::new();
    for file in journal.disk.list_or_none(JOURNAL_DIRECTORY)? {
        if file.name == HEAD_FILE {
            continue;
        }
        let Some(number) = segment_number(&file.name) else {
            tracing::warn!(file = file.name, "a file in the journal's directory that is no segment; left alone");
            continue;
        };
        if number < first {
            cleaned.push(number);
            continue;
        }
        let expected = headers.last().map_or(first, |header| header.number.saturating_add(1));
        if number != expected {
            return Err(missing(expected));
        }
        if file.size_bytes != u64::from(journal.segment_bytes) {
            let reason = format!("the segment has {} bytes instead of {}", file.size_bytes, journal.segment_bytes);
            return Err(corrupt(number, u32::try_from(file.size_bytes).unwrap_or(u32::MAX), &reason));
        }
        headers.push(read_header(journal, number, headers.last())?);
    }
    Ok(Headers { log: headers, cleaned })
}

fn read_header<D: Disk>(
    journal: &Journal<D>,
    number: u32,
    previous: Option<&SegmentHeader>,
) -> Result<SegmentHeader, OpenError> {
    let header = SegmentHeader::decode(&read(&journal.disk, number, SEGMENT_HEADER_BYTES)?);
    let header = header.map_err(|error| match error {
        HeaderError::Newer(found) => {
            OpenError::NewerFormat { file: segment_path(number), found, supported: SEGMENT_FORMAT }
        }
        HeaderError::NotASegment => corrupt(number, 0, "the header is not that of a segment"),
        HeaderError::BadCrc => corrupt(number, 0, "the header's CRC does not fit"),
        HeaderError::Malformed(error) => corrupt(number, 0, &format!("the header holds no value: {error}")),
    })?;
    let (end, lsn) = match previous {
        Some(previous) => {
            (Position { segment: previous.number, offset: header.previous_end.offset }, previous.first_lsn)
        }
        None if number == 1 => (Position::default(), 1),
        // Its predecessor is cleaned: where that ended is no longer to be compared with anything.
        None => (Position { segment: number.saturating_sub(1), offset: header.previous_end.offset }, 1),
    };
    let reason = if header.directory != journal.directory {
        "the segment belongs to another data directory"
    } else if header.number != number {
        "the segment has another number than its name"
    } else if header.segment_bytes != u64::from(journal.segment_bytes) {
        "the segment was made for another size"
    } else if header.previous_end != end
        || header.first_lsn < lsn
        || (previous.is_some() && !(SEGMENT_HEADER_BYTES..=journal.segment_bytes).contains(&end.offset))
    {
        "the segment does not follow its predecessor"
    } else {
        return Ok(header);
    };
    Err(corrupt(number, 0, reason))
}

/// Checks a segment that has a successor: all of it, up to the end that the successor names, was synced.
fn scan_closed<D: Disk>(
    journal: &Journal<D>,
    header: &SegmentHeader,
    next: &SegmentHeader,
    scan: &mut Scan,
) -> Result<(), OpenError> {
    let bytes = read(&journal.disk, header.number, journal.segment_bytes)?;
    let bytes = bytes.get(..offset(next.previous_end.offset)).unwrap_or_default();
    let mut tail = first_tail(header);
    while tail.offset < next.previous_end.offset {
        let (packet, after) = advance(bytes, tail).map_err(|error| corrupt(header.number, tail.offset, say(error)))?;
        scan.note(header.number, &packet, after)?;
        tail = after;
    }
    if tail.next_lsn != next.first_lsn || tail.previous_crc != next.previous_crc {
        return Err(corrupt(header.number, tail.offset, "the successor goes on from another packet"));
    }
    Ok(())
}

/// Follows the last segment up to the first bad packet; gives its end. Fails if anything says that more was synced.
fn scan_last(bytes: &[u8], header: &SegmentHeader, scan: &mut Scan) -> Result<Tail, OpenError> {
    let mut tail = first_tail(header);
    let bad = loop {
        match advance(bytes, tail) {
            Ok((packet, after)) => {
                scan.note(header.number, &packet, after)?;
                tail = after;
            }
            Err(error) => break error,
        }
    };
    // The highest watermark may stand behind the bad place; a packet can begin at every eighth byte.
    for chunk in (offset(tail.offset)..used_bytes(bytes)).step_by(8) {
        if let Some(watermark) = bytes.get(chunk..).and_then(|bytes| watermark_at(bytes, header.salt)) {
            scan.watermark = scan.watermark.max(watermark.synced);
        }
    }
    scan.marked = scan.watermark;
    if let Some(applied) = scan.applied
        && applied.end.segment == header.number
    {
        if applied.end > tail.position() || applied.lsn >= tail.next_lsn {
            let reason = format!("the log ends before LSN {}, which the index has applied", applied.lsn);
            return Err(corrupt(header.number, tail.offset, &reason));
        }
        if scan.applied_found {
            scan.watermark = scan.watermark.max(applied.end);
        }
    }
    if scan.watermark > tail.position() {
        let Position { segment, offset } = scan.watermark;
        let reason = format!("{}, below segment {segment} offset {offset}, which was synced", say(bad));
        return Err(corrupt(header.number, tail.offset, &reason));
    }
    Ok(tail)
}

/// Reads the packet at `tail` and checks its LSN and the chain; gives the tail behind it.
pub(crate) fn advance(bytes: &[u8], tail: Tail) -> Result<(Packet<'_>, Tail), Bad> {
    advance_at(bytes.get(offset(tail.offset)..).unwrap_or_default(), tail)
}

/// The same, where the packet at `tail` stands at the front of `bytes`.
pub(crate) fn advance_at(bytes: &[u8], tail: Tail) -> Result<(Packet<'_>, Tail), Bad> {
    let packet = Packet::decode(bytes, tail.salt).map_err(Bad::Packet)?;
    if packet.lsn != tail.next_lsn {
        return Err(Bad::Lsn);
    }
    if packet.previous_crc != tail.previous_crc {
        return Err(Bad::Chain);
    }
    let after =
        Tail { offset: tail.offset + packet.bytes, next_lsn: tail.next_lsn + 1, previous_crc: packet.crc, ..tail };
    Ok((packet, after))
}

/// Why a packet does not continue the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    Packet(PacketError),
    Lsn,
    Chain,
}

/// In words, for the log and the operator.
pub(crate) fn say(bad: Bad) -> &'static str {
    match bad {
        Bad::Packet(PacketError::Empty) => "there is no packet",
        Bad::Packet(PacketError::BadLength) => "a packet's header is damaged",
        Bad::Packet(PacketError::BadCrc) => "a packet's CRC does not fit",
        Bad::Lsn => "a packet's LSN is not the next one",
        Bad::Chain => "a packet does not follow the one before it",
    }
}

/// The tail at a place that lies between two packets of the segment.
fn tail_at(bytes: &[u8], header: &SegmentHeader, place: Position) -> Result<Tail, OpenError> {
    let mut tail = first_tail(header);
    while tail.position() < place {
        let (_, after) = advance(bytes, tail).map_err(|error| corrupt(header.number, tail.offset, say(error)))?;
        tail = after;
    }
    if tail.position() != place {
        return Err(corrupt(header.number, place.offset, "a watermark points into a packet"));
    }
    Ok(tail)
}

fn has_changes(bytes: &[u8], from: Tail, to: Tail) -> bool {
    let mut tail = from;
    while tail.offset < to.offset {
        match advance(bytes, tail) {
            Ok((packet, after)) if packet.is_watermark() => tail = after,
            _ => return true,
        }
    }
    false
}

/// Nothing but markers stands behind the last sync, and zeros behind them: the same segment goes on. The markers are
/// written again as they are, because they may be in memory only, and what follows is chained to them.
fn go_on_in_place<D: Disk>(
    journal: Journal<D>,
    bytes: &[u8],
    synced: Tail,
    tail: Tail,
    first: u32,
) -> Result<Writer<D>, OpenError> {
    let file = journal.disk.open(&segment_path(tail.segment))?;
    if synced != tail && !planted!("recovery: what a kill left is not synced again") {
        let again = bytes.get(offset(synced.offset)..offset(tail.offset)).unwrap_or_default();
        file.write_at(u64::from(synced.offset), again)?;
    }
    if !planted!("recovery: what a kill left is not synced again") {
        file.sync()?;
    }
    Ok(Writer::new(journal, file, tail, first))
}

/// What was accepted above the watermark. Markers at the very end say nothing that is still of use and are left out, so
/// that the rest always fits into a segment.
fn accepted(bytes: &[u8], synced: Tail, tail: Tail, segment_bytes: u32) -> Result<Vec<Packet<'_>>, OpenError> {
    let mut accepted = Vec::new();
    let mut cursor = synced;
    while cursor.offset < tail.offset {
        let (packet, after) =
            advance(bytes, cursor).map_err(|error| corrupt(tail.segment, cursor.offset, say(error)))?;
        accepted.push(packet);
        cursor = after;
    }
    while accepted.last().is_some_and(Packet::is_watermark) {
        accepted.pop();
    }
    // A writer leaves room for a marker in every segment; one that is fuller would make a segment too large here.
    let bytes = accepted.iter().map(|packet| u64::from(packet.bytes)).sum::<u64>();
    if u64::from(SEGMENT_HEADER_BYTES) + bytes + WATERMARK_BYTES as u64 > u64::from(segment_bytes) {
        return Err(corrupt(tail.segment, tail.offset, "more stands in the segment than is ever written into one"));
    }
    Ok(accepted)
}

/// Writes what was accepted above the watermark into a new segment, which ends the old one at the watermark. The
/// packets keep their LSNs. The marker of the new segment is written with it: a segment has its name only after all of that
/// was synced, so whoever can read the marker may believe it, and a kill from there on costs no other segment.
fn write_again<D: Disk>(
    mut journal: Journal<D>,
    accepted: &[Packet<'_>],
    synced: Tail,
    first: u32,
    now: Now,
) -> Result<Writer<D>, OpenError> {
    let spare = make_now(&journal.disk, "recovered", u64::from(journal.segment_bytes))?;
    let (file, tail) = begin_segment(&mut journal, spare, synced, first, now.running_ms, |out, tail| {
        for packet in accepted {
            push(out, tail, &Body::Again(packet));
        }
        let Now { running_ms, wall_ms } = now;
        push(out, tail, &Body::Watermark(Watermark { synced: tail.position(), running_ms, wall_ms }));
    })?;
    Ok(Writer::new(journal, file, tail, first))
}

/// Gives the space of the zeros at the end of a closed segment back, which a kill would cost otherwise: the file reads
/// as before. What stands between its end and the zeros is a torn tail; it counts for nothing, and is left for whoever
/// wants to know what was cut. Where the file system cannot do it, the space stays taken.
pub(crate) fn release_rest<D: Disk>(disk: &D, end: Position, segment_bytes: u32) {
    if end.segment == 0 {
        return;
    }
    let released = disk.open(&segment_path(end.segment)).and_then(|file| {
        let mut used = 0;
        let rest = segment_bytes.saturating_sub(end.offset);
        read_windows(&file, end.offset, rest, |at, window| used = at + used_bytes(window))?;
        let zeros_from = u64::from(end.offset).saturating_add(used as u64);
        let from = zeros_from.next_multiple_of(BLOCK_BYTES);
        match u64::from(segment_bytes).saturating_sub(from) {
            0 => Ok(()),
            bytes => file.release(from, bytes),
        }
    });
    if let Err(error) = released {
        tracing::debug!("the rest of a closed segment stays taken: {error}");
    }
}

pub(crate) fn push(out: &mut Vec<u8>, tail: &mut Tail, body: &Body<'_>) {
    let start = out.len();
    tail.previous_crc = encode(out, tail.salt, tail.next_lsn, tail.previous_crc, body);
    tail.next_lsn += 1;
    tail.offset += u32::try_from(out.len() - start).expect("a packet is bounded");
}

/// The tail of a segment without packets.
pub(crate) fn first_tail(header: &SegmentHeader) -> Tail {
    Tail {
        segment: header.number,
        salt: header.salt,
        offset: SEGMENT_HEADER_BYTES,
        next_lsn: header.first_lsn,
        previous_crc: header.previous_crc,
    }
}

fn start_of(header: &SegmentHeader) -> Position {
    first_tail(header).position()
}

fn read<D: Disk>(disk: &D, number: u32, bytes: u32) -> Result<Vec<u8>, OpenError> {
    let mut buffer = vec![0; offset(bytes)];
    read_windows(&disk.open(&segment_path(number))?, 0, bytes, |at, window| {
        buffer[at..at + window.len()].copy_from_slice(window);
    })?;
    Ok(buffer)
}

/// Reads a part of a segment, and gives each window of it that is not all zeros, with its place in the part: a segment
/// is mostly zeros, and the pages of a buffer that none are copied into take no memory.
fn read_windows<F: DiskFile>(
    file: &F,
    from: u32,
    bytes: u32,
    mut take: impl FnMut(usize, &[u8]),
) -> Result<(), DiskError> {
    const WINDOW: usize = 256 * 1024;
    let mut window = vec![0; WINDOW.min(offset(bytes))];
    for at in (0..offset(bytes)).step_by(WINDOW) {
        let window = &mut window[..WINDOW.min(offset(bytes) - at)];
        file.read_at(u64::from(from) + at as u64, window)?;
        if used_bytes(window) > 0 {
            take(at, window);
        }
    }
    Ok(())
}

fn all_zero(bytes: &[u8], from: u32) -> bool {
    used_bytes(bytes) <= offset(from)
}

/// The length without the zeros at the end. In blocks, because a segment is mostly zeros and a start waits for this.
pub(crate) fn used_bytes(bytes: &[u8]) -> usize {
    const BLOCK: usize = 4096;
    let is_used = |block: &[u8]| block.iter().fold(0, |all, byte| all | byte) != 0;
    let Some(last) = bytes.chunks(BLOCK).rposition(is_used) else { return 0 };
    let start = last * BLOCK;
    let block = bytes.get(start..bytes.len().min(start + BLOCK)).unwrap_or_default();
    start + block.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)
}

fn offset(offset: u32) -> usize {
    usize::try_from(offset).expect("32 bits fit an address")
}

fn missing(number: u32) -> OpenError {
    corrupt(number, 0, "the segment is missing")
}

fn corrupt(number: u32, offset: u32, reason: &str) -> OpenError {
    OpenError::Corrupt { file: segment_path(number), offset: u64::from(offset), reason: reason.to_owned() }
}
