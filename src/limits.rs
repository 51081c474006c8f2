//! Every bound of the program, in one place, with the relations between them proved at compile time.
//!
//! The same numbers stand in `docs/protocol.md` (what a client must respect) and `docs/operations.md`.
//! Units are part of each name: `_bytes`, `_ms`, `_s`, `_count`.

/// Longest user id, device id or service name, in bytes of UTF-8.
pub const USER_BYTES_MAX: usize = 64;
/// Longest group title, in bytes of UTF-8; an empty one is legal.
pub const TITLE_BYTES_MAX: usize = 256;
/// Longest body of a message, whisper or signal, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest token in a hello, in bytes.
pub const TOKEN_BYTES_MAX: usize = 3 * 1024;
/// Most members of one group, its creator included.
pub const GROUP_MEMBERS_MAX: usize = 10_000;
/// Groups that a user may be in, unless configuration says otherwise.
pub const GROUPS_PER_USER_DEFAULT: u32 = 2_000;
/// The lowest that configuration may say: the groups of users are counted from where one value of the index is full.
pub const GROUPS_PER_USER_MIN: u32 = 64;
/// Most groups that one attach may name in all its frames.
pub const ATTACH_GROUPS_MAX: usize = 20_000;
/// Most groups named in one frame of attach or acknowledge.
pub const GROUPS_PER_FRAME_MAX: usize = 10_000;

/// Bytes of the fixed header of every frame; the layout is in `wire/header.rs`.
pub const HEADER_BYTES: usize = 24;
/// Largest frame taken from a client before it is authenticated, header included.
pub const FRAME_BYTES_MAX_UNAUTHENTICATED: usize = 4 * 1024;
/// Largest frame taken from an authenticated client, header included, unless the kind is a large one.
pub const FRAME_BYTES_MAX: usize = 128 * 1024;
/// Largest frame of the kinds that carry lists (create, add, remove, attach), header included.
pub const FRAME_BYTES_MAX_LIST: usize = 1024 * 1024;
/// Largest frame that the server sends, header included.
pub const FRAME_BYTES_MAX_SERVER: usize = 1024 * 1024;

/// Frames up to this size are copied into each recipient's buffer, larger ones are shared.
pub const FRAME_BYTES_COPIED_MAX: usize = 4 * 1024;
/// Recipients up to which small frames are copied; what more than these get is shared whatever its size.
pub const RECIPIENTS_COPIED_MAX: usize = 16;
/// Recipients up to which a frame is for few: what more than these get is a crowd, which others take turns with.
pub const RECIPIENTS_FEW_MAX: usize = 64;
/// Bytes that are gathered for the same connections before they are put into their buffers.
pub const BURST_BYTES_MAX: usize = OUTPUT_BYTES_SOFT / 2;
/// Bytes of pushes, each counted once, that become visible before every connection with output has been written: no
/// batch of the journal must put a reader that keeps up over its soft limit.
pub const RELEASED_BYTES_PER_ROUND: usize = OUTPUT_BYTES_SOFT / 2;
/// Pushes, each counted for each of its recipients, at which the same happens.
pub const RELEASED_PUSHES_PER_ROUND: usize = 64 * 1024;
/// Output waiting on one connection above which its groups fall behind.
pub const OUTPUT_BYTES_SOFT: usize = 64 * 1024;
/// Bytes of copied frames in one piece of an output buffer; written pieces are given back whole.
pub const OUTPUT_PIECE_BYTES: usize = 64 * 1024;
/// Output waiting on one connection above which it is closed.
pub const OUTPUT_BYTES_HARD: usize = 1024 * 1024;
/// Output waiting on a connection that is not authenticated above which it is closed.
pub const OUTPUT_BYTES_UNAUTHENTICATED: usize = 8 * 1024;
/// Bytes of a connection's output that the system may hold unsent: what its peer has room for is sent at once, what
/// waits for a peer that does not read waits here, where it is counted, and the connection falls behind.
pub const SOCKET_UNSENT_BYTES: usize = 16 * 1024;
/// Output of a connection that the system may hold in all, most of it on its way (`SO_SNDBUF`; Linux doubles it, for
/// its own bookkeeping).
pub const SOCKET_SEND_BYTES: usize = 512 * 1024;
/// How long output may wait without a single byte drained before the connection is closed.
pub const OUTPUT_STALL_MS: u64 = 10_000;
/// All buffers of connections together, of output, of frames that are not whole, of requests under way; above it the
/// largest debtor is closed.
pub const BUFFER_BYTES_TOTAL: usize = 256 * 1024 * 1024;

