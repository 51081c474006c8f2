//! The numbered table of errors: by who is to blame, and whether the connection lives.
//!
//! ```text
//! code u16 · detail u64 · message text
//! ```
//!
//! The detail is a number that a program can use (0 where there is none); the message is for people. With the request
//! id of a request it refuses that request; with request id 0 it says why the connection closes.

use crate::codec::{DecodeError, Reader, Writer};

macro_rules! errors {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $closes:literal;)*) => {
        /// Why the server refused a request or closed a connection.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $variant,)* }

        impl ErrorCode {
            /// All codes, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code of a number.
            pub fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// Its number on the wire: 1xx the connection's fault, 2xx the request's, 3xx the server's.
            pub fn number(self) -> u16 {
                match self { $(Self::$variant => $number,)* }
            }

            /// Its name, as scripts see it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether the connection is closed after it.
            pub fn closes(self) -> bool {
                match self { $(Self::$variant => $closes,)* }
            }
        }
    };
}

errors! {
    /// A protocol version that is not spoken here; detail: the highest that is.
    Version = 101, "VERSION", true;
    /// A frame over the cap; detail: the cap in bytes.
    TooLarge = 102, "TOO_LARGE", true;
    /// A header or a body that does not match its CRC.
    BadCrc = 103, "BAD_CRC", true;
    /// A request before the hello.
    NotAuthenticated = 104, "NOT_AUTHENTICATED", true;
    /// A frame out of place: a second hello, a push from a client.
    Protocol = 105, "PROTOCOL", true;
    /// A token that is not accepted; one code for all causes.
    AuthFailed = 106, "AUTH_FAILED", true;
    /// A rightly signed token that is expired or not yet valid.
    TokenExpired = 107, "TOKEN_EXPIRED", true;
    /// Output was not read; detail: bytes waiting.
    Slow = 108, "SLOW", true;
    /// Nothing was heard for too long, or a frame or the hello did not become whole in time.
    Timeout = 109, "TIMEOUT", true;
    /// Another connection of the same user took this one's place.
    TakenOver = 110, "TAKEN_OVER", true;
    /// Too many connections.
    TooMany = 111, "TOO_MANY", true;
    /// An operator closed the connection.
    Kicked = 112, "KICKED", true;
    /// A kind, or a flag, that is not served here.
    UnknownKind = 201, "UNKNOWN_KIND", false;
    /// A good frame with a body that is not what its kind asks for. At the tenth in a minute the connection closes.
    Malformed = 202, "MALFORMED", false;
    /// No such group, or one that the user is not in.
    NotFound = 203, "NOT_FOUND", false;
    /// A member without the right.
    Forbidden = 204, "FORBIDDEN", false;
    /// Over a rate; detail: milliseconds to wait.
    SlowDown = 205, "SLOW_DOWN", false;
    /// Over a quota; detail: the limit.
    Limit = 206, "LIMIT", false;
    /// A mark beyond the head; detail: the head.
    Range = 207, "RANGE", false;
    /// History below the floor; detail: the floor.
    Truncated = 208, "TRUNCATED", false;
    /// A whisper or a transfer to somebody who is not a member.
    NotAMember = 209, "NOT_A_MEMBER", false;
    /// An operation id that was used with other content.
    IdReused = 210, "ID_REUSED", false;
    /// The disk is full; nothing was changed.
    StorageFull = 301, "STORAGE_FULL", false;
    /// The server is stopping.
    GoingAway = 302, "GOING_AWAY", true;
    /// The place on disk that was asked for is damaged.
    Damaged = 303, "DAMAGED", false;
}

/// The body of an error frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorBody {
    /// Which; a client keeps numbers that it does not know.
    pub code: u16,
    /// A number that a program can use; 0 where there is none.
    pub detail: u64,
    /// For people.
    pub message: String,
}

impl ErrorBody {
    /// An error with its detail and a sentence.
    pub fn new(code: ErrorCode, detail: u64, message: impl Into<String>) -> Self {
        Self { code: code.number(), detail, message: message.into() }
    }

    /// The name of the code, or `UNKNOWN_ERROR`.
    pub fn name(&self) -> &'static str {
        ErrorCode::from_number(self.code).map_or("UNKNOWN_ERROR", ErrorCode::name)
    }

    /// Appends it.
    pub fn encode(&self, writer: &mut Writer<'_>) {
        writer.u16(self.code);
        writer.u64(self.detail);
        writer.text(&self.message);
    }

    /// Reads it.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let code = reader.u16()?;
        let detail = reader.u64()?;
        let message = reader.text(usize::from(u16::MAX))?.to_owned();
        Ok(Self { code, detail, message })
    }
}
