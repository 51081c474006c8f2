//! Fan-out: one encoded frame into the buffer of each of many connections.
//!
//! Frames that go to the same connections one after the other are gathered first, a *burst*, and put into the buffers
//! together: then what a connection costs is paid once a burst, and it writes one piece instead of many. A burst lasts
//! within one input to the hub, and whatever else goes to one of its connections has the burst so far go before it: so
//! nobody sees a difference but the speed.

use std::sync::Arc;

use super::Hub;
use super::connection::ConnectionKey;
use super::outbox::SharedFrame;
use crate::limits::{BURST_BYTES_MAX, FRAME_BYTES_COPIED_MAX, OUTPUT_BYTES_SOFT, RECIPIENTS_COPIED_MAX};

/// Connections that have a part of a burst before the others; with more, all are given it.
const AHEAD_MAX: usize = 64;

/// Frames that wait to be put into the buffers of the same connections.
#[derive(Debug)]
pub(super) struct Burst {
    takers: Vec<ConnectionKey>,
    frames: Vec<u8>,
    /// Takers that have this many bytes of it already.
    ahead: Vec<(ConnectionKey, usize)>,
}

impl Hub {
    /// Writes one encoded frame into the buffer of each connection, before this input ends.
    pub(super) fn fan_out(&mut self, takers: &[ConnectionKey], frame: Vec<u8>) {
        if takers.is_empty() {
            return;
        }
        self.releases.spend(frame.len(), takers.len());
        if let Some(burst) = &mut self.burst
            && burst.takers == takers
            && burst.frames.len() + frame.len() <= BURST_BYTES_MAX
        {
            return burst.frames.extend_from_slice(&frame);
        }
        self.end_burst();
        self.burst = Some(Burst { takers: takers.to_vec(), frames: frame, ahead: Vec::new() });
    }

    /// Puts what was gathered into the buffers.
    pub(super) fn end_burst(&mut self) {
        let Some(Burst { takers, frames, ahead }) = self.burst.take() else { return };
        if frames.len() <= FRAME_BYTES_COPIED_MAX && takers.len() <= RECIPIENTS_COPIED_MAX {
            for key in takers {
                self.append_rest(key, &frames, given(&ahead, key));
            }
            return;
        }
        let shared = SharedFrame::new(frames);
        for key in takers {
            match given(&ahead, key) {
                0 => self.append_shared(key, &shared),
                given => self.append_rest(key, shared.bytes(), given),
            }
        }
    }

    /// Before it is decided who of these is behind: what was gathered counts, where it makes a difference.
    pub(super) fn count_burst(&mut self, live: &[ConnectionKey]) {
        let Some(burst) = &self.burst else { return };
        let room = OUTPUT_BYTES_SOFT.saturating_sub(burst.frames.len());
        let is_near =
            |key: &ConnectionKey| self.connections.find(*key).is_some_and(|found| found.outbox.bytes() > room);
        if live.iter().any(is_near) {
            self.end_burst();
        }
    }

    /// Something else is about to be appended for a connection: what was gathered for it goes first.
    pub(super) fn catch_burst_up(&mut self, key: ConnectionKey) {
        let Some(mut burst) = self.burst.take_if(|burst| burst.takers.contains(&key)) else { return };
        self.append_rest(key, &burst.frames, given(&burst.ahead, key));
        burst.ahead.retain(|(ahead, _)| *ahead != key);
        burst.ahead.push((key, burst.frames.len()));
        let is_ragged = burst.ahead.len() > AHEAD_MAX;
        self.burst = Some(burst);
        if is_ragged {
            self.end_burst();
        }
    }

    fn append_rest(&mut self, key: ConnectionKey, frames: &[u8], given: usize) {
        if given < frames.len() {
            self.append(key, |out| out.extend_from_slice(&frames[given..]));
        }
    }

    /// Appends a frame without copying it. It counts once, as long as some connection has it.
    pub(super) fn append_shared(&mut self, key: ConnectionKey, frame: &Arc<SharedFrame>) {
        self.catch_burst_up(key);
        let Some(connection) = self.connections.find_mut(key) else { return };
        if connection.closing {
            return;
        }
        let before = connection.outbox.bytes();
        self.output_bytes += connection.outbox.append_shared(frame);
        self.after_append(key, before);
    }
}

/// How much of a burst a connection has.
fn given(ahead: &[(ConnectionKey, usize)], key: ConnectionKey) -> usize {
    ahead.iter().find(|(other, _)| *other == key).map_or(0, |(_, given)| *given)
}