/// Requests of one connection with large answers (history, a group, the list of groups) that are under way at once.
pub const LARGE_IN_FLIGHT_MAX: u8 = 1;
/// Requests of one connection without an answer above which its reading pauses.
pub const IN_FLIGHT_MAX: usize = 64;
/// The same for a service, which acts for many users.
pub const IN_FLIGHT_MAX_SERVICE: usize = 1_024;
/// Bytes of requests of one connection under way above which its reading pauses until they are done.
pub const REQUEST_BYTES_SOFT: usize = 256 * 1024;
/// Bytes of changes waiting for the disk above which reading of those who send changes pauses.
pub const PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Connections at once.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Connections of one user at once; the oldest gives way.
pub const CONNECTIONS_PER_USER_MAX: usize = 10;
/// Connections that have not authenticated yet, at once.
pub const UNAUTHENTICATED_MAX: usize = 1_024;
/// Time to authenticate after being accepted.
pub const AUTHENTICATE_MS: u64 = 5_000;
/// Time that a token is still good for after its end, because clocks differ; the client is asked for a new one at its
/// end, and closed behind this.
pub const TOKEN_LEEWAY_MS: u64 = 30_000;
/// Time for a frame that was begun to become whole.
pub const FRAME_STALL_MS: u64 = 30_000;
/// Malformed requests in a minute at which the connection is closed.
pub const MALFORMED_PER_MINUTE_MAX: u32 = 10;
/// Heartbeat interval of a client that does not ask for one.
pub const HEARTBEAT_S_DEFAULT: u16 = 30;
/// Shortest heartbeat interval that is granted.
pub const HEARTBEAT_S_MIN: u16 = 15;
/// Longest heartbeat interval that is granted.
pub const HEARTBEAT_S_MAX: u16 = 300;
/// Memory for groups and users that the hub keeps loaded.
pub const CACHE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Entries of a group in use that the hub keeps, so that a reader close to the head needs no disk.
pub const RING_ENTRIES: usize = 64;
/// Bytes of the same.
pub const RING_BYTES: usize = 64 * 1024;
/// How long marks (received, read) may wait before they are journalled.
pub const MARKS_DELAY_MS: u64 = 1_000;
/// Groups of one connection that are being loaded at once for its catch-up.
pub const CATCH_UP_LOADS: u8 = 16;

/// Effective operations of a user that are remembered by their operation id.
pub const OPERATIONS_REMEMBERED: usize = 1_024;
/// The same for a service.
pub const OPERATIONS_REMEMBERED_SERVICE: usize = 65_536;

/// Groups that one history request may name.
pub const HISTORY_GROUPS_MAX: usize = 64;
/// Most entries in one page of history.
pub const HISTORY_ENTRIES_MAX: usize = 256;
/// Most bytes of entries in one page of history, unless its first entry alone is larger.
pub const HISTORY_BYTES_MAX: usize = 256 * 1024;
/// Most groups in one page of the list of groups.
pub const LIST_GROUPS_MAX: usize = 256;
/// Entries of the feed that are read from the journal at once.
pub const FEED_PAGE_ITEMS: usize = 64;
/// The last entries that are kept in memory for services that are about to have read the feed to its end.
pub const FEED_RECENT_ITEMS: usize = 1_024;
/// Most connections in one page of the list of connections.
pub const LIST_CONNECTIONS_MAX: usize = 256;

/// Size of a journal segment of a directory that does not say otherwise.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;
/// Smallest segment that a server may be given: the largest packet fits several times.
pub const SEGMENT_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// Largest packet of the journal, its header included.
pub const PACKET_BYTES_MAX: usize = 1024 * 1024;
/// Delay after the last batch until a marker packet says that it was synced.
pub const MARKER_DELAY_MS: u64 = 50;
/// Entries that the log of a group keeps unless the configuration says otherwise.
pub const RETENTION_ENTRIES_DEFAULT: u64 = 100_000;
/// Bytes of the same.
pub const RETENTION_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;
/// Age of the same, in milliseconds of running time: 30 days.
pub const RETENTION_AGE_MS_DEFAULT: u64 = 30 * 24 * 60 * 60 * 1000;
/// Bytes that cleaning writes in one batch of the journal, unless its first packet alone is larger.
pub const CARRIED_BYTES_PER_BATCH: usize = 256 * 1024;
/// Packets of the oldest segment that cleaning looks at before look-ups have their turn again.
pub const CLEANED_PACKETS_PER_TURN: usize = 512;

