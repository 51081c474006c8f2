//! The streaming frame decoder: however a stream is cut, the same frames come out of it, and the same end.
//!
//! ```text
//! u8   bits 0 and 1: whose caps; bit 2: frames are put right
//! u8   the lengths of chunks: how many bytes of the next field
//! …    lengths of chunks in turn, one byte each
//! …    the stream
//! ```
//!
//! A frame is put right by its magic, its version, a length that its bytes have, and both CRCs, unless its flags have
//! the highest bit set: so a stream can go on behind whole frames and end in a bad one.

use crate::limits::HEADER_BYTES;
use crate::wire::{Deframer, FrameCaps, FrameError, Header, MAGIC, VERSION};

/// A frame that came out, and how the stream ended.
type Frames = (Vec<(Header, Vec<u8>)>, Option<FrameError>);

/// Any chunks of a stream give what one chunk gives, and what a reader gives that is written plainly.
pub fn frames(data: &[u8]) {
    let Some((control, rest)) = data.split_first_chunk::<2>() else { return };
    let [modes, count] = *control;
    let (chunks, stream) = rest.split_at(usize::from(count).min(rest.len()));
    let caps = match modes & 3 {
        0 => FrameCaps::Unauthenticated,
        1 => FrameCaps::Client,
        _ => FrameCaps::Server,
    };
    let mut stream = stream.to_vec();
    if modes & 4 != 0 {
        put_right(&mut stream);
    }
    let plain = plainly(&stream, caps);
    assert_eq!(in_chunks(&stream, &[], caps), plain, "in one piece");
    assert_eq!(in_chunks(&stream, &[1], caps), plain, "byte by byte");
    assert_eq!(in_chunks(&stream, chunks, caps), plain, "in pieces of {chunks:?}");
}

/// Makes frames of a stream that is only nearly one.
pub(crate) fn put_right(stream: &mut [u8]) {
    let mut rest = stream;
    while rest.len() >= HEADER_BYTES {
        if rest[5] & 0x80 != 0 {
            return;
        }
        let room = rest.len() - HEADER_BYTES;
        let wanted = u32::from_be_bytes([rest[8], rest[9], rest[10], rest[11]]) as usize;
        // The last frame may say that it is longer than what is there: it is being awaited then.
        let body_bytes = if wanted > room && rest[8] < 0x80 { wanted % (room + 1) } else { wanted };
        let (head, behind) = rest.split_at_mut(HEADER_BYTES);
        head[..4].copy_from_slice(&MAGIC);
        head[4] = VERSION;
        head[8..12].copy_from_slice(&u32::try_from(body_bytes).unwrap_or(u32::MAX).to_be_bytes());
        if let Some(body) = behind.get(..body_bytes) {
            head[16..20].copy_from_slice(&crc32fast::hash(body).to_be_bytes());
        }
        let crc = crc32fast::hash(&head[..20]);
        head[20..].copy_from_slice(&crc.to_be_bytes());
        let Some((_, behind)) = behind.split_at_mut_checked(body_bytes) else { return };
        rest = behind;
    }
}

fn in_chunks(stream: &[u8], chunks: &[u8], caps: FrameCaps) -> Frames {
    let mut deframer = Deframer::default();
    let (mut frames, mut taken) = (Vec::new(), 0);
    let mut sizes = chunks.iter().map(|size| usize::from(*size).max(1)).cycle();
    let mut rest = stream;
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(sizes.next().unwrap_or(rest.len()).min(rest.len()));
        rest = behind;
        deframer.feed(chunk);
        loop {
            match deframer.next_frame(caps) {
                Ok(Some(frame)) => {
                    taken += HEADER_BYTES + frame.body.len();
                    frames.push((frame.header, frame.body.to_vec()));
                }
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        let waiting = stream.len() - rest.len() - taken;
        assert_eq!(deframer.buffered_bytes(), waiting, "what was fed is handed out or waits");
        // A vector that grows takes twice what it needs, and eight bytes at least.
        let held = deframer.capacity_bytes();
        assert!(held <= 2 * waiting.max(chunk.len()) + 8, "{held} bytes are held for {waiting}");
        assert!(waiting > 0 || held == 0, "an idle connection holds nothing");
    }
    (frames, None)
}

/// The frames of a stream that is there as a whole, by the table at the top of `wire/header.rs`.
fn plainly(stream: &[u8], caps: FrameCaps) -> Frames {
    let (mut frames, mut rest) = (Vec::new(), stream);
    loop {
        let magic = rest.len().min(MAGIC.len());
        if rest[..magic] != MAGIC[..magic] {
            return (frames, Some(FrameError::Magic));
        }
        let Some((head, behind)) = rest.split_at_checked(HEADER_BYTES) else { return (frames, None) };
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if crc32fast::hash(&head[..20]) != word(20) {
            return (frames, Some(FrameError::Crc));
        }
        if head[4] != VERSION {
            return (frames, Some(FrameError::Version));
        }
        let kind = u16::from_be_bytes([head[6], head[7]]);
        let (length, max) = (word(8) as usize, caps.frame_bytes_max(kind));
        if length + HEADER_BYTES > max {
            return (frames, Some(FrameError::TooLarge { max }));
        }
        let Some((body, behind)) = behind.split_at_checked(length) else { return (frames, None) };
        if crc32fast::hash(body) != word(16) {
            return (frames, Some(FrameError::Crc));
        }
        let header = Header { flags: head[5], kind, body_bytes: word(8), request_id: word(12), body_crc: word(16) };
        frames.push((header, body.to_vec()));
        rest = behind;
    }
}
