//! Identities: users, devices, groups, operations, and who is answerable for a request.
//!
//! Each type can only be made from a legal value, so past the edge nothing checks lengths again.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::limits::USER_BYTES_MAX;

/// Why a text is no legal name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// It has no bytes.
    Empty,
    /// It has more than [`USER_BYTES_MAX`] bytes.
    TooLong,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a user id must not be empty"),
            Self::TooLong => write!(f, "a user id has at most {USER_BYTES_MAX} bytes"),
        }
    }
}

impl std::error::Error for NameError {}

/// A user: 1 to 64 bytes of UTF-8, any text, compared byte by byte. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Arc<str>);

impl UserId {
    /// Takes any text of 1 to 64 bytes.
    pub fn new(text: &str) -> Result<Self, NameError> {
        match text.len() {
            0 => Err(NameError::Empty),
            1..=USER_BYTES_MAX => Ok(Self(text.into())),
            _ => Err(NameError::TooLong),
        }
    }

    /// The id as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for UserId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

/// One installation of a client of a user: 1 to 64 bytes of UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(UserId);

impl DeviceId {
    /// Takes any text of 1 to 64 bytes.
    pub fn new(text: &str) -> Result<Self, NameError> {
        UserId::new(text).map(Self)
    }

    /// The id as it was given.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl From<DeviceId> for UserId {
    /// The same text: on the wire both have one form.
    fn from(device: DeviceId) -> Self {
        device.0
    }
}

/// A group: a UUIDv7 that the server makes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(Uuid);

impl GroupId {
    /// Makes an id from milliseconds since 1970 and ten random bytes. Uniqueness rests on the 74 random bits alone.
    pub fn generate(wall_ms: u64, random: &[u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(wall_ms, random).into_uuid())
    }

    /// From its 16 bytes; the nil id is none.
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        let id = Uuid::from_bytes(bytes);
        (!id.is_nil()).then_some(Self(id))
    }

    /// Its 16 bytes, as they stand on the wire and on disk.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for GroupId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let id = Uuid::parse_str(text).map_err(|_| IdError)?;
        Self::from_bytes(id.into_bytes()).ok_or(IdError)
    }
}

/// The id that a client gives to one request that changes something: a UUID of any version but nil.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(Uuid);

impl OperationId {
    /// A new random id (UUIDv4). For clients; the server never makes one.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// From its 16 bytes; the nil id is none.
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        let id = Uuid::from_bytes(bytes);
        (!id.is_nil()).then_some(Self(id))
    }

    /// Its 16 bytes, as they stand on the wire and on disk.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

impl fmt::Debug for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for OperationId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let id = Uuid::parse_str(text).map_err(|_| IdError)?;
        Self::from_bytes(id.into_bytes()).ok_or(IdError)
    }
}

/// A text that is no UUID, or the nil one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdError;

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a UUID: 32 hexadecimal digits as in 0198f2a1-7c3e-7d10-8a55-0242ac120002")
    }
}

impl std::error::Error for IdError {}

/// Who authenticated: the one whose operations are remembered together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    /// A user, acting for itself.
    User(UserId),
    /// A backend or gateway of the cluster, acting for users.
    Service(UserId),
}

/// What a token allows its bearer to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A user of groups.
    User,
    /// A backend that acts for users.
    Service,
    /// Looks after the server: records and counts, never bodies.
    Operator,
}

impl Role {
    /// The name used in tokens and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
            Self::Operator => "operator",
        }
    }
}

/// To whom a request is open that configuration may close.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Openness {
    /// To every user, and to services for every user.
    #[default]
    Everyone,
    /// To services alone.
    Services,
}

/// Whom a token names: what authentication gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user, or the name of the service or operator.
    pub user: UserId,
    /// What it may do.
    pub role: Role,
    /// The one device that the token is for; any device if there is none.
    pub device: Option<DeviceId>,
    /// When it ends, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

/// Why a token was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// Malformed, badly signed, for another cluster: one answer for all causes.
    Rejected,
    /// Rightly signed, but expired or not yet valid.
    Expired,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_have_1_to_64_bytes() {
        assert_eq!(UserId::new(""), Err(NameError::Empty));
        assert!(UserId::new("4").is_ok());
        assert!(UserId::new(&"x".repeat(64)).is_ok());
        assert_eq!(UserId::new(&"x".repeat(65)), Err(NameError::TooLong));
        assert_eq!(UserId::new(&"ж".repeat(33)), Err(NameError::TooLong), "bytes count, not characters");
    }

    #[test]
    fn group_ids_are_version_7_and_read_back() {
        let id = GroupId::generate(1_700_000_000_000, &[0xff; 10]);
        assert_eq!(Uuid::from_bytes(*id.as_bytes()).get_version_num(), 7);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("00000000-0000-0000-0000-000000000000".parse::<GroupId>(), Err(IdError));
    }
}
