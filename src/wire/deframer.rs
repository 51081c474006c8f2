//! Cuts a stream of bytes into frames.
//!
//! Invariant: what is kept is the beginning of at most one frame plus bytes that arrived behind it, never more than
//! was fed; nothing is allocated by what a header announces. A length is looked at only after the header's own CRC was
//! right, and checked against the cap of its kind before a single byte of the body is awaited.

use super::header::{Header, HeaderError, Kind};
use crate::limits::{
    FRAME_BYTES_MAX, FRAME_BYTES_MAX_LIST, FRAME_BYTES_MAX_SERVER, FRAME_BYTES_MAX_UNAUTHENTICATED, HEADER_BYTES,
};

/// Which caps hold for the frames that come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameCaps {
    /// From a client that is not authenticated.
    Unauthenticated,
    /// From an authenticated client.
    Client,
    /// From a server.
    Server,
}

impl FrameCaps {
    /// The largest frame of a kind, header included.
    pub fn frame_bytes_max(self, kind: u16) -> usize {
        const LISTS: [Kind; 4] = [Kind::Create, Kind::Add, Kind::Remove, Kind::Attach];
        match self {
            Self::Unauthenticated => FRAME_BYTES_MAX_UNAUTHENTICATED,
            Self::Client if LISTS.iter().any(|list| list.number() == kind) => FRAME_BYTES_MAX_LIST,
            Self::Client => FRAME_BYTES_MAX,
            Self::Server => FRAME_BYTES_MAX_SERVER,
        }
    }
}

/// One whole frame: its header, and a body whose CRC was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The header.
    pub header: Header,
    /// The body.
    pub body: &'a [u8],
}

/// Why the stream cannot go on. There is no way to find the next frame behind one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Not this protocol: nothing is answered.
    Magic,
    /// A version that is not spoken here.
    Version,
    /// A header or a body that does not match its CRC.
    Crc,
    /// A frame over its cap.
    TooLarge {
        /// The cap, header included.
        max: usize,
    },
}

/// Collects bytes until they make a frame.
#[derive(Debug, Default)]
pub struct Deframer {
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that were handed out already.
    consumed: usize,
}

impl Deframer {
    /// Takes bytes as they came from the socket.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.consumed > 0 {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that wait for the rest of their frame, or to be asked for.
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len().saturating_sub(self.consumed)
    }

    /// Memory held, in bytes.
    pub fn capacity_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// The next whole frame, if one has arrived.
    pub fn next_frame(&mut self, caps: FrameCaps) -> Result<Option<Frame<'_>>, FrameError> {
        let rest = self.buffer.get(self.consumed..).unwrap_or_default();
        let Some((frame, length)) = split_frame(rest, caps)? else {
            self.release();
            return Ok(None);
        };
        let header = frame.header;
        let start = self.consumed.saturating_add(HEADER_BYTES);
        self.consumed = self.consumed.saturating_add(length);
        let body = self.buffer.get(start..self.consumed).unwrap_or_default();
        Ok(Some(Frame { header, body }))
    }

    /// Gives memory back: an idle connection holds no buffer, and the beginning of a frame holds no more than itself,
    /// whatever came before it.
    fn release(&mut self) {
        if self.consumed > 0 {
            self.buffer = self.buffer.get(self.consumed..).unwrap_or_default().to_vec();
            self.consumed = 0;
        }
    }
}

/// The frame at the front of `bytes` and its length, if it is whole.
fn split_frame(bytes: &[u8], caps: FrameCaps) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return check_magic(bytes).map(|()| None);
    };
    let header = Header::decode(header).map_err(|error| match error {
        HeaderError::Magic => FrameError::Magic,
        HeaderError::Version => FrameError::Version,
        HeaderError::Crc => FrameError::Crc,
    })?;
    let max = caps.frame_bytes_max(header.kind);
    let body_bytes = usize::try_from(header.body_bytes).map_err(|_| FrameError::TooLarge { max })?;
    let length = body_bytes.saturating_add(HEADER_BYTES);
    if length > max {
        return Err(FrameError::TooLarge { max });
    }
    let Some(body) = rest.get(..body_bytes) else { return Ok(None) };
    if crc32fast::hash(body) != header.body_crc {
        return Err(FrameError::Crc);
    }
    Ok(Some((Frame { header, body }, length)))
}

/// A stranger is sent away at its first wrong byte, not after 24 of them.
fn check_magic(bytes: &[u8]) -> Result<(), FrameError> {
    let wrong = bytes.iter().zip(super::MAGIC).any(|(byte, magic)| *byte != magic);
    if wrong { Err(FrameError::Magic) } else { Ok(()) }
}
