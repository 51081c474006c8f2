//! Fan-out: one encoded frame into the buffer of each of many connections.
//!
//! Frames that go to the same connections one after the other are gathered first, a *burst*, and put into the buffers
//! together: then what a connection costs is paid once a burst, and it writes one piece instead of many. A burst lasts
//! within one input to the hub, and whatever else goes to one of its connections has the burst so far go before it: so
//! nobody sees a difference but the speed. A burst that knows its [`Audience`] takes the next frame for that without
//! anybody looking at its connections.

use std::sync::Arc;

use super::Hub;
use super::connection::ConnectionKey;
use super::dirty::Company;
use super::outbox::SharedFrame;
use crate::ids::{GroupId, UserId};
use crate::limits::{
    BURST_BYTES_MAX, FRAME_BYTES_COPIED_MAX, OUTPUT_BYTES_SOFT, RECIPIENTS_COPIED_MAX, RECIPIENTS_FEW_MAX,
};

/// Connections that have a part of a burst before the others; with more, all are given it.
const AHEAD_MAX: usize = 64;

/// Who gets a frame: the connections on which a group is live and that keep up, but those of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Audience {
    pub(super) group: GroupId,
    pub(super) except: Option<UserId>,
}

/// Frames that wait to be put into the buffers of the same connections.
///
/// Invariant: `takers` are all of `audience`, as long as none of them is behind. What else could change who they are
/// ends the burst, or takes its audience away.
#[derive(Debug)]
pub(super) struct Burst {
    takers: Vec<ConnectionKey>,
    frames: Vec<u8>,
    /// Takers that have this many bytes of it already.
    ahead: Vec<(ConnectionKey, usize)>,
    audience: Option<Audience>,
    /// With more bytes of it one of those who have none of it yet is behind; known once it is asked for.
    bytes_max: Option<usize>,
}

impl Burst {
    fn has_room(&self, frame: &[u8]) -> bool {
        self.frames.len() + frame.len() <= BURST_BYTES_MAX
    }
}

impl Hub {
    /// Writes one encoded frame into the buffer of each connection, before this input ends. If they are an audience,
    /// all of it, the next frame for it need not look for them.
    pub(super) fn fan_out(&mut self, takers: &[ConnectionKey], frame: Vec<u8>, audience: Option<Audience>) {
        if takers.is_empty() {
            return;
        }
        self.releases.spend(frame.len(), takers.len());
        if let Some(burst) = &mut self.burst
            && burst.takers == takers
            && burst.has_room(&frame)
        {
            burst.frames.extend_from_slice(&frame);
            burst.audience = audience;
            return;
        }
        self.end_burst();
        let takers = takers.to_vec();
        self.burst = Some(Burst { takers, frames: frame, ahead: Vec::new(), audience, bytes_max: None });
    }

    /// Does the same with a frame for the audience of the last frame, if that is still known. Gives the number of
    /// connections.
    pub(super) fn fan_out_again(&mut self, audience: &Audience, frame: &[u8]) -> Option<usize> {
        let mut burst =
            self.burst.take_if(|burst| burst.audience.as_ref() == Some(audience) && burst.has_room(frame))?;
        let takers = burst.takers.len();
        let keeps_up = self.keeps_up(&mut burst);
        if keeps_up {
            #[cfg(any(test, feature = "fuzzing", feature = "sim"))]
            self.check_audience(&burst, audience);
            burst.frames.extend_from_slice(frame);
            self.releases.spend(frame.len(), takers);
        }
        self.burst = Some(burst);
        keeps_up.then_some(takers)
    }

    /// Somebody joins an audience, or leaves it.
    pub(super) fn forget_audience(&mut self) {
        if let Some(burst) = &mut self.burst {
            burst.audience = None;
        }
    }

    /// Whether no taker is behind by now. Those who got something else meanwhile are looked at each time.
    fn keeps_up(&self, burst: &mut Burst) -> bool {
        let bytes_max = burst.bytes_max.unwrap_or_else(|| {
            let longest = burst.takers.iter().map(|key| self.waiting(burst, *key)).max();
            OUTPUT_BYTES_SOFT.saturating_sub(longest.unwrap_or(0))
        });
        burst.bytes_max = Some(bytes_max);
        let is_behind = |key: ConnectionKey| self.waiting(burst, key) + burst.frames.len() > OUTPUT_BYTES_SOFT;
        burst.frames.len() <= bytes_max && !burst.ahead.iter().any(|(key, _)| is_behind(*key))
    }

    /// Bytes that wait for a taker, those of the burst apart.
    fn waiting(&self, burst: &Burst, key: ConnectionKey) -> usize {
        self.connections.find(key).map_or(0, |connection| connection.outbox.bytes()) - given(&burst.ahead, key)
    }

    /// Asserts the invariant.
    #[cfg(any(test, feature = "fuzzing", feature = "sim"))]
    fn check_audience(&self, burst: &Burst, audience: &Audience) {
        let takes = |key: &&ConnectionKey| {
            self.connections.find(**key).is_some_and(|connection| {
                let is_excepted = connection.session().map(|session| &session.user) == audience.except.as_ref();
                let waiting = connection.outbox.bytes() + burst.frames.len() - given(&burst.ahead, **key);
                !is_excepted && !connection.closing && waiting <= OUTPUT_BYTES_SOFT
            })
        };
        let group = self.groups.get(&audience.group).and_then(|slot| slot.group.as_ref());
        let takers: Vec<_> = group.map_or(&[][..], |group| &group.live).iter().filter(takes).copied().collect();
        assert_eq!(burst.takers, takers, "an audience that is known is the one that would be found");
    }

    /// Puts what was gathered into the buffers.
    pub(super) fn end_burst(&mut self) {
        let Some(Burst { takers, frames, ahead, .. }) = self.burst.take() else { return };
        if frames.len() <= FRAME_BYTES_COPIED_MAX && takers.len() <= RECIPIENTS_COPIED_MAX {
            for key in takers {
                self.append_rest(key, &frames, given(&ahead, key));
            }
            return;
        }
        let company = if takers.len() > RECIPIENTS_FEW_MAX { Company::Crowd } else { Company::Few };
        let shared = SharedFrame::new(frames);
        for key in takers {
            match given(&ahead, key) {
                0 => self.append_shared(key, &shared, company),
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
    pub(super) fn append_shared(&mut self, key: ConnectionKey, frame: &Arc<SharedFrame>, company: Company) {
        self.catch_burst_up(key);
        let Some(connection) = self.connections.find_mut(key) else { return };
        if connection.closing {
            return;
        }
        let before = connection.outbox.bytes();
        self.output_bytes += connection.outbox.append_shared(frame);
        self.after_append(key, before, company);
    }
}

/// How much of a burst a connection has.
fn given(ahead: &[(ConnectionKey, usize)], key: ConnectionKey) -> usize {
    ahead.iter().find(|(other, _)| *other == key).map_or(0, |(_, given)| *given)
}
