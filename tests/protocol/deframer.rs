//! The deframer: chunks, caps, strangers, memory.

use byteorder::{BigEndian, ByteOrder};
use proptest::collection::vec;
use proptest::prelude::*;
use roundtable::limits::{
    FRAME_BYTES_MAX, FRAME_BYTES_MAX_LIST, FRAME_BYTES_MAX_SERVER, FRAME_BYTES_MAX_UNAUTHENTICATED, HEADER_BYTES,
    READ_BYTES_PER_TURN,
};
use roundtable::wire::{Deframer, FrameCaps, FrameError, Header, Kind, MAGIC, encode_frame};

use crate::values;

fn frame(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_frame(&mut out, kind, 0, values::REQUEST_ID, |writer| writer.raw(body));
    out
}

/// A header with a right CRC that announces any length.
fn header(kind: u16, body_bytes: u32) -> Vec<u8> {
    let mut header = frame(Kind::Ping, &[]);
    BigEndian::write_u16(&mut header[6..8], kind);
    BigEndian::write_u32(&mut header[8..12], body_bytes);
    let crc = crc32fast::hash(&header[..20]);
    BigEndian::write_u32(&mut header[20..24], crc);
    header
}

/// All frames that come out when these bytes come in, in chunks of the given sizes.
fn frames_of(bytes: &[u8], chunks: &[usize]) -> Vec<(Header, Vec<u8>)> {
    let mut deframer = Deframer::default();
    let mut frames = Vec::new();
    let mut rest = bytes;
    let mut sizes = chunks.iter().cycle();
    while !rest.is_empty() {
        let size = sizes.next().map_or(rest.len(), |size| (*size).min(rest.len()));
        let (chunk, behind) = rest.split_at(size);
        rest = behind;
        deframer.feed(chunk);
        while let Some(frame) = deframer.next_frame(FrameCaps::Server).expect("good frames") {
            frames.push((frame.header, frame.body.to_vec()));
        }
    }
    assert_eq!((deframer.buffered_bytes(), deframer.capacity_bytes()), (0, 0), "nothing is kept");
    frames
}

proptest! {
    #[test]
    fn any_chunks_give_the_same_frames(
        bodies in vec(vec(any::<u8>(), 0..200), 1..20),
        chunks in vec(1_usize..300, 1..20),
    ) {
        let bytes: Vec<u8> = bodies.iter().flat_map(|body| frame(Kind::Send, body)).collect();
        let frames = frames_of(&bytes, &chunks);
        let read: Vec<Vec<u8>> = frames.iter().map(|(_, body)| body.clone()).collect();
        prop_assert_eq!(read, bodies);
        prop_assert!(frames.iter().all(|(header, _)| header.kind == Kind::Send.number()));
    }

    #[test]
    fn garbage_never_panics_and_is_kept_no_longer_than_it_is(bytes in vec(any::<u8>(), 0..300)) {
        for start in [&[][..], &MAGIC] {
            let mut deframer = Deframer::default();
            deframer.feed(start);
            deframer.feed(&bytes);
            prop_assert!(deframer.buffered_bytes() <= start.len() + bytes.len());
            prop_assert!(matches!(deframer.next_frame(FrameCaps::Unauthenticated), Err(_) | Ok(None)));
        }
    }
}

#[test]
fn all_vectors_in_one_stream_byte_by_byte() {
    let frames: Vec<Vec<u8>> = values::all().into_iter().map(|(_, message)| message.frame()).collect();
    let read = frames_of(&frames.concat(), &[1]);
    let bodies: Vec<&[u8]> = frames.iter().map(|frame| &frame[HEADER_BYTES..]).collect();
    assert_eq!(read.iter().map(|(_, body)| &body[..]).collect::<Vec<_>>(), bodies);
}

