//! The hub under operations that a fuzzer chooses: peers that keep to the protocol beside peers that do not, a slow
//! disk, look-ups that overtake each other, readers that stop, time.
//!
//! ```text
//! u8  bit 0: the disk is done at once; bit 1: look-ups wait; bit 2: next to nothing is kept loaded
//! …   operations, each a byte that says which, and what it takes of the bytes behind it
//! ```
//!
//! After every turn of the loop the hub's bookkeeping is recounted (`invariants`), every frame is held to the rules of
//! the protocol on each connection that keeps to them itself (`audit`), and the model of storage refuses changes that
//! no rule allows. In the end everything drains, and nothing may be left that nothing would wake.

use arbitrary::{Result, Unstructured};

use super::world::{Peer, Reading, World, hello, user};
use crate::fuzzing::put_right;
use crate::ids::{GroupId, OperationId, UserId};
use crate::limits::HEADER_BYTES;
use crate::store::Event;
use crate::wire::{Attach, GroupSeq, HistoryRequest, Kind, Mark, Request};

const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];
const ROLES: [&str; 4] = ["user", "user", "service", "operator"];
/// Bounds on one input, so that none takes long.
const OPERATIONS_MAX: usize = 150;
const PEERS_MAX: usize = 12;
const GROUPS_MAX: usize = 12;

struct Guest {
    peer: Peer,
    role: &'static str,
}

struct Play {
    world: World,
    guests: Vec<Guest>,
    stopped: bool,
}

/// Whatever peers, storage and time do, the hub keeps its books, its promises, and forgets nothing.
pub(crate) fn hub(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut play = Play { world: World::slow(), guests: Vec::new(), stopped: false };
    // The end of the input ends the operations, wherever they are.
    let _ = play.run(&mut input);
    play.drain();
}

impl Play {
    fn run(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let modes: u8 = input.arbitrary()?;
        self.world.synced = modes & 1 != 0;
        self.world.loads_held = modes & 2 != 0;
        if modes & 4 != 0 {
            self.world.hub.cache.bytes_max = 2_000;
        }
        for _ in 0..OPERATIONS_MAX {
            if input.is_empty() {
                break;
            }
            self.step(input)?;
        }
        Ok(())
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.int_in_range(0..=31_u8)? {
            0..=3 => self.connect(input),
            4..=17 => self.ask(input),
            18 => self.misbehave(input),
            19 => self.send_frames(input),
            20 => {
                self.world.sync_one();
                self.world.turn();
                Ok(())
            }
            21 => {
                self.world.sync();
                Ok(())
            }
            22 => {
                self.world.apply_one();
                Ok(())
            }
            23..=25 => self.look_up(input),
            26 | 27 => {
                let ms = [1, 900, 5_000, 16_000, 61_000, 400_000];
                self.world.advance(*input.choose(&ms)?);
                Ok(())
            }
            28 => self.take(input),
            29 => self.disconnect(input),
            30 => self.storage(input),
            _ => self.stop(input),
        }
    }

    fn look_up(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.int_in_range(0..=5_u8)? {
            0 => self.world.loads_held = true,
            1 => self.world.answer_all(),
            2 if self.world.held_loads() > 1 => self.world.rotate_loads(),
            _ => _ = self.world.answer_one(),
        }
        Ok(())
    }

    // ---- peers -------------------------------------------------------------------------------------------------

    fn connect(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        self.guests.retain(|guest| self.world.is_open(guest.peer));
        if self.guests.len() >= PEERS_MAX {
            return Ok(());
        }
        let role = *input.choose(&ROLES)?;
        let name = *input.choose(&USERS)?;
        let device = *input.choose(&["phone", "tablet"])?;
        let peer = self.world.connect();
        self.guests.push(Guest { peer, role });
        let token = match input.int_in_range(0..=15_u8)? {
            0 => return Ok(()),
            1 => "expired".to_owned(),
            2 => "nobody".to_owned(),
            3 => format!("short:{name}"),
            _ => format!("{role}:{name}"),
        };
        self.world.ask(peer, &hello(&token, device));
        if role == "user" && input.ratio(7, 8)? && self.may_send(peer) {
            let attach = self.attach(input)?;
            self.world.ask(peer, &attach);
        }
        Ok(())
    }

    /// With marks, with nothing, or with some of what there is.
    fn attach(&mut self, input: &mut Unstructured<'_>) -> Result<Request> {
        let some = match input.int_in_range(0..=2_u8)? {
            0 => return Ok(Request::Attach(Attach::Marks)),
            1 => false,
            _ => true,
        };
        let mut groups = Vec::new();
        for group in self.world.model.groups.keys().filter(|_| some) {
            if input.arbitrary()? {
                groups.push(GroupSeq { group: *group, seq: input.int_in_range(0..=self.last_seen(*group))? });
            }
        }
        Ok(Request::Attach(Attach::Device { more: false, groups }))
    }

