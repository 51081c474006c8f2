//! The last reads: what each user finds in the end, on a connection straight to the server.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use roundtable::ids::DeviceId;
use roundtable::wire::{Deframer, FrameCaps, Hello, Kind, Reply, Request, VERSION, features};

use super::format::{Answer, Call, Outcome, What};
use super::recorder::Recorder;
use super::translate::{answer_of, request_of};

const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that asks one thing after the other.
pub(crate) struct Reader {
    stream: TcpStream,
    deframer: Deframer,
    conn: u32,
    last_req: u32,
    recorder: Recorder,
}

impl Reader {
    pub(crate) fn connect(server: SocketAddr, conn: u32, user: &str, token: String, recorder: &Recorder) -> Self {
        let stream = TcpStream::connect(server).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let mut reader = Self { stream, deframer: Deframer::default(), conn, last_req: 1, recorder: recorder.clone() };
        recorder.say(What::Connect { conn, user: user.to_owned(), device: "last".to_owned() });
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            features: features::SERVED,
            heartbeat_s: 300,
            device: DeviceId::new("last").expect("a legal name"),
            token,
        };
        let welcome = reader.say(&Request::Hello(hello), 1);
        assert!(matches!(welcome, Reply::Welcome(_)), "{user}: {welcome:?}");
        reader
    }

    /// Its groups with their heads: the list, each record, and history; of groups that it may have been in as well.
    /// History begins so many entries below the last seq that is known, or with the first.
    pub(crate) fn read_all(&mut self, known: &BTreeMap<String, u64>, newest: Option<u64>) -> BTreeMap<String, u64> {
        let heads = self.list();
        for group in heads.keys() {
            self.ask(Call::Get { group: group.clone(), newer_than: 0 });
        }
        let begin = |head: u64| newest.map_or(1, |newest| head.saturating_sub(newest).max(1));
        let mut wanted: Vec<(String, u64)> = known.iter().map(|(group, head)| (group.clone(), begin(*head))).collect();
        while !wanted.is_empty() {
            let groups = wanted.split_off(wanted.len().saturating_sub(16));
            let Answer::Page { parts } = self.ask(Call::History { groups: groups.clone() }) else { panic!("no page") };
            for ((group, from), part) in groups.into_iter().zip(parts) {
                match part.outcome {
                    Outcome::Entries { head, entries, .. } => {
                        let next = entries.last().map_or(from, |entry| entry.seq + 1);
                        if next <= head {
                            wanted.push((group, next));
                        }
                    }
                    Outcome::Refused { code, detail } if code == "TRUNCATED" && detail > from => {
                        wanted.push((group, detail));
                    }
                    Outcome::Refused { .. } => {}
                }
            }
        }
        self.recorder.say(What::End { conn: self.conn, why: "it has read all".to_owned() });
        heads
    }

    fn list(&mut self) -> BTreeMap<String, u64> {
        let mut heads = BTreeMap::new();
        let mut after = None;
        loop {
            let Answer::Listed { more, groups } = self.ask(Call::List { after }) else { panic!("no list") };
            after = groups.last().map(|line| line.group.clone());
            heads.extend(groups.into_iter().map(|line| (line.group, line.head)));
            if !more {
                return heads;
            }
        }
    }

    fn ask(&mut self, call: Call) -> Answer {
        self.last_req += 1;
        let (conn, req) = (self.conn, self.last_req);
        let request = request_of(&call);
        self.recorder.say(What::Invoke { conn, req, call });
        let answer = answer_of(self.say(&request, req)).expect("an answer to a read");
        self.recorder.say(What::Return { conn, req, answer: answer.clone() });
        answer
    }

    fn say(&mut self, request: &Request, req: u32) -> Reply {
        let mut frame = Vec::new();
        request.encode_frame(&mut frame, req);
        self.stream.write_all(&frame).expect("the server reads");
        let mut bytes = vec![0; 64 * 1024];
        loop {
            if let Some(frame) = self.deframer.next_frame(FrameCaps::Server).expect("frames") {
                let kind = Kind::from_number(frame.header.kind).expect("a known kind");
                return Reply::decode(kind, frame.body).expect("a reply").expect("a whole reply");
            }
            let count = self.stream.read(&mut bytes).expect("the server answers");
            assert!(count > 0, "the server closed the connection of a last read");
            self.deframer.feed(&bytes[..count]);
        }
    }
}