#[test]
fn caps_are_held_at_under_and_over() {
    let cases = [
        (FrameCaps::Unauthenticated, Kind::Hello, FRAME_BYTES_MAX_UNAUTHENTICATED),
        (FrameCaps::Unauthenticated, Kind::Create, FRAME_BYTES_MAX_UNAUTHENTICATED),
        (FrameCaps::Client, Kind::Send, FRAME_BYTES_MAX),
        (FrameCaps::Client, Kind::Create, FRAME_BYTES_MAX_LIST),
        (FrameCaps::Client, Kind::Add, FRAME_BYTES_MAX_LIST),
        (FrameCaps::Client, Kind::Remove, FRAME_BYTES_MAX_LIST),
        (FrameCaps::Client, Kind::Attach, FRAME_BYTES_MAX_LIST),
        (FrameCaps::Server, Kind::GroupPacket, FRAME_BYTES_MAX_SERVER),
    ];
    for (caps, kind, max) in cases {
        for length in [max - 1, max] {
            let mut deframer = Deframer::default();
            deframer.feed(&frame(kind, &vec![0x5a; length - HEADER_BYTES]));
            let read = deframer.next_frame(caps).expect("within the cap").expect("whole");
            assert_eq!(read.body.len(), length - HEADER_BYTES);
        }
        let mut deframer = Deframer::default();
        let over = u32::try_from(max + 1 - HEADER_BYTES).expect("small");
        deframer.feed(&header(kind.number(), over));
        assert_eq!(deframer.next_frame(caps), Err(FrameError::TooLarge { max }), "at the header, before the body");
    }
}

#[test]
fn a_kind_that_is_not_known_has_the_ordinary_cap_and_comes_out() {
    let mut deframer = Deframer::default();
    deframer.feed(&header(0x3fff, 0));
    let read = deframer.next_frame(FrameCaps::Client).expect("a good header").expect("whole");
    assert_eq!(read.header.kind, 0x3fff);
    deframer.feed(&header(0x3fff, u32::try_from(FRAME_BYTES_MAX).expect("small")));
    assert_eq!(deframer.next_frame(FrameCaps::Client), Err(FrameError::TooLarge { max: FRAME_BYTES_MAX }));
}

#[test]
fn a_length_of_4_gib_is_refused_without_allocating() {
    for caps in [FrameCaps::Unauthenticated, FrameCaps::Client, FrameCaps::Server] {
        let mut deframer = Deframer::default();
        deframer.feed(&header(Kind::Create.number(), u32::MAX));
        assert!(matches!(deframer.next_frame(caps), Err(FrameError::TooLarge { .. })));
        assert!(deframer.capacity_bytes() <= 2 * HEADER_BYTES);
    }
}

#[test]
fn memory_follows_what_arrived_not_what_was_announced() {
    let mut deframer = Deframer::default();
    deframer.feed(&header(Kind::Create.number(), 1_000_000));
    assert_eq!(deframer.next_frame(FrameCaps::Client), Ok(None));
    assert!(deframer.capacity_bytes() <= 2 * HEADER_BYTES);
}

#[test]
fn a_stranger_is_refused_at_its_first_wrong_byte() {
    for right in 0..MAGIC.len() {
        let mut deframer = Deframer::default();
        deframer.feed(&MAGIC[..right]);
        assert_eq!(deframer.next_frame(FrameCaps::Unauthenticated), Ok(None));
        deframer.feed(&[!MAGIC[right]]);
        assert_eq!(deframer.next_frame(FrameCaps::Unauthenticated), Err(FrameError::Magic));
    }
    for stranger in [&b"GET / HTTP/1.1\r\n"[..], &[0x16, 0x03, 0x01, 0x02, 0x00]] {
        let mut deframer = Deframer::default();
        deframer.feed(stranger);
        assert_eq!(deframer.next_frame(FrameCaps::Unauthenticated), Err(FrameError::Magic));
    }
}

#[test]
fn another_version_is_told_apart_from_damage() {
    let mut other = frame(Kind::Ping, &[]);
    other[4] = 2;
    let damaged = other.clone();
    let crc = crc32fast::hash(&other[..20]);
    BigEndian::write_u32(&mut other[20..24], crc);
    for (bytes, expected) in [(other, FrameError::Version), (damaged, FrameError::Crc)] {
        let mut deframer = Deframer::default();
        deframer.feed(&bytes);
        assert_eq!(deframer.next_frame(FrameCaps::Unauthenticated), Err(expected));
    }
}

/// 16,384 connections that each hold one byte of an unfinished frame must not hold the buffers of what came before it.
#[test]
fn the_beginning_of_a_frame_does_not_hold_the_memory_of_those_before_it() {
    let mut bytes = frame(Kind::Send, &vec![0x5a; READ_BYTES_PER_TURN]);
    bytes.extend_from_slice(&MAGIC[..1]);
    let mut deframer = Deframer::default();
    deframer.feed(&bytes);
    assert!(deframer.next_frame(FrameCaps::Client).expect("good").is_some());
    assert_eq!(deframer.next_frame(FrameCaps::Client), Ok(None));
    assert_eq!(deframer.buffered_bytes(), 1);
    assert!(deframer.capacity_bytes() <= 64, "{} bytes are held for one", deframer.capacity_bytes());
}
