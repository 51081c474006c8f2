//! The output that waits on one connection.
//!
//! Invariant: `bytes` is the number of bytes that [`Outbox::chunks`] yields; an empty outbox holds no memory, and `rest`
//! has chunks only behind a `first`: most of the time one chunk is all that waits, and needs no queue.
//! Small frames are copied one behind the other into chunks, so that a turn's output is few pieces; large ones, and
//! those that very many get, are shared by reference among all connections that get them. A chunk begins at a frame, and
//! is given back once it is written whole: so what is held is what waits and less than one chunk more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::codec::Reader;
use crate::limits::{HEADER_BYTES, OUTPUT_PIECE_BYTES};

/// What a shared frame costs in each buffer that it waits in: the reference, in a queue that grows by doubling.
pub(super) const REFERENCE_BYTES: usize = 2 * size_of::<Chunk>();

/// A frame, or several, that several connections get, and how many of them still have to.
#[derive(Debug)]
pub(super) struct SharedFrame {
    bytes: Vec<u8>,
    holders: AtomicUsize,
}

impl SharedFrame {
    pub(super) fn new(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { bytes, holders: AtomicUsize::new(0) })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[derive(Debug)]
enum Chunk {
    Own(Vec<u8>),
    Shared(Arc<SharedFrame>),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(frame) => &frame.bytes,
        }
    }
}

/// The chunks behind the first, which few connections have.
#[derive(Debug, Default)]
struct Rest(VecDeque<Chunk>);

/// Output in the order in which it has to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    first: Option<Chunk>,
    rest: Option<Box<Rest>>,
    /// Bytes of the first chunk that were written already.
    written: usize,
    bytes: usize,
}

impl Outbox {
    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Lets `encode` append whole frames in place; returns how many bytes it appended.
    pub(super) fn append_with(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> usize {
        if !matches!(self.last_mut(), Some(Chunk::Own(tail)) if tail.len() < OUTPUT_PIECE_BYTES) {
            self.push(Chunk::Own(Vec::new()));
        }
        let Some(Chunk::Own(tail)) = self.last_mut() else { unreachable!("it was just pushed") };
        let before = tail.len();
        encode(tail);
        let appended = tail.len() - before;
        self.bytes += appended;
        appended
    }

    /// Appends a frame that others get too, without copying it. Returns how many bytes of memory that begins the need
    /// for: the frame counts with its first recipient, the reference with each.
    pub(super) fn append_shared(&mut self, frame: &Arc<SharedFrame>) -> usize {
        self.push(Chunk::Shared(frame.clone()));
        self.bytes += frame.bytes.len();
        let is_first = frame.holders.fetch_add(1, Ordering::Relaxed) == 0;
        REFERENCE_BYTES + if is_first { frame.bytes.len() } else { 0 }
    }

    /// What waits, in order.
    pub(super) fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let mut skip = self.written;
        self.queue().map(move |chunk| &chunk.bytes()[std::mem::take(&mut skip)..]).filter(|rest| !rest.is_empty())
    }

    /// Forgets the first `count` bytes, which were written. Returns how many bytes of memory that ends the need for:
    /// a shared frame counts when its last recipient has it.
    pub(super) fn consume(&mut self, count: usize) -> usize {
        assert!(count <= self.bytes, "no more can be written than waits");
        self.bytes -= count;
        let mut left = count;
        let mut freed = 0;
        while let Some(first) = &self.first {
            let rest = first.bytes().len() - self.written;
            if left < rest {
                break;
            }
            left -= rest;
            self.written = 0;
            freed += freed_by(first);
            self.first = self.rest.as_mut().and_then(|rest| rest.0.pop_front());
        }
        self.written += left;
        if self.bytes == 0 {
            *self = Self::default();
        }
        freed
    }

    /// Forgets everything behind the frame, or the shared frames, that were begun to be written, so that what is
    /// appended next can be read.
    /// Returns how many bytes of memory that ends the need for.
    pub(super) fn cut(&mut self) -> usize {
        if self.written == 0 {
            return self.clear();
        }
        let mut freed: usize = self.rest.take().iter().flat_map(|rest| &rest.0).map(freed_by).sum();
        if let Some(Chunk::Own(first)) = &mut self.first {
            let mut end = 0;
            while end < self.written {
                let body_bytes = Reader::new(&first[end + 8..]).u32().expect("a chunk is made of whole frames");
                end += HEADER_BYTES + usize::try_from(body_bytes).expect("a frame fits memory");
            }
            freed += first.len() - end;
            first.truncate(end);
        }
        self.bytes = self.first.as_ref().map_or(0, |first| first.bytes().len()) - self.written;
        if self.bytes == 0 {
            freed += self.consume(0);
        }
        freed
    }

    /// Forgets everything. Returns what [`Outbox::consume`] would.
    pub(super) fn clear(&mut self) -> usize {
        self.consume(self.bytes)
    }

