//! How many groups a user may be in.

use std::collections::BTreeMap;

use crate::ids::UserId;
use crate::limits::GROUPS_PER_USER_DEFAULT;

/// In how many groups users may be; some may be in more (a support bot), or in fewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupQuota {
    /// For every user who is not named.
    pub groups_max: u32,
    /// For those who are.
    pub groups_max_of: BTreeMap<UserId, u32>,
}

impl Default for GroupQuota {
    fn default() -> Self {
        Self { groups_max: GROUPS_PER_USER_DEFAULT, groups_max_of: BTreeMap::new() }
    }
}

impl GroupQuota {
    /// In how many groups a user may be.
    pub fn of(&self, user: &UserId) -> u32 {
        self.groups_max_of.get(user).copied().unwrap_or(self.groups_max)
    }
}
