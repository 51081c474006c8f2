//! The quota of groups: nobody is put into more groups than it may be in, by whomever.
//!
//! Storage says who has reached its limit, as soon as the index has seen it; what is under way at that moment goes
//! through. So a group of any size is made without a look-up for each of its members.

use super::Hub;
use crate::group::Event;
use crate::ids::UserId;
use crate::wire::{ErrorBody, ErrorCode};

impl Hub {
    /// A user is in as many groups as it may be, or no longer.
    pub(super) fn note_full(&mut self, user: UserId, groups_max: Option<u32>) {
        match groups_max {
            Some(groups_max) => self.full.insert(user, groups_max),
            None => self.full.remove(&user),
        };
    }

    /// Why somebody may not join a group as an entry says; the one who stands first is named.
    pub(super) fn over_quota(&self, event: &Event) -> Option<ErrorBody> {
        if self.full.is_empty() {
            return None;
        }
        let (Event::Created { members, .. } | Event::Added { members }) = event else { return None };
        let (user, groups_max) = members.iter().find_map(|user| self.full.get_key_value(user))?;
        let message = format!("groups: {user:?} is in {groups_max}, and may not be in more");
        Some(ErrorBody::new(ErrorCode::Limit, u64::from(*groups_max), message))
    }
}
