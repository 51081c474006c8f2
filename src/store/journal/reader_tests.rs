//! What a reader gives of a journal with small packets and with some larger than what it reads at once.

use super::reader::{ReadPacket, Stretch};
use super::recovery;
use super::segment::{SEGMENT_HEADER_BYTES, segment_path};
use super::tests::{effect, group, journal, message, user};
use super::writer::Journal;
use super::*;
use crate::group::Event;
use crate::store::Change;
use crate::store::disk::simulated::SimulatedDisk;

const SEGMENT_BYTES: u32 = 4 << 20;
const START: Position = Position { segment: 1, offset: SEGMENT_HEADER_BYTES };

/// A create of so many members, of 68 bytes each.
fn create(seq: u64, members: usize) -> Change {
    let members = (0..members).map(|number| user(&format!("{number:0>64}"))).collect();
    effect(group(2), seq, 1, "49", Event::Created { title: "all".into(), members })
}

/// Two segments; what was written, each behind its time.
struct Written {
    disk: SimulatedDisk,
    changes: Vec<Change>,
    placed: Vec<Placed>,
    ends: [Position; 2],
}

/// Small packets around some of 70 KB, of 350, and of 700, which is more than is read at once.
fn written() -> Written {
    let disk = SimulatedDisk::new();
    let of_this_size = || Journal { segment_bytes: SEGMENT_BYTES, ..journal(&disk) };
    recovery::create(&mut of_this_size()).unwrap();
    let mut writer = recovery::open(of_this_size(), None).unwrap().writer;
    let (mut changes, mut placed) = (Vec::new(), Vec::new());
    let mut ended = START;
    for round in 0_u64.. {
        let batch = match round % 8 {
            2 => vec![create(round, 1_000)],
            4 => vec![create(round, 5_000)],
            6 => vec![message(round, "before"), create(round, 10_000), message(round, "behind")],
            _ => (0..20).map(|number| message(round * 100 + number, "hello")).collect(),
        };
        let now = Now { running_ms: 1_000 * round, wall_ms: 7 };
        for one in writer.append_batch(&batch, now).unwrap() {
            if one.position.segment == 1 {
                ended = one.end();
            }
            placed.push(one);
        }
        changes.extend(batch);
        if writer.end().segment == 2 && round % 8 == 7 {
            break;
        }
    }
    Written { disk, changes, placed, ends: [ended, writer.end()] }
}

impl Written {
    fn reader(&self) -> JournalReader<SimulatedDisk> {
        JournalReader::new(self.disk.clone(), SEGMENT_BYTES)
    }

    /// What of these packets is a change stands in the journal as it was written, in its order.
    fn assert_changes(&self, packets: &[ReadPacket], range: std::ops::Range<usize>) {
        let is_change = |packet: &&ReadPacket| !matches!(packet.content, Content::Watermark(_));
        let found: Vec<_> = packets.iter().filter(is_change).collect();
        assert_eq!(found.iter().map(|packet| packet.placed).collect::<Vec<_>>(), self.placed[range.clone()]);
        for (packet, change) in found.iter().zip(&self.changes[range]) {
            match (&packet.content, change) {
                (Content::Effect(found), Change::Effect(written)) => assert_eq!(found, written),
                other => panic!("{other:?}"),
            }
        }
    }

    /// How many of the packets stand in the first segment.
    fn in_first(&self) -> usize {
        self.placed.iter().filter(|placed| placed.position.segment == 1).count()
    }
}

#[test]
fn each_packet_is_found_at_its_place_whatever_its_size() {
    let written = written();
    let mut reader = written.reader();
    for (number, placed) in written.placed.iter().enumerate() {
        let packet = reader.packet(placed.position).unwrap();
        written.assert_changes(&[packet], number..number + 1);
    }
    assert!(written.placed.iter().any(|placed| placed.bytes > 600_000), "some are larger than any window");
    let between = Position { offset: written.placed[0].position.offset + 8, ..written.placed[0].position };
    let error = reader.packet(between).unwrap_err().to_string();
    assert_eq!(error, format!("{} is damaged at offset {}: there is no whole packet", segment_path(1), between.offset));
}

