//! Somebody who talks so much in one group that retention and cleaning have to keep up.

use std::time::{Duration, Instant};

use roundtable::client::{Client, ClientError};
use roundtable::group::Event;
use roundtable::ids::{GroupId, Role};
use roundtable::wire::{ErrorCode, GroupShown, LogEntry};

use super::site::{ALICE, BOB, Server, user};

const BODY_BYTES: usize = 40_000;
/// Entries that are kept of a log: about 2 MiB of them.
pub(crate) const KEPT: u64 = 50;
/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One who talks, and what was acknowledged of it.
pub(crate) struct Talk {
    pub(crate) client: Client,
    pub(crate) group: GroupId,
    /// Messages; the creation is the entry before them.
    pub(crate) said: u64,
    pub(crate) refused: u64,
}

/// What the message with this seq is made of.
fn mark(seq: u64) -> u8 {
    u8::try_from(seq % 251).expect("small")
}

impl Talk {
    pub(crate) fn begin(server: &Server) -> Self {
        let mut client = server.connect(ALICE, Role::User);
        let group = client.create("talk", &[user(BOB)]).expect("created").group;
        Self { client, group, said: 0, refused: 0 }
    }

    pub(crate) fn head(&self) -> u64 {
        self.said + 1
    }

    /// Says so many bytes in groups of their own, so little in each that all of it is kept for ever.
    pub(crate) fn say_what_stays(&mut self, bytes: u64) {
        let mut left = bytes / BODY_BYTES as u64;
        while left > 0 {
            let group = self.client.create("stays", &[user(BOB)]).expect("created").group;
            // The creation is an entry too.
            let here = left.min(KEPT - 1);
            for _ in 0..here {
                self.client.send(group, vec![1; BODY_BYTES]).expect("there is room");
            }
            left -= here;
        }
    }

    /// Says the next thing. The client waits a second for room; whether there was any.
    pub(crate) fn say(&mut self) -> bool {
        let next = self.head() + 1;
        match self.client.send(self.group, vec![mark(next); BODY_BYTES]) {
            Ok(changed) => {
                assert_eq!(changed.seq, next, "each number once");
                self.said += 1;
                true
            }
            Err(error) => {
                assert!(is_full(&error), "{error}");
                self.refused += 1;
                false
            }
        }
    }

    /// Goes on until so many bytes more are acknowledged.
    pub(crate) fn say_bytes(&mut self, bytes: u64) {
        let (until, from) = (self.said + bytes / BODY_BYTES as u64, Instant::now());
        while self.said < until {
            self.say();
            assert!(from.elapsed() < PATIENCE, "room comes back: {} of {until} said", self.said);
        }
    }

    pub(crate) fn check(&self, client: &mut Client, head_min: u64) -> u64 {
        check(client, self.group, head_min)
    }
}

/// What was acknowledged up to `head_min` is there, from the floor on, in its order; gives the head.
pub(crate) fn check(client: &mut Client, group: GroupId, head_min: u64) -> u64 {
    let mut next = floor(client, group, head_min);
    loop {
        let Ok(part) = client.history(group, next, 0) else {
            // Cleaning goes on meanwhile.
            let moved = floor(client, group, head_min);
            assert!(moved > next, "{next} is kept, and cannot be read");
            next = moved;
            continue;
        };
        for entry in part.entries {
            let LogEntry::Shown(entry) = entry else { panic!("hidden") };
            let Event::Message { body } = &entry.event else { panic!("{entry:?}") };
            assert!(entry.seq == next && body.len() == BODY_BYTES && body[0] == mark(next), "{next}");
            next += 1;
        }
        if next > part.head {
            return part.head;
        }
    }
}

/// From where on the log is kept; what has to be there is.
fn floor(client: &mut Client, group: GroupId, head_min: u64) -> u64 {
    let Ok(GroupShown::Record { head, floor, .. }) = client.group(group) else { panic!("a member sees the group") };
    assert!(head >= head_min, "{head} of {head_min}");
    assert!(floor > 1 && floor + KEPT <= head + 1, "{floor}: {KEPT} entries up to {head} have to be there");
    floor
}

pub(crate) fn is_full(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused(body) if body.code == ErrorCode::StorageFull.number())
}
