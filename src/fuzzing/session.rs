//! The client's side: a conversation over connections to a server that says whatever it likes.
//!
//! ```text
//! operations, each a byte that says which, and what it takes of the bytes behind it
//! ```
//!
//! A server that lies can make a client's log wrong, but not its promises about itself: entries of a group come
//! ascending and without gap unless the client says that something is missing, every call is answered once at most,
//! and what the client sends are frames that a server takes.

use std::collections::{BTreeMap, BTreeSet};

use arbitrary::{Result, Unstructured};

use super::put_right;
use super::server::{some_group, some_push, some_reply};
use crate::client::{CallId, Conversation, Event, Standing};
use crate::ids::{DeviceId, GroupId, OperationId};
use crate::limits::HEADER_BYTES;
use crate::wire::{Deframer, FrameCaps, GroupSeq, Hello, HistoryRequest, Kind, Mark, Push, Request};

const OPERATIONS_MAX: usize = 200;

struct Play {
    client: Conversation,
    now_ms: u64,
    connected: bool,
    /// What came out of the client on this connection.
    server: Deframer,
    /// Whether there was a connection: what a device has it says before.
    begun: bool,
    /// Numbers of requests that the server may answer.
    asked: Vec<(u32, Kind)>,
    calls: BTreeSet<CallId>,
    /// The next seq of each group that was told.
    nexts: BTreeMap<GroupId, u64>,
}

/// Whatever a server says, the client keeps its promises and its form.
pub fn session(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        features: 0,
        heartbeat_s: 15,
        device: DeviceId::new("phone").expect("a legal name"),
        token: "token".to_owned(),
    };
    let mut play = Play {
        client: Conversation::new(Some(hello)),
        now_ms: 1_000,
        connected: false,
        server: Deframer::default(),
        begun: false,
        asked: Vec::new(),
        calls: BTreeSet::new(),
        nexts: BTreeMap::new(),
    };
    // The end of the input ends the operations, wherever they are.
    let _ = play.run(&mut input);
    play.take();
}

impl Play {
    fn run(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        for _ in 0..OPERATIONS_MAX {
            if input.is_empty() {
                break;
            }
            self.step(input)?;
            self.take();
        }
        Ok(())
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.int_in_range(0..=31_u8)? {
            0..=2 => self.connect(),
            3 => self.disconnect(),
            4..=6 => self.call(input)?,
            7 => self.attach(input)?,
            8 => {
                let marks = [Mark { group: some_group(input)?, received: input.int_in_range(0..=9)?, read: 0 }];
                let _ = self.client.acknowledge(&marks);
            }
            9 => {
                self.now_ms += u64::from(input.arbitrary::<u16>()?);
                if self.client.handle_time(self.now_ms).is_err() {
                    self.disconnect();
                }
            }
            10 => self.raw(input)?,
            11 => self.any_frame(input)?,
            12..=16 => self.answer(input)?,
            _ => self.push(input)?,
        }
        Ok(())
    }

    // ---- what the program does ---------------------------------------------------------------------------------

    fn connect(&mut self) {
        if self.connected {
            return;
        }
        (self.connected, self.begun) = (true, true);
        self.server = Deframer::default();
        self.asked.clear();
        self.client.handle_connected(self.now_ms).expect("a short token");
    }

    fn disconnect(&mut self) {
        if self.connected {
            self.connected = false;
            self.client.handle_disconnected();
            self.client.set_token("another".to_owned());
        }
    }

    fn call(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let group = some_group(input)?;
        let operation = OperationId::from_bytes([input.int_in_range(1..=255_u8)?; 16]).expect("not nil");
        let request = match input.int_in_range(0..=6_u8)? {
            0 => Request::Create { operation, title: "t".into(), members: vec![] },
            1 => Request::Send { operation, group, body: vec![7; 10].into() },
            2 => Request::Leave { operation, group },
            3 => Request::GetGroup { group, newer_than: 0 },
            4 => {
                let groups = vec![GroupSeq { group, seq: input.int_in_range(1..=9)? }];
                Request::History(HistoryRequest { groups, entries_max: 0, bytes_max: 0 })
            }
            5 => Request::Feed { position: 0 },
            _ => {
                let signal = Request::Signal { group, body: [1; 4].into() };
                self.client.say_once(&signal, None).expect("a small frame");
                return Ok(());
            }
        };
        let call = self.client.call(request, None).expect("a small frame");
        assert!(self.calls.insert(call), "each call has a number of its own");
        if input.ratio(1, 8)? {
            self.client.give_up(call);
            self.calls.remove(&call);
        }
        Ok(())
    }

    fn attach(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let call = if input.arbitrary()? {
            self.client.attach_marks()
        } else {
            let group = some_group(input)?;
            let seq = input.int_in_range(0..=9)?;
            if self.begun || self.nexts.contains_key(&group) {
                return Ok(());
            }
            self.nexts.insert(group, seq + 1);
            self.client.attach_device(&[GroupSeq { group, seq }])
        };
        self.calls.insert(call);
        Ok(())
    }