/// Bytes of journal that the index may be behind before changes have to wait.
pub const INDEX_BACKLOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How long a change of an embedded engine waits for room on the disk before it is refused: longer than a segment
/// takes to be made.
pub const ENGINE_ROOM_MS: u64 = 2_000;

/// A clean stop as a whole: what was begun is finished and sent, then the data directory is closed.
pub const STOP_MS: u64 = 10_000;
/// The first part of it; the rest at least is left to the data directory.
pub const DRAIN_MS: u64 = 8_000;
const _: () = assert!(DRAIN_MS < STOP_MS);
/// Connections accepted in one turn of the loop.
pub const ACCEPTS_PER_TURN: usize = 64;
/// Descriptors kept back for the journal, the index, and the program itself.
pub const DESCRIPTORS_RESERVED: usize = 64;
/// Connections written in one turn of the loop: about a quarter of a millisecond's worth, behind which what has come
/// meanwhile is looked at before the others are written.
pub const WRITES_PER_TURN: usize = 32;
/// Bytes read from one connection in one turn of the loop.
pub const READ_BYTES_PER_TURN: usize = 64 * 1024;

// The largest group packet fits one frame of the server, and the request that makes it one of the client:
// fixed fields of a record (ids, numbers, length prefixes) need less than 256 bytes.
const RECORD_FIXED_BYTES: usize = 256 + TITLE_BYTES_MAX + 2 * (1 + USER_BYTES_MAX);
const _: () =
    assert!(HEADER_BYTES + RECORD_FIXED_BYTES + GROUP_MEMBERS_MAX * (1 + USER_BYTES_MAX + 8) <= FRAME_BYTES_MAX_SERVER);
const _: () =
    assert!(HEADER_BYTES + RECORD_FIXED_BYTES + GROUP_MEMBERS_MAX * (1 + USER_BYTES_MAX) <= FRAME_BYTES_MAX_LIST);
// A message of the largest size fits a client's frame and one page of history.
const _: () = assert!(BODY_BYTES_MAX + 256 <= FRAME_BYTES_MAX);
const _: () = assert!(BODY_BYTES_MAX + 1024 <= HISTORY_BYTES_MAX);
// A page of history fits one frame of the server, even when its first entry is a list of all members.
const _: () = assert!(HEADER_BYTES + HISTORY_BYTES_MAX + HISTORY_GROUPS_MAX * 64 <= FRAME_BYTES_MAX_SERVER);
// A hello with the longest token fits the small frame.
const _: () = assert!(HEADER_BYTES + TOKEN_BYTES_MAX + 256 <= FRAME_BYTES_MAX_UNAUTHENTICATED);
// The largest entry (a list of all members) fits one packet, and packets fit the smallest segment.
const _: () = assert!(512 + RECORD_FIXED_BYTES + GROUP_MEMBERS_MAX * (1 + USER_BYTES_MAX) <= PACKET_BYTES_MAX);
const _: () = assert!(4 * PACKET_BYTES_MAX as u64 <= SEGMENT_BYTES_MIN);
// What is appended to a connection below its soft limit stays under the hard one: a full page of history that ends
// with a list of all members, a record with all members, a group packet.
const LIST_ENTRY_BYTES: usize = RECORD_FIXED_BYTES + GROUP_MEMBERS_MAX * (1 + USER_BYTES_MAX);
const _: () = assert!(OUTPUT_BYTES_SOFT + HISTORY_BYTES_MAX + LIST_ENTRY_BYTES < OUTPUT_BYTES_HARD);
const _: () = assert!(OUTPUT_BYTES_SOFT + LIST_ENTRY_BYTES + GROUP_MEMBERS_MAX * 8 < OUTPUT_BYTES_HARD);
// The marks of all members fit one frame of the server, and a connection below its soft limit.
const READERS_BYTES: usize = HEADER_BYTES + 64 + GROUP_MEMBERS_MAX * (1 + USER_BYTES_MAX + 2 * 8);
const _: () = assert!(READERS_BYTES <= FRAME_BYTES_MAX_SERVER && OUTPUT_BYTES_SOFT + READERS_BYTES < OUTPUT_BYTES_HARD);