#[test]
fn a_span_gives_its_whole_packets_and_passes_over_one_that_is_damaged() {
    let written = written();
    let (first, last) = (&written.placed[5], &written.placed[14]);
    let bytes = last.end().offset - first.position.offset;
    let packets = written.reader().span(first.position, bytes).unwrap();
    written.assert_changes(&packets, 5..15);
    let cut = written.reader().span(first.position, bytes - 1).unwrap();
    written.assert_changes(&cut, 5..14);
    let damaged = written.placed[9].position.offset as usize + 30;
    written.disk.tamper(&segment_path(1), |content| content[damaged] ^= 1);
    let packets = written.reader().span(first.position, bytes).unwrap();
    written.assert_changes(&packets[..4], 5..9);
    written.assert_changes(&packets[4..], 10..15);
}

#[test]
fn a_walk_gives_every_packet_with_the_time_of_its_batch() {
    let written = written();
    let mut reader = written.reader();
    let mut walked = Vec::new();
    for (number, end) in [(1, written.ends[0]), (2, written.ends[1])] {
        let mut walk = reader.begin_walk(number, end.offset).unwrap();
        let mut before = 0;
        loop {
            // What was read ahead makes no difference.
            let again = reader.walk_on(&mut walk.place());
            let next = reader.walk_on(&mut walk).unwrap();
            assert_eq!(again, Ok(next.clone()));
            let Some((packet, running_ms)) = next else { break };
            assert!(running_ms >= before && running_ms % 1_000 == 0, "{running_ms} behind {before}");
            before = running_ms;
            walked.push(packet);
        }
        assert!(before > 0, "time passed");
    }
    written.assert_changes(&walked, 0..written.placed.len());
}

#[test]
fn stretches_of_any_size_give_every_packet_once_and_go_on_in_the_next_segment() {
    let written = written();
    let to = written.ends[1];
    for bytes_max in [1, 100_000, 2_000_000, u32::MAX] {
        let mut reader = written.reader();
        let mut packets = Vec::new();
        let mut from = Position { segment: 1, offset: 0 };
        let mut count = 0;
        while from != to {
            let stretch = reader.stretch(from, to, bytes_max).unwrap();
            assert!(stretch.next > from, "it goes on");
            packets.extend(stretch.packets);
            from = stretch.next;
            count += 1;
        }
        written.assert_changes(&packets, 0..written.placed.len());
        assert!(bytes_max < u32::MAX || count == 2, "one for each segment");
        assert_eq!(reader.stretch(to, to, bytes_max), Ok(Stretch { packets: Vec::new(), next: to }));
    }
}

#[test]
fn damage_is_named_by_its_place_wherever_it_is() {
    let large = |written: &Written| written.placed.iter().position(|placed| placed.bytes > 300_000).unwrap();
    let places: [fn(&Written) -> usize; 2] = [large, |written| written.in_first() - 1];
    for place in places {
        let written = written();
        let damaged = written.placed[place(&written)];
        written.disk.tamper(&segment_path(1), |content| content[damaged.end().offset as usize - 20] ^= 1);
        let expected = format!("{} is damaged at offset {}: ", segment_path(1), damaged.position.offset);
        let mut reader = written.reader();
        let mut from = START;
        let error = loop {
            match reader.stretch(from, written.ends[1], 1) {
                Ok(stretch) => {
                    assert!(stretch.next > from, "it goes on");
                    from = stretch.next;
                }
                Err(error) => break error.to_string(),
            }
        };
        assert_eq!(error, expected.clone() + "there is no whole packet");
        let mut walk = reader.begin_walk(1, written.ends[0].offset).unwrap();
        let error = std::iter::repeat_with(|| reader.walk_on(&mut walk)).find_map(Result::err).unwrap().to_string();
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn first_lsns_are_those_of_the_segments() {
    let written = written();
    let mut reader = written.reader();
    assert_eq!(reader.first_lsn(1), Ok(Some(1)));
    let second = written.placed[written.in_first()];
    let first = reader.first_lsn(2).unwrap().unwrap();
    assert!((second.lsn - 1..=second.lsn).contains(&first), "a marker may come first");
    assert_eq!(reader.first_lsn(3), Ok(None));
}
