//! The output that waits on one connection.
//!
//! Invariant: `bytes` is the number of bytes that [`Outbox::chunks`] yields; an empty outbox holds no memory.
//! Small frames are copied one behind the other into one chunk, so that a turn's output is one piece; large ones are
//! shared by reference among all connections that get them.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::limits::HEADER_BYTES;

/// A chunk that has so many bytes takes no further frame. What was written of a chunk is freed with its last byte, so
/// this bounds what an outbox that never becomes empty holds beyond what waits.
const CHUNK_BYTES: usize = 16 * 1024;

#[derive(Debug)]
enum Chunk {
    Own(Vec<u8>),
    Shared(Arc<[u8]>),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// Output in the order in which it has to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    chunks: VecDeque<Chunk>,
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
        if !matches!(self.chunks.back(), Some(Chunk::Own(tail)) if tail.len() < CHUNK_BYTES) {
            self.chunks.push_back(Chunk::Own(Vec::new()));
        }
        let Some(Chunk::Own(tail)) = self.chunks.back_mut() else { unreachable!("it was just pushed") };
        let before = tail.len();
        encode(tail);
        let appended = tail.len() - before;
        self.bytes += appended;
        appended
    }

    /// Appends a frame that others get too, without copying it.
    pub(super) fn append_shared(&mut self, frame: &Arc<[u8]>) {
        self.chunks.push_back(Chunk::Shared(frame.clone()));
        self.bytes += frame.len();
    }

    /// What waits, in order.
    pub(super) fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let mut skip = self.written;
        self.chunks.iter().map(move |chunk| &chunk.bytes()[std::mem::take(&mut skip)..]).filter(|rest| !rest.is_empty())
    }

    /// Forgets the first `count` bytes, which were written. Returns how many bytes of memory that ends the need for:
    /// a shared frame counts when its last recipient has it.
    pub(super) fn consume(&mut self, count: usize) -> usize {
        assert!(count <= self.bytes, "no more can be written than waits");
        self.bytes -= count;
        let mut left = count;
        let mut freed = 0;
        while let Some(first) = self.chunks.front() {
            let rest = first.bytes().len() - self.written;
            if left < rest {
                break;
            }
            left -= rest;
            self.written = 0;
            freed += self.chunks.pop_front().map_or(0, |chunk| freed_by(&chunk));
        }
        self.written += left;
        if self.bytes == 0 {
            *self = Self::default();
        }
        freed
    }

    /// Forgets everything. Returns what [`Outbox::consume`] would.
    pub(super) fn clear(&mut self) -> usize {
        self.consume(self.bytes)
    }

    /// Forgets everything but the rest of the frame that was begun: behind a part of one no other could be read.
    /// Returns what [`Outbox::consume`] would.
    pub(super) fn clear_unbegun(&mut self) -> usize {
        if self.written == 0 {
            return self.clear();
        }
        let Some(mut begun) = self.chunks.pop_front() else { unreachable!("what was begun is there") };
        let kept = match &mut begun {
            Chunk::Shared(frame) => frame.len(),
            Chunk::Own(frames) => {
                let mut end = 0;
                while end < self.written {
                    let length = frames[end + 8..end + 12].try_into().map(u32::from_be_bytes);
                    end += HEADER_BYTES + length.map_or(0, |length| length as usize);
                }
                end
            }
        };
        let mut freed = begun.bytes().len() - kept;
        if let Chunk::Own(frames) = &mut begun {
            frames.truncate(kept);
        }
        freed += self.chunks.drain(..).map(|chunk| freed_by(&chunk)).sum::<usize>();
        self.bytes = kept - self.written;
        self.chunks.push_front(begun);
        if self.bytes == 0 {
            freed += self.chunks.pop_front().map_or(0, |chunk| freed_by(&chunk));
            *self = Self::default();
        }
        freed
    }

    /// Asserts the invariant. Returns the bytes of memory of its own frames, and notes the shared ones by address.
    #[cfg(test)]
    pub(super) fn check_invariants(&self, shared: &mut std::collections::BTreeSet<(usize, usize)>) -> usize {
        assert_eq!(self.bytes, self.chunks().map(<[u8]>::len).sum::<usize>());
        assert!(self.bytes > 0 || self.chunks.is_empty(), "an empty outbox holds no memory");
        let own = |chunk: &Chunk| match chunk {
            Chunk::Own(bytes) => bytes.len(),
            Chunk::Shared(frame) => {
                shared.insert((frame.as_ptr().addr(), frame.len()));
                0
            }
        };
        self.chunks.iter().map(own).sum()
    }
}

fn freed_by(chunk: &Chunk) -> usize {
    match chunk {
        Chunk::Own(bytes) => bytes.len(),
        Chunk::Shared(frame) if Arc::strong_count(frame) == 1 => frame.len(),
        Chunk::Shared(_) => 0,
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
        let shared: Arc<[u8]> = Arc::from(&b"SHARED"[..]);
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
            assert!(outbox.chunks.is_empty(), "an empty outbox holds no memory");
        }
    }

    #[test]
    fn a_shared_frame_is_freed_by_its_last_recipient() {
        let shared: Arc<[u8]> = Arc::from(&b"SHARED"[..]);
        let (mut first, mut second) = (Outbox::default(), Outbox::default());
        first.append_shared(&shared);
        second.append_shared(&shared);
        drop(shared);
        assert_eq!(first.consume(6), 0);
        assert_eq!(second.clear(), 6);
    }
}