    /// What a device can have: storage may be ahead of what anybody was told.
    fn last_seen(&self, group: GroupId) -> u64 {
        let seen = self.world.lines.iter().flat_map(|line| &line.audit.seen);
        seen.filter(|(of, _)| *of == group).map(|(_, seq)| *seq).max().unwrap_or(0)
    }

    fn may_send(&self, peer: Peer) -> bool {
        self.world.is_open(peer) && self.world.hub.wants_bytes(self.world.key(peer))
    }

    fn guest(&self, input: &mut Unstructured<'_>) -> Result<Option<(Peer, &'static str)>> {
        if self.guests.is_empty() {
            return Ok(None);
        }
        let guest = input.choose(&self.guests)?;
        Ok(self.may_send(guest.peer).then_some((guest.peer, guest.role)))
    }

    fn take(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let Some((peer, _)) = self.guest(input)? else { return Ok(()) };
        match input.int_in_range(0..=3_u8)? {
            0 => self.world.set_reading(peer, Reading::Nothing),
            1 => self.world.set_reading(peer, Reading::Chunks(usize::from(input.int_in_range(1..=255_u8)?))),
            2 => self.world.set_reading(peer, Reading::Everything),
            _ => {
                self.world.take(peer, usize::from(input.arbitrary::<u16>()?));
                self.world.turn();
            }
        }
        Ok(())
    }

    fn disconnect(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        if !self.guests.is_empty() {
            let at = input.choose_index(self.guests.len())?;
            let guest = self.guests.swap_remove(at);
            if self.world.is_open(guest.peer) {
                self.world.disconnect(guest.peer);
            }
        }
        Ok(())
    }

    fn stop(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        if !self.stopped && input.ratio(1, 8)? {
            self.stopped = true;
            self.world.hub.handle_stop(8_000, self.world.now);
            self.world.turn();
        }
        Ok(())
    }

    fn storage(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let who = user(input.choose(&USERS)?);
        let groups_max = if input.arbitrary()? { Some(64) } else { None };
        self.world.storage(Event::UserFull { user: who, groups_max });
        Ok(())
    }

    // ---- what peers send ---------------------------------------------------------------------------------------

    /// Bytes of any kind.
    fn misbehave(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let Some((peer, _)) = self.guest(input)? else { return Ok(()) };
        let length = input.int_in_range(0..=80_usize)?;
        let bytes = input.bytes(length)?.to_vec();
        self.world.lines[peer.0].audit.trusts_nothing();
        self.world.send_bytes(peer, &bytes);
        Ok(())
    }

    /// Good frames of any kind, with any flags, numbers and bodies, in two pieces.
    fn send_frames(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let Some((peer, _)) = self.guest(input)? else { return Ok(()) };
        let mut bytes = Vec::new();
        for _ in 0..input.int_in_range(1..=3_u8)? {
            let kind = input.choose(Kind::ALL)?.number();
            let length = input.int_in_range(0..=120_u8)?;
            let start = bytes.len();
            bytes.resize(start + HEADER_BYTES, 0);
            bytes[start + 5] = input.int_in_range(0..=3_u8)?;
            bytes[start + 6..start + 8].copy_from_slice(&kind.to_be_bytes());
            bytes[start + 11] = length;
            bytes[start + 15] = input.arbitrary()?;
            bytes.extend_from_slice(input.bytes(usize::from(length))?);
        }
        put_right(&mut bytes);
        let cut = input.choose_index(bytes.len())?;
        self.world.lines[peer.0].audit.trusts_nothing();
        self.world.send_bytes(peer, &bytes[..cut]);
        if self.may_send(peer) {
            self.world.send_bytes(peer, &bytes[cut..]);
        }
        Ok(())
    }

    /// One request of those that a client may make, or several in one piece.
    fn ask(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let Some((peer, role)) = self.guest(input)? else { return Ok(()) };
        let request = self.request(input, role)?;
        if role == "service" && !matches!(request, Request::Feed { .. }) {
            let who = user(input.choose(&USERS)?);
            self.world.ask_as(peer, &request, &who);
        } else if input.ratio(1, 8)? {
            let other = self.request(input, role)?;
            self.world.ask_all(peer, &[request, other]);
        } else {
            self.world.ask(peer, &request);
        }
        Ok(())
    }

