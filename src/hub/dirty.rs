//! Connections with output, in the order in which they are to be written.
//!
//! Those that a frame for very many has made dirty, the *crowd*, stand in a queue of their own, and the two have their
//! turns one by one. So who gets something in a small group waits for about as many writes as others like him are
//! before him, not for all members of a large group; and the crowd waits at most twice as long.

use std::collections::VecDeque;

use super::connection::ConnectionKey;

/// How many get what made a connection dirty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Company {
    Few,
    Crowd,
}

/// The queues, each in the order of coming.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    few: VecDeque<ConnectionKey>,
    crowd: VecDeque<ConnectionKey>,
    /// Whether the turn is the crowd's.
    is_crowds_turn: bool,
}

/// Connections in each of the queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lengths {
    few: usize,
    crowd: usize,
}

impl Lengths {
    /// One less in a queue.
    pub(super) fn count(&mut self, company: Company) {
        let left = match company {
            Company::Few => &mut self.few,
            Company::Crowd => &mut self.crowd,
        };
        *left = left.saturating_sub(1);
    }

    pub(super) fn is_zero(self) -> bool {
        self == Self::default()
    }
}

impl Dirty {
    /// Puts a connection behind those that came in the same company. It must not be in here.
    pub(super) fn push(&mut self, key: ConnectionKey, company: Company) {
        self.queue(company).push_back(key);
    }

    /// The next one, and where it stood.
    pub(super) fn pop(&mut self) -> Option<(ConnectionKey, Company)> {
        let is_crowds = self.few.is_empty() || (self.is_crowds_turn && !self.crowd.is_empty());
        let company = if is_crowds { Company::Crowd } else { Company::Few };
        self.is_crowds_turn = !is_crowds;
        let key = self.queue(company).pop_front()?;
        Some((key, company))
    }

    fn queue(&mut self, company: Company) -> &mut VecDeque<ConnectionKey> {
        match company {
            Company::Few => &mut self.few,
            Company::Crowd => &mut self.crowd,
        }
    }

    pub(super) fn lengths(&self) -> Lengths {
        Lengths { few: self.few.len(), crowd: self.crowd.len() }
    }

    pub(super) fn len(&self) -> usize {
        self.few.len() + self.crowd.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.few.is_empty() && self.crowd.is_empty()
    }

    /// How often a connection is in here.
    #[cfg(any(test, feature = "fuzzing", feature = "sim"))]
    pub(super) fn times(&self, key: ConnectionKey) -> usize {
        self.few.iter().chain(&self.crowd).filter(|other| **other == key).count()
    }
}