    // ---- what the server says ----------------------------------------------------------------------------------

    fn receive(&mut self, bytes: &[u8]) {
        if !self.connected {
            return;
        }
        if let Err(error) = self.client.receive(self.now_ms, bytes) {
            assert!(!error.to_string().is_empty());
            self.connected = false;
            let may_return = self.client.handle_error(error);
            assert_eq!(may_return, may_return && *self.client.standing() == Standing::Down);
        }
    }

    fn raw(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let length = input.int_in_range(0..=60_usize)?;
        let bytes = input.bytes(length)?.to_vec();
        self.receive(&bytes);
        Ok(())
    }

    /// A good frame of any kind with any body, in two pieces.
    fn any_frame(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let length = input.int_in_range(0..=150_u8)?;
        let mut frame = vec![0; HEADER_BYTES];
        let kind = input.choose(Kind::ALL)?.number();
        frame[5] = u8::from(input.ratio(1, 32)?);
        frame[6..8].copy_from_slice(&kind.to_be_bytes());
        frame[11] = length;
        frame[15] = input.int_in_range(0..=12)?;
        frame.extend_from_slice(input.bytes(usize::from(length))?);
        put_right(&mut frame);
        let cut = input.choose_index(frame.len())?;
        self.receive(&frame[..cut]);
        self.receive(&frame[cut..]);
        Ok(())
    }

    /// An answer to something that was asked, of its kind mostly.
    fn answer(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        if self.asked.is_empty() {
            return Ok(());
        }
        let at = input.choose_index(self.asked.len())?;
        let (request_id, kind) = if input.ratio(7, 8)? { self.asked.swap_remove(at) } else { self.asked[at] };
        let reply = some_reply(input, kind)?;
        let mut frame = Vec::new();
        reply.encode_frame(&mut frame, request_id);
        self.receive(&frame);
        Ok(())
    }

    fn push(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let mut frame = Vec::new();
        some_push(input)?.encode_frame(&mut frame);
        self.receive(&frame);
        Ok(())
    }

    // ---- what the client says ----------------------------------------------------------------------------------

    fn take(&mut self) {
        let output = self.client.session().output().to_vec();
        self.client.consume_output(output.len());
        if self.connected {
            self.server.feed(&output);
        }
        while let Some(frame) = self.server.next_frame(FrameCaps::Client).expect("a client sends frames") {
            let kind = Kind::from_number(frame.header.kind).expect("of known kinds");
            let request = Request::decode(kind, frame.body).expect("which are requests");
            let request = request.unwrap_or_else(|error| panic!("which can be read: {kind:?} {error}"));
            assert_ne!(frame.header.request_id, 0, "0 is for pushes");
            assert_eq!(frame.header.flags, 0);
            if !matches!(request, Request::Acknowledge { .. }) {
                self.asked.push((frame.header.request_id, kind));
            }
        }
        while let Some((call, _)) = self.client.poll_answer() {
            assert!(self.calls.remove(&call), "a call is answered once, and only if it was made");
        }
        while let Some(event) = self.client.poll_event() {
            self.follow(event);
        }
        for at in self.client.session().positions() {
            // A server that says a group is behind before it says what the group is makes this one lower: entries are
            // told again after a reconnection then, and none is missed.
            assert!(self.nexts.get(&at.group).is_none_or(|next| at.seq.saturating_add(1) <= *next), "{at:?}");
        }
        for view in self.client.session().groups() {
            assert!(view.next() <= view.head().saturating_add(1), "nothing beyond the head is had");
        }
    }

    fn follow(&mut self, event: Event) {
        match event {
            Event::Group { packet, frame } => {
                let written = crate::wire::GroupPacket::clone(&packet);
                let mut again = Vec::new();
                Push::GroupPacket(written).encode_frame(&mut again);
                assert_eq!(frame[..8], again[..8], "it is the frame of the packet");
                let next = self.nexts.entry(packet.group).or_insert(1);
                *next = packet.from.max(*next);
            }
            Event::Entry { group, entry } => {
                let next = self.nexts.entry(group).or_insert(entry.seq());
                assert_eq!(entry.seq(), *next, "entries ascend without gap in {group}");
                *next = next.saturating_add(1);
                if self.client.session().positions().iter().all(|at| at.group != group) {
                    // It ended the membership: from here on nothing is known of the group.
                    self.nexts.remove(&group);
                }
            }
            Event::Truncated { group, floor } => {
                let next = self.nexts.entry(group).or_insert(floor);
                *next = floor.max(*next);
            }
            // Of a group that was not told: it says where reading begins.
            Event::Behind { group, from, .. } => _ = self.nexts.entry(group).or_insert(from),
            Event::Gone { group, .. } => _ = self.nexts.remove(&group),
            _ => {}
        }
    }
}
