//! What a device of the simulator is, and what services and operators are told beside what users are.

use super::device::Device;
use super::truth::Truth;
use crate::ids::{GroupId, UserId};
use crate::wire::Reply;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// A user's that keeps what it was told.
    Keeps,
    /// A user's that goes by the marks of its user.
    Marks,
    /// A service: acts for users, and hears the feed.
    Service,
    /// An operator: looks, and cuts off.
    Operator,
}

impl Manner {
    /// What its token begins with.
    pub(super) fn role(self) -> &'static str {
        match self {
            Self::Keeps | Self::Marks => "user",
            Self::Service => "service",
            Self::Operator => "operator",
        }
    }
}

/// How far the feed was told, and what an operator has cut off.
#[derive(Default)]
pub(super) struct Duties {
    /// Nothing before it has begun.
    pub(super) feed: Option<u64>,
    /// Connections that the users had who are to be cut off, for each kick without an answer; in the order of asking.
    pub(super) kicking: Vec<Vec<usize>>,
    /// Connections that must be closed.
    pub(super) kicked: Vec<usize>,
}

impl Duties {
    /// The next item of the feed: every entry comes, once, in one order.
    pub(super) fn take_item(&mut self, position: u64, group: GroupId, seq: u64, truth: &Truth) {
        if let Some(told) = self.feed {
            assert_eq!(
                truth.effect_behind(told),
                Some((position, group, seq)),
                "the feed has every entry, once, in order"
            );
        }
        self.feed = Some(position);
    }

    pub(super) fn take_answer(&mut self, reply: &Reply) {
        match reply {
            Reply::FeedBegun { position } => _ = self.feed.get_or_insert(*position),
            Reply::KickDone { .. } if !self.kicking.is_empty() => self.kicked.extend(self.kicking.remove(0)),
            _ => {}
        }
    }
}

/// Those without a live connection are named, and nobody else.
pub(super) fn check_offline(group: GroupId, seq: u64, offline: &[UserId], truth: &Truth) {
    let kept = truth.group(group);
    for user in offline {
        assert!(kept.was_member(user, seq), "the feed names {user}, who was not in {group} at {seq}");
    }
}

impl Device {
    /// Everything has come to rest: what services and operators have to see.
    pub(super) fn check_duties(&self, truth: &Truth, lines: &[usize]) {
        if self.manner() == Manner::Service
            && let Some(told) = self.duties.feed
        {
            assert_eq!(truth.effect_behind(told), None, "the feed has reached the end");
        }
        let alive = self.duties.kicked.iter().find(|line| lines.contains(line));
        assert_eq!(alive, None, "who is cut off is cut off");
    }
}