    fn request(&mut self, input: &mut Unstructured<'_>, role: &str) -> Result<Request> {
        if role != "user" && input.ratio(1, 4)? {
            let operation = self.operation(input)?;
            return Ok(match input.int_in_range(0..=4_u8)? {
                0 => Request::Feed { position: input.int_in_range(0..=40)? },
                1 => Request::Connections { after: input.int_in_range(0..=9)?, count_max: input.int_in_range(0..=3)? },
                2 => Request::Kick { user: user(input.choose(&USERS)?) },
                3 => Request::Stats,
                _ => Request::Create { operation, title: "".into(), members: some_users(input)? },
            });
        }
        if self.world.model.groups.len() < GROUPS_MAX && input.ratio(1, 6)? {
            let operation = self.operation(input)?;
            return Ok(Request::Create { operation, title: "a title".into(), members: some_users(input)? });
        }
        let group = self.group(input)?;
        match input.int_in_range(0..=19_u8)? {
            0..=10 => self.change(input, group),
            _ => read(input, group),
        }
    }

    fn change(&mut self, input: &mut Unstructured<'_>, group: GroupId) -> Result<Request> {
        let operation = self.operation(input)?;
        Ok(match input.int_in_range(0..=9_u8)? {
            0 => Request::Add { operation, group, members: some_users(input)? },
            1 => Request::Remove { operation, group, members: some_users(input)? },
            2 => Request::Leave { operation, group },
            3 => Request::Rename { operation, group, title: (*input.choose(&["", "other"])?).into() },
            4 => Request::Transfer { operation, group, owner: user(input.choose(&USERS)?) },
            5 if input.ratio(1, 4)? => Request::Dissolve { operation, group },
            6 => Request::Whisper { operation, group, to: some_users(input)?, body: some_body(input)?.into() },
            _ => Request::Send { operation, group, body: some_body(input)?.into() },
        })
    }

    /// A new one, or one that was used.
    fn operation(&mut self, input: &mut Unstructured<'_>) -> Result<OperationId> {
        if input.ratio(3, 4)? {
            return Ok(self.world.operation());
        }
        let again = u128::from(input.int_in_range(1..=24_u8)?) | 1 << 100;
        Ok(OperationId::from_bytes(again.to_be_bytes()).expect("not nil"))
    }

    /// One that there is, mostly.
    fn group(&mut self, input: &mut Unstructured<'_>) -> Result<GroupId> {
        let groups: Vec<GroupId> = self.world.model.groups.keys().copied().collect();
        if groups.is_empty() || input.ratio(1, 16)? {
            return Ok(GroupId::from_bytes([0x77; 16]).expect("not nil"));
        }
        input.choose(&groups).copied()
    }

    // ---- the end -----------------------------------------------------------------------------------------------

    /// Everybody reads, storage answers, time passes: then nothing may be under way.
    fn drain(&mut self) {
        for guest in &self.guests {
            if self.world.is_open(guest.peer) {
                self.world.set_reading(guest.peer, Reading::Everything);
            }
        }
        for _ in 0..8 {
            self.world.answer_all();
            self.world.sync();
            self.world.advance(300);
        }
        assert_eq!((self.world.model.queued(), self.world.held_loads()), (0, 0), "nothing waits for storage");
        self.world.hub.check_idle();
    }
}

fn read(input: &mut Unstructured<'_>, group: GroupId) -> Result<Request> {
    Ok(match input.int_in_range(0..=9_u8)? {
        0 => Request::GetGroup { group, newer_than: input.int_in_range(0..=6)? },
        1 => Request::Readers { group, seq: input.int_in_range(0..=6)? },
        2 => Request::ListGroups { after: None, count_max: input.int_in_range(0..=3)? },
        3 => Request::Signal { group, body: [1; 4].into() },
        4 | 5 => {
            let (received, read) = (input.int_in_range(0..=9)?, input.int_in_range(0..=9)?);
            Request::Acknowledge { marks: vec![Mark { group, received, read }] }
        }
        6 => Request::Ping,
        _ => {
            let groups = vec![GroupSeq { group, seq: input.int_in_range(1..=9)? }];
            let (entries_max, bytes_max) = (input.int_in_range(0..=3)?, 0);
            Request::History(HistoryRequest { groups, entries_max, bytes_max })
        }
    })
}

fn some_users(input: &mut Unstructured<'_>) -> Result<Vec<UserId>> {
    let which = input.int_in_range(0..=31_u8)?;
    let named = USERS.iter().enumerate().filter(|(at, _)| which >> at & 1 == 1);
    Ok(named.map(|(_, name)| user(name)).chain((which & 16 != 0).then(|| user("nobody yet"))).collect())
}

/// Small, or so large that a few of them fill an output buffer.
fn some_body(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    Ok(vec![7; if input.ratio(1, 5)? { 30_000 } else { 10 }])
}
