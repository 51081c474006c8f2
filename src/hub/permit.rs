//! Who may ask what, by the role of its token; what a user may do in a group is decided by the rules of groups.

use crate::ids::{Openness, Role};
use crate::wire::Kind;

/// What configuration decides about requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Who may make groups.
    pub create: Openness,
    /// Who may add members.
    pub add: Openness,
}

/// The sorts of requests, by whom they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// About the connection itself: anybody.
    Connection,
    /// About a device that goes on line: users.
    Device,
    /// In groups: users, and services for a user.
    User,
    /// Services.
    Service,
    /// Operators.
    Operator,
}

/// The sort of a request; `None` for what is no request, and for those that need no authentication.
pub(super) fn sort_of(kind: Kind) -> Option<Sort> {
    Some(match kind {
        Kind::Authenticate => Sort::Connection,
        Kind::Attach => Sort::Device,
        Kind::Create
        | Kind::Add
        | Kind::Remove
        | Kind::Leave
        | Kind::Rename
        | Kind::Transfer
        | Kind::Dissolve
        | Kind::Send
        | Kind::Whisper
        | Kind::Signal
        | Kind::Acknowledge
        | Kind::GetGroup
        | Kind::ListGroups
        | Kind::History
        | Kind::Readers => Sort::User,
        Kind::Feed => Sort::Service,
        Kind::Stats | Kind::Backup | Kind::Connections | Kind::Kick => Sort::Operator,
        _ => return None,
    })
}

/// Whether a role may make a request, for itself or for a user that it names; if not, why.
pub(super) fn permit(role: Role, kind: Kind, for_user: bool, policy: Policy) -> Result<(), &'static str> {
    let Some(sort) = sort_of(kind) else { return Err("this is no request of an authenticated connection") };
    let closed = match kind {
        Kind::Create => policy.create == Openness::Services,
        Kind::Add => policy.add == Openness::Services,
        _ => false,
    };
    match (sort, role, for_user) {
        (Sort::User, Role::User, false) if closed => Err("here only services may do this"),
        (Sort::Connection, _, false)
        | (Sort::Device | Sort::User, Role::User, false)
        | (Sort::User, Role::Service, true)
        | (Sort::Service, Role::Service, false)
        | (Sort::Operator, Role::Operator, false) => Ok(()),
        // An operator sees records and counts, never bodies: any group, and the groups of any user.
        (Sort::User, Role::Operator, false) if kind == Kind::GetGroup => Ok(()),
        (Sort::User, Role::Operator, true) if kind == Kind::ListGroups => Ok(()),
        (Sort::User, Role::Operator, false) if kind == Kind::ListGroups => {
            Err("an operator names the user whose groups it wants: the flag AS_USER")
        }
        (Sort::User, Role::Service, false) => Err("a service names the user for whom it asks: the flag AS_USER"),
        (Sort::Operator, _, _) => Err("this request needs a token of the role operator"),
        (Sort::Service, _, _) => Err("this request needs a token of the role service"),
        (Sort::Device | Sort::User, Role::Service | Role::Operator, _) => {
            Err("this request needs a token of the role user")
        }
        (Sort::Connection | Sort::Device | Sort::User, _, true) => Err("only a service acts for a user"),
    }
}
