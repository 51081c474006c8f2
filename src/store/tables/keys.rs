//! The keys of the index: made of what they name, and read back.

use smallvec::SmallVec;

use crate::codec::{Reader, Writer};
use crate::ids::{GroupId, Principal, UserId};
use crate::store::record::{decode_principal, principal_parts};

/// A key of a value in memory. Trees of these are searched for most of what is folded: so the bytes stand in the tree, and
/// not behind a pointer, unless the name of a user is long.
pub(crate) type Key = SmallVec<[u8; 32]>;

fn key(table: u8, fields: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut key = vec![table];
    fields(&mut Writer::new(&mut key));
    key
}

/// The key of the applied LSN: the lowest of all, so that it is flushed last.
pub(crate) fn applied_key() -> Vec<u8> {
    vec![0x00]
}

/// The key of a group's changes that begin at a version.
pub(crate) fn changes_key(group: GroupId, first_version: u64) -> Vec<u8> {
    key(0x20, |writer| {
        writer.group(group);
        writer.u64(first_version);
    })
}

/// The key of a group's record.
pub(crate) fn group_key(group: GroupId) -> Vec<u8> {
    group_key_of(*group.as_bytes())
}

/// The same for any bytes: the ends of a scan.
pub(crate) fn group_key_of(group: [u8; 16]) -> Vec<u8> {
    key(0x10, |writer| writer.raw(&group))
}

/// The key of a group's state.
pub(crate) fn state_key(group: GroupId) -> Vec<u8> {
    state_key_of(*group.as_bytes())
}

/// The same for any bytes: the ends of a scan.
pub(crate) fn state_key_of(group: [u8; 16]) -> Vec<u8> {
    key(0x30, |writer| writer.raw(&group))
}

/// The group in a key of a group's state.
pub(crate) fn state_group(key: &[u8]) -> Option<GroupId> {
    GroupId::from_bytes(*key.last_chunk()?)
}

/// The key of the operations of a principal from an LSN on. Later ones stand lower.
pub(crate) fn operations_key(principal: &Principal, first_lsn: u64) -> Vec<u8> {
    let (kind, user) = principal_parts(principal);
    key(0x40, |writer| {
        writer.u8(kind);
        writer.user(user);
        writer.u64(!first_lsn);
    })
}

/// The key of the extents of a group that begin at `first_seq`.
pub(crate) fn extents_key(group: GroupId, first_seq: u64) -> Vec<u8> {
    key(0x50, |writer| {
        writer.group(group);
        writer.u64(first_seq);
    })
}

/// The seq in a key of extents.
pub(crate) fn extents_first(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|seq| u64::from_be_bytes(*seq))
}

/// The key of a user's memberships from a group on; all zeros is the first.
pub(crate) fn memberships_key(user: &UserId, first_group: [u8; 16]) -> Vec<u8> {
    key(0x60, |writer| {
        writer.user(user);
        writer.raw(&first_group);
    })
}

/// The lowest and the highest key of all memberships.
pub(crate) fn memberships_ends() -> (Vec<u8>, Vec<u8>) {
    (vec![0x60], vec![0x61])
}

/// The key of a membership that has ended.
pub(crate) fn former_key(group: GroupId, user: &UserId) -> Vec<u8> {
    key(0x58, |writer| {
        writer.group(group);
        writer.user(user);
    })
}

/// The key of the number of groups that a user is in.
pub(crate) fn crowd_key(user: &UserId) -> Vec<u8> {
    key(0x68, |writer| writer.user(user))
}

/// The user in such a key.
pub(crate) fn crowd_user(key: &[u8]) -> Option<UserId> {
    Reader::new(key.get(1..)?).user().ok()
}

/// The lowest and the highest of these keys.
pub(crate) fn crowd_ends() -> (Vec<u8>, Vec<u8>) {
    (vec![0x68], vec![0x69])
}

/// The lowest and the highest key of the former memberships of a group.
pub(crate) fn former_ends(group: GroupId) -> (Vec<u8>, Vec<u8>) {
    let end = |last: u8| {
        key(0x58, |writer| {
            writer.group(group);
            writer.u8(last);
        })
    };
    (end(0x00), end(0xff))
}

/// The lowest and the highest key of all former memberships.
pub(crate) fn former_table_ends() -> (Vec<u8>, Vec<u8>) {
    (vec![0x58], vec![0x59])
}

/// The group in a key of a former membership.
pub(crate) fn former_group(key: &[u8]) -> Option<GroupId> {
    GroupId::from_bytes(*key.get(1..)?.first_chunk()?)
}

/// The user in a key of a former membership.
pub(crate) fn former_user(key: &[u8]) -> Option<UserId> {
    Reader::new(key.get(17..)?).user().ok()
}

/// The group in a key of memberships.
pub(crate) fn memberships_first(key: &[u8]) -> Option<[u8; 16]> {
    key.last_chunk().copied()
}

/// The user in a key of memberships.
pub(crate) fn memberships_user(key: &[u8]) -> Option<UserId> {
    Reader::new(key.get(1..)?).user().ok()
}

/// The principal in a key of operations.
pub(crate) fn operations_principal(key: &[u8]) -> Option<Principal> {
    decode_principal(&mut Reader::new(key.get(1..)?)).ok()
}
