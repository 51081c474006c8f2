//! Who is on line: the attached connections of each user.

use std::collections::HashMap;

use ahash::RandomState;

use super::connection::ConnectionKey;
use crate::ids::UserId;

/// The connections of each user that are on line, or on their way there, oldest first.
#[derive(Debug)]
pub(super) struct Directory {
    users: HashMap<UserId, Vec<ConnectionKey>, RandomState>,
}

impl Directory {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self { users: HashMap::with_hasher(hasher) }
    }

    pub(super) fn insert(&mut self, user: &UserId, key: ConnectionKey) {
        self.users.entry(user.clone()).or_default().push(key);
    }

    pub(super) fn remove(&mut self, user: &UserId, key: ConnectionKey) {
        if let Some(keys) = self.users.get_mut(user) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.users.remove(user);
            }
        }
    }

    /// The connections of a user, oldest first.
    pub(super) fn connections(&self, user: &UserId) -> &[ConnectionKey] {
        self.users.get(user).map_or(&[], Vec::as_slice)
    }

    /// Users on line.
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }
}
