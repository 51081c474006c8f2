//! The fixed header of every frame: 24 bytes, big-endian.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `52 54 42 4c` (`RTBL`) |
//! | 4 | 1 | protocol version, 1 |
//! | 5 | 1 | flags: bit 0 `as USER` (the body begins with a user id), the others reserved and zero |
//! | 6 | 2 | kind |
//! | 8 | 4 | body length in bytes |
//! | 12 | 4 | request id; 0 in pushes |
//! | 16 | 4 | CRC-32 (IEEE) of the body |
//! | 20 | 4 | CRC-32 (IEEE) of bytes 0 to 19 |

use byteorder::{BigEndian, ByteOrder};

use crate::limits::HEADER_BYTES;

/// The first four bytes of every frame.
pub const MAGIC: [u8; 4] = *b"RTBL";
/// The protocol version that this crate speaks.
pub const VERSION: u8 = 1;

/// Bits of the flags byte.
pub mod flags {
    /// The body begins with the user id that a service acts for. Not served by this version.
    pub const AS_USER: u8 = 0x01;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a frame is. Requests are below `0x4000`, pushes from there, replies are their request's kind with
        /// the highest bit set.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Kind { $($(#[$doc])* $name = $number,)* }

        impl Kind {
            /// All kinds, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The kind of a number.
            pub fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// Its number on the wire.
            pub fn number(self) -> u16 {
                match self { $(Self::$name => $number,)* }
            }

            /// Its name, as it stands in `docs/protocol.md`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

kinds! {
    /// Authenticates: versions, features, token, device, heartbeat.
    Hello = 0x0001,
    /// Puts the connection on line.
    Attach = 0x0002,
    /// Authenticates again, in place.
    Authenticate = 0x0003,
    /// Proves life; asks whether the server is ready.
    Ping = 0x0004,
    /// Makes a group.
    Create = 0x0010,
    /// Adds members.
    Add = 0x0011,
    /// Removes members.
    Remove = 0x0012,
    /// Leaves a group.
    Leave = 0x0013,
    /// Changes the title.
    Rename = 0x0014,
    /// Makes another member the owner.
    Transfer = 0x0015,
    /// Ends a group.
    Dissolve = 0x0016,
    /// A message to all members.
    Send = 0x0017,
    /// A message to some members.
    Whisper = 0x0018,
    /// An ephemeral message, never stored; no reply.
    Signal = 0x0020,
    /// Marks what was received and read; no reply.
    Acknowledge = 0x0021,
    /// Asks for a group's record.
    GetGroup = 0x0030,
    /// Asks for the groups of the user.
    ListGroups = 0x0031,
    /// Asks for entries of groups.
    History = 0x0032,
    /// Asks for the marks of a group's members.
    Readers = 0x0033,
    /// A service's feed of all entries.
    Feed = 0x0038,
    /// Counters and gauges.
    Stats = 0x0040,
    /// A backup of the data directory.
    Backup = 0x0041,
    /// The connections of the server.
    Connections = 0x0042,
    /// Closes the connections of a user.
    Kick = 0x0043,
    /// A group as a member must know it to show it.
    GroupPacket = 0x4001,
    /// One entry of a group's log.
    Entry = 0x4002,
    /// An ephemeral message.
    SignalPush = 0x4003,
    /// The connection is behind in a group.
    Behind = 0x4004,
    /// The device has a group that its user is no longer in.
    Gone = 0x4005,
    /// All that the device lacked has been told.
    Ready = 0x4006,
    /// The token expires soon.
    AuthenticateSoon = 0x4007,
    /// A newer connection of the same device took over.
    TakenOver = 0x4008,
    /// The server is about to stop.
    GoingAway = 0x4009,
    /// One item of the feed.
    FeedItem = 0x400a,
    /// Answers `Hello`.
    Welcome = 0x8001,
    /// Answers `Attach`.
    Attached = 0x8002,
    /// Answers `Authenticate`.
    Authenticated = 0x8003,
    /// Answers `Ping`.
    Pong = 0x8004,
    /// Answers `Create`.
    Created = 0x8010,
    /// Answers `Add`.
    AddDone = 0x8011,
    /// Answers `Remove`.
    RemoveDone = 0x8012,
    /// Answers `Leave`.
    LeaveDone = 0x8013,
    /// Answers `Rename`.
    RenameDone = 0x8014,
    /// Answers `Transfer`.
    TransferDone = 0x8015,
    /// Answers `Dissolve`.
    DissolveDone = 0x8016,
    /// Answers `Send`.
    SendDone = 0x8017,
    /// Answers `Whisper`.
    WhisperDone = 0x8018,
    /// Answers `GetGroup`.
    GroupShown = 0x8030,
    /// Answers `ListGroups`.
    GroupsListed = 0x8031,
    /// Answers `History`.
    HistoryPage = 0x8032,
    /// Answers `Readers`.
    ReadersListed = 0x8033,
    /// Answers `Feed`.
    FeedBegun = 0x8038,
    /// Answers `Stats`.
    StatsListed = 0x8040,
    /// Answers `Backup`.
    BackupDone = 0x8041,
    /// Answers `Connections`.
    ConnectionsListed = 0x8042,
    /// Answers `Kick`.
    KickDone = 0x8043,
    /// Answers any request that was refused; with request id 0 it says why the connection closes.
    Error = 0xffff,
}

impl Kind {
    /// The kind of the answer to a request of the kinds that are answered by `Changed`.
    pub fn done(self) -> Option<Self> {
        match self {
            Self::Add
            | Self::Remove
            | Self::Leave
            | Self::Rename
            | Self::Transfer
            | Self::Dissolve
            | Self::Send
            | Self::Whisper => Self::from_number(self.number() | 0x8000),
            _ => None,
        }
    }
}

/// A header whose own CRC was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Flags; see [`flags`].
    pub flags: u8,
    /// The number of the kind, known or not.
    pub kind: u16,
    /// Bytes of the body.
    pub body_bytes: u32,
    /// The request's number, chosen by the client; 0 in pushes.
    pub request_id: u32,
    /// CRC-32 of the body.
    pub body_crc: u32,
}

/// Why 24 bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// Not this protocol at all.
    Magic,
    /// This protocol, in a version that is not spoken here.
    Version,
    /// Damaged.
    Crc,
}

