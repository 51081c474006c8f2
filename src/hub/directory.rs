//! Who is on line: the attached connections of each user.

use std::collections::HashMap;

use ahash::RandomState;

use super::connection::ConnectionKey;
use crate::ids::UserId;

/// The connections of one user: mostly one, which takes no memory of its own.
#[derive(Debug)]
enum Keys {
    One(ConnectionKey),
    Many(Box<[ConnectionKey]>),
}

impl Keys {
    fn as_slice(&self) -> &[ConnectionKey] {
        match self {
            Self::One(key) => std::slice::from_ref(key),
            Self::Many(keys) => keys,
        }
    }
}

/// The connections of each user that are on line, or on their way there, oldest first.
#[derive(Debug)]
pub(super) struct Directory {
    users: HashMap<UserId, Keys, RandomState>,
}

impl Directory {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self { users: HashMap::with_hasher(hasher) }
    }

    pub(super) fn insert(&mut self, user: &UserId, key: ConnectionKey) {
        let Some(keys) = self.users.get_mut(user) else {
            self.users.insert(user.clone(), Keys::One(key));
            return;
        };
        *keys = Keys::Many(keys.as_slice().iter().copied().chain([key]).collect());
    }

    pub(super) fn remove(&mut self, user: &UserId, key: ConnectionKey) {
        if let Some(keys) = self.users.get_mut(user) {
            let left: Box<[_]> = keys.as_slice().iter().copied().filter(|other| *other != key).collect();
            match left[..] {
                [] => _ = self.users.remove(user),
                [one] => *keys = Keys::One(one),
                _ => *keys = Keys::Many(left),
            }
        }
    }

    /// The connections of a user, oldest first.
    pub(super) fn connections(&self, user: &UserId) -> &[ConnectionKey] {
        self.users.get(user).map_or(&[], Keys::as_slice)
    }

    /// Users on line.
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }
}
