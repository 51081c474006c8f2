//! What decoders do with frames that are not whole or not right: for every vector, every truncation, every flipped bit,
//! and a trailing byte.

use roundtable::limits::HEADER_BYTES;
use roundtable::wire::{Deframer, FrameCaps, FrameError, Header, Kind};

use crate::values::{self, Message};

const CAPS: [FrameCaps; 3] = [FrameCaps::Unauthenticated, FrameCaps::Client, FrameCaps::Server];

/// What a deframer makes of these bytes: the kind and the body of the first frame.
fn first_frame(bytes: &[u8], caps: FrameCaps) -> Result<Option<(u16, Vec<u8>)>, FrameError> {
    let mut deframer = Deframer::default();
    deframer.feed(bytes);
    Ok(deframer.next_frame(caps)?.map(|frame| (frame.header.kind, frame.body.to_vec())))
}

fn each_vector(mut test: impl FnMut(&str, &Message, &[u8])) {
    for (name, message) in values::all() {
        test(name, &message, &message.frame());
    }
}

#[test]
fn a_truncated_frame_is_awaited_and_never_handed_out() {
    each_vector(|name, _, frame| {
        for length in 0..frame.len() {
            for caps in CAPS {
                assert_eq!(first_frame(&frame[..length], caps), Ok(None), "{name} cut at {length}");
            }
        }
    });
}

#[test]
fn a_truncated_body_is_an_error() {
    each_vector(|name, message, frame| {
        let body = &frame[HEADER_BYTES..];
        for length in 0..body.len() {
            let result = Message::decode(message.kind(), &body[..length]);
            assert!(result.is_err(), "{name} cut at {length} gave {result:?}");
        }
    });
}

#[test]
fn every_flipped_bit_of_a_frame_is_refused() {
    each_vector(|name, _, frame| {
        for bit in 0..frame.len() * 8 {
            let expected = if bit < 4 * 8 { FrameError::Magic } else { FrameError::Crc };
            for caps in CAPS {
                assert_eq!(first_frame(&flipped(frame, bit), caps), Err(expected), "{name} with bit {bit} flipped");
            }
        }
    });
}

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

/// A peer that computes its CRCs over nonsense: decoders may refuse it or read some other value, which then reads
/// back as itself.
#[test]
fn a_flipped_bit_behind_a_right_crc_never_panics() {
    each_vector(|name, message, frame| {
        let body = &frame[HEADER_BYTES..];
        for bit in 0..body.len() * 8 {
            let mut sealed = frame[..HEADER_BYTES].to_vec();
            sealed.extend(flipped(body, bit));
            Header::seal(&mut sealed, 0, message.kind(), 0, message.request_id());
            let (kind, body) = first_frame(&sealed, FrameCaps::Server).expect("right CRCs").expect("a whole frame");
            assert_eq!(kind, message.kind().number());
            if let Ok(other) = Message::decode(message.kind(), &body) {
                let again = other.frame();
                assert_eq!(Message::decode(other.kind(), &again[HEADER_BYTES..]), Ok(other), "{name}, bit {bit}");
            }
        }
    });
}

/// Every body under every kind: a decoder of one kind meets the bytes of another.
#[test]
fn a_body_under_another_kind_never_panics() {
    each_vector(|_, _, frame| {
        for kind in Kind::ALL {
            let _ = Message::decode(*kind, &frame[HEADER_BYTES..]);
        }
    });
}

#[test]
fn bytes_behind_the_last_known_field_are_skipped() {
    each_vector(|name, message, frame| {
        for extra in [&[0x00][..], &[0xff], &[0x01; 64]] {
            let mut body = frame[HEADER_BYTES..].to_vec();
            body.extend_from_slice(extra);
            assert_eq!(Message::decode(message.kind(), &body).as_ref(), Ok(message), "{name}");
        }
    });
}

#[test]
fn a_stray_byte_behind_a_frame_is_an_error_of_the_next_one() {
    each_vector(|name, _, frame| {
        let mut bytes = frame.to_vec();
        bytes.push(0x00);
        let mut deframer = Deframer::default();
        deframer.feed(&bytes);
        let body = deframer.next_frame(FrameCaps::Server).expect("the frame itself is good").map(|frame| frame.body);
        assert_eq!(body, Some(&frame[HEADER_BYTES..]), "{name}");
        assert_eq!(deframer.next_frame(FrameCaps::Server), Err(FrameError::Magic), "{name}");
    });
}

#[test]
fn an_entry_of_a_kind_that_is_not_known_is_read_as_hidden() {
    let known = |name| values::all().into_iter().find(|(known, _)| *known == name).expect("a vector").1;
    let mut body = known("Entry/message").frame()[HEADER_BYTES..].to_vec();
    body[16] = 10;
    let Ok(Message::Push(roundtable::wire::Push::Entry { entry, .. })) = Message::decode(Kind::Entry, &body) else {
        panic!("an entry of a later version is no error");
    };
    assert_eq!(entry, roundtable::wire::LogEntry::Hidden { seq: 2, version: 1 });

    let Message::Reply(roundtable::wire::Reply::HistoryPage { groups }) = known("HistoryPage") else {
        panic!("the vector is a page");
    };
    let page = known("HistoryPage").frame();
    let body = &page[HEADER_BYTES..];
    let at = 4 + 16 + 1 + 8 + 8 + 4 + 4;
    assert_eq!(body[at], 8, "the first entry is a message");
    let mut later = body.to_vec();
    later[at] = 0xfe;
    let Ok(Message::Reply(roundtable::wire::Reply::HistoryPage { groups: read })) =
        Message::decode(Kind::HistoryPage, &later)
    else {
        panic!("a page with an entry of a later version is no error");
    };
    assert_eq!(read[1], groups[1], "what stands behind the entry is read");
}