    fn push(&mut self, chunk: Chunk) {
        if self.first.is_none() {
            self.first = Some(chunk);
        } else {
            self.rest.get_or_insert_default().0.push_back(chunk);
        }
    }

    fn last_mut(&mut self) -> Option<&mut Chunk> {
        self.rest.as_mut().and_then(|rest| rest.0.back_mut()).or(self.first.as_mut())
    }

    fn queue(&self) -> impl Iterator<Item = &Chunk> {
        self.first.iter().chain(self.rest.iter().flat_map(|rest| &rest.0))
    }

    /// Asserts the invariant. Returns the bytes of memory of its own frames, and notes the shared ones by address.
    #[cfg(any(test, feature = "fuzzing", feature = "sim"))]
    pub(super) fn check_invariants(&self, shared: &mut std::collections::BTreeSet<(usize, usize)>) -> usize {
        assert_eq!(self.bytes, self.chunks().map(<[u8]>::len).sum::<usize>());
        assert!(self.bytes > 0 || self.first.is_none(), "an empty outbox holds no memory");
        assert!(self.first.is_some() || self.rest.is_none(), "nothing stands behind nothing");
        let own = |chunk: &Chunk| match chunk {
            Chunk::Own(bytes) => bytes.len(),
            Chunk::Shared(frame) => {
                shared.insert((frame.bytes.as_ptr().addr(), frame.bytes.len()));
                REFERENCE_BYTES
            }
        };
        self.queue().map(own).sum()
    }
}

fn freed_by(chunk: &Chunk) -> usize {
    match chunk {
        Chunk::Own(bytes) => bytes.len(),
        Chunk::Shared(frame) => {
            let is_last = frame.holders.fetch_sub(1, Ordering::Relaxed) == 1;
            REFERENCE_BYTES + if is_last { frame.bytes.len() } else { 0 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(outbox: &Outbox) -> Vec<u8> {
        outbox.chunks().flatten().copied().collect()
    }

    #[test]
    fn bytes_leave_in_the_order_in_which_they_came_whatever_a_write_takes() {
        let shared = SharedFrame::new(b"SHARED".to_vec());
        for step in 1..12 {
            let mut outbox = Outbox::default();
            outbox.append_with(|out| out.extend_from_slice(b"ab"));
            outbox.append_shared(&shared);
            outbox.append_with(|out| out.extend_from_slice(b"cd"));
            outbox.append_with(|out| out.extend_from_slice(b"ef"));
            let mut seen = Vec::new();
            while !outbox.is_empty() {
                let waiting = content(&outbox);
                assert_eq!(waiting.len(), outbox.bytes());
                let count = step.min(waiting.len());
                seen.extend_from_slice(&waiting[..count]);
                outbox.consume(count);
            }
            assert_eq!(seen, b"abSHAREDcdef");
            assert!(outbox.first.is_none() && outbox.rest.is_none(), "an empty outbox holds no memory");
        }
    }

    #[test]
    fn a_shared_frame_is_freed_by_its_last_recipient() {
        let shared = SharedFrame::new(b"SHARED".to_vec());
        let (mut first, mut second) = (Outbox::default(), Outbox::default());
        assert_eq!(first.append_shared(&shared), REFERENCE_BYTES + 6);
        assert_eq!(second.append_shared(&shared), REFERENCE_BYTES);
        assert_eq!(first.consume(6), REFERENCE_BYTES);
        assert_eq!(second.clear(), REFERENCE_BYTES + 6);
    }

    #[test]
    fn an_outbox_that_is_never_quite_empty_holds_little_more_than_what_waits() {
        let mut outbox = Outbox::default();
        let frame = [7; 1_000];
        let mut held = outbox.append_with(|out| out.extend_from_slice(&frame));
        for _ in 0..10_000 {
            held += outbox.append_with(|out| out.extend_from_slice(&frame));
            held -= outbox.consume(1_000);
            assert!(held <= outbox.bytes() + OUTPUT_PIECE_BYTES + 1_000);
        }
        held -= outbox.clear();
        assert_eq!(held, 0, "what was taken is given back");
    }

    #[test]
    fn a_cut_leaves_the_frame_that_was_begun_and_nothing_behind_it() {
        let mut frames = Vec::new();
        for number in 1..=3_u32 {
            crate::wire::Request::Ping.encode_frame(&mut frames, number);
            crate::wire::encode_frame(&mut frames, crate::wire::Kind::Send, 0, number, |writer| writer.bytes(b"body"));
        }
        let ends = [0, 24, 56, 80, 112, 136, 168];
        for written in 0..frames.len() {
            let mut outbox = Outbox::default();
            let mut held = outbox.append_with(|out| out.extend_from_slice(&frames));
            held += outbox.append_shared(&SharedFrame::new(b"SHARED".to_vec()));
            held -= outbox.consume(written);
            held -= outbox.cut();
            let end = ends.into_iter().find(|end| *end >= written).unwrap();
            assert_eq!(content(&outbox), frames[written..end]);
            held -= outbox.clear();
            assert_eq!(held, 0);
        }
    }
}
