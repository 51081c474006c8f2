//! The file of a history: one JSON object a line, in the order of their times.
//!
//! ```text
//! {"t":T,"what":W}         T: nanoseconds of one monotonic clock; what W says is so at T
//! ```
//!
//! | what | when it is written |
//! |---|---|
//! | `{"Begin":{…}}` | first: what the run is |
//! | `{"Connect":{"conn":C,"user":U,"device":D}}` | a client has a connection and is about to say hello; C is never used again |
//! | `{"Invoke":{"conn":C,"req":R,"call":…}}` | before the first byte of the request is handed to the socket |
//! | `{"Return":{"conn":C,"req":R,"answer":…}}` | when the whole answer was read |
//! | `{"Unknown":{"conn":C,"req":R}}` | the connection is gone, and there was no answer |
//! | `{"Push":{"conn":C,"push":…}}` | when a whole push was read |
//! | `{"End":{"conn":C,"why":…}}` | nothing more comes on this connection |
//! | `{"Fault":"…"}` | the nemesis begins or ends something |
//! | `"Quiet"` | the nemesis is done: the server was started for the last time |
//! | `"Finish"` | last: every client had the time to hear all there is |
//!
//! A request and its answer have the same C and R. An `Acknowledge` has an answer only if it is refused. The same
//! operation id in several calls is the same operation said again, unless the content is another one. Groups, users and
//! operations are written as text; bodies as [`body_text`].

use serde::{Deserialize, Serialize};

/// A line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) t: u64,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum What {
    Begin(Begin),
    Connect { conn: u32, user: String, device: String },
    Invoke { conn: u32, req: u32, call: Call },
    Return { conn: u32, req: u32, answer: Answer },
    Unknown { conn: u32, req: u32 },
    Push { conn: u32, push: Push },
    End { conn: u32, why: String },
    Fault(String),
    Quiet,
    Finish,
}

/// What the checker has to know of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begin {
    pub(crate) seed: u64,
    /// The newest entries of a group that are never deleted.
    pub(crate) retention_entries: u64,
    /// The newest operations of a user that are remembered.
    pub(crate) operations_remembered: u64,
    /// Whether the disk may be full: only then `STORAGE_FULL` is an honest answer.
    pub(crate) disk_may_be_full: bool,
}

/// A group and a seq.
pub(crate) type At = (String, u64);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Call {
    /// By what the device has; `None`: by marks.
    Attach {
        has: Option<Vec<At>>,
    },
    Create {
        op: String,
        title: String,
        members: Vec<String>,
    },
    /// A change of a group that is there.
    Change {
        op: String,
        group: String,
        act: Act,
    },
    /// Group, received, read.
    Acknowledge {
        marks: Vec<(String, u64, u64)>,
    },
    Get {
        group: String,
        newer_than: u64,
    },
    List {
        after: Option<String>,
    },
    History {
        groups: Vec<At>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Act {
    Add(Vec<String>),
    Remove(Vec<String>),
    Leave,
    Rename(String),
    Transfer(String),
    Dissolve,
    Send(String),
    Whisper { to: Vec<String>, body: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Attached,
    Created { group: String, seq: u64, version: u64, members: u32, repeated: bool },
    Changed { group: String, seq: u64, version: u64, repeated: bool },
    Shown { group: String, head: u64, floor: u64, record: Record },
    Unchanged { group: String, version: u64 },
    Listed { more: bool, groups: Vec<Summary> },
    Page { parts: Vec<Part> },
    Refused { code: String, detail: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) version: u64,
    pub(crate) title: String,
    pub(crate) owner: String,
    pub(crate) creator: String,
    /// In the order of joining, with the seq of it.
    pub(crate) members: Vec<At>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) group: String,
    pub(crate) title: String,
    pub(crate) members: u32,
    pub(crate) version: u64,
    pub(crate) head: u64,
    pub(crate) received: u64,
    pub(crate) read: u64,
}

/// A group's part of a page of history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) group: String,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Entries { head: u64, floor: u64, entries: Vec<Entry> },
    Refused { code: String, detail: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Push {
    Entry { group: String, entry: Entry },
    Packet(Packet),
    Behind { group: String, from: u64, head: u64 },
    Gone { group: String, until: u64 },
    Ready,
    TakenOver,
    GoingAway,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Packet {
    pub(crate) group: String,
    pub(crate) from: u64,
    pub(crate) head: u64,
    pub(crate) version: u64,
    pub(crate) title: String,
    pub(crate) owner: String,
    pub(crate) creator: String,
    pub(crate) members: Vec<String>,
}

/// An entry as it was shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) seq: u64,
    pub(crate) version: u64,
    /// `None`: hidden, a whisper to others.
    pub(crate) shown: Option<Shown>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) at_ms: u64,
    pub(crate) sender: String,
    pub(crate) by: Option<String>,
    pub(crate) event: Event,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Event {
    /// All members, the creator first.
    Created {
        title: String,
        members: Vec<String>,
    },
    Added(Vec<String>),
    Removed(Vec<String>),
    /// Who is owner now, if the owner left.
    Left {
        heir: Option<String>,
        dissolved: bool,
    },
    Renamed(String),
    Transferred(String),
    Dissolved,
    Message(String),
    Whisper {
        to: Vec<String>,
        body: String,
    },
}

/// A body in a file: the operation id that it begins with, and, if there is more, how much and its CRC.
pub(crate) fn body_text(body: &[u8]) -> String {
    const ID_BYTES: usize = 36;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if body.len() <= ID_BYTES {
        return text(body);
    }
    let (id, rest) = body.split_at(ID_BYTES);
    format!("{}+{}:{:08x}", text(id), rest.len(), crc32fast::hash(rest))
}

/// The operation that a title or a body names.
pub(crate) fn operation_in(text: &str) -> Option<&str> {
    text.get(..36)
}