impl Header {
    /// Reads a header. The magic is looked at first, then the CRC, then the version: a length is believed only once
    /// the header is known to be whole.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, HeaderError> {
        let (fields, crc) = bytes.split_at(20);
        if !fields.starts_with(&MAGIC) {
            return Err(HeaderError::Magic);
        }
        if crc32fast::hash(fields) != BigEndian::read_u32(crc) {
            return Err(HeaderError::Crc);
        }
        let [_, _, _, _, version, flags, kind_high, kind_low, ..] = *bytes;
        if version != VERSION {
            return Err(HeaderError::Version);
        }
        let [.., l0, l1, l2, l3, r0, r1, r2, r3, c0, c1, c2, c3, _, _, _, _] = *bytes;
        Ok(Self {
            flags,
            kind: u16::from_be_bytes([kind_high, kind_low]),
            body_bytes: u32::from_be_bytes([l0, l1, l2, l3]),
            request_id: u32::from_be_bytes([r0, r1, r2, r3]),
            body_crc: u32::from_be_bytes([c0, c1, c2, c3]),
        })
    }

    /// Writes the header of the frame that begins at `start` of `frame` and whose body is already there.
    pub fn seal(frame: &mut [u8], start: usize, kind: Kind, flags: u8, request_id: u32) {
        let Some((header, body)) =
            frame.get_mut(start..).and_then(|frame| frame.split_first_chunk_mut::<HEADER_BYTES>())
        else {
            unreachable!("a frame is sealed where its header was left out");
        };
        let body_bytes = u32::try_from(body.len()).expect("frames are bounded by limits.rs");
        let (fields, crc) = header.split_at_mut(20);
        fields.copy_from_slice(&Self::fields(kind, flags, body_bytes, request_id, crc32fast::hash(body)));
        BigEndian::write_u32(crc, crc32fast::hash(fields));
    }

    fn fields(kind: Kind, flags: u8, body_bytes: u32, request_id: u32, body_crc: u32) -> [u8; 20] {
        let [m0, m1, m2, m3] = MAGIC;
        let [k0, k1] = kind.number().to_be_bytes();
        let [l0, l1, l2, l3] = body_bytes.to_be_bytes();
        let [r0, r1, r2, r3] = request_id.to_be_bytes();
        let [c0, c1, c2, c3] = body_crc.to_be_bytes();
        [m0, m1, m2, m3, VERSION, flags, k0, k1, l0, l1, l2, l3, r0, r1, r2, r3, c0, c1, c2, c3]
    }
}
