//! Going on line: what a connection lacks is told, paced by its output; from then on it gets what comes.
//!
//! ```text
//! Detached ──Attach──▶ Loading ──memberships──▶ Attached: each group of the user is live, or in `behind`
//!
//! behind:  Untold ──group packet──▶ Told ──history reaches the head──▶ live ──reads too slowly──▶ Owed ──Behind──▶ Told
//!          Told ──its user leaves──▶ Gone ──Gone──▶ (nothing): it may still read up to where the membership ended
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::Hub;
use super::connection::{Basis, Behind, Collecting, ConnectionKey, Lacks, Loading, Notices, Presence};
use super::dirty::Company;
use super::outbox::SharedFrame;
use super::reads::PendingRead;
use super::task::Task;
use crate::ids::{GroupId, UserId};
use crate::limits::{
    ATTACH_GROUPS_MAX, CATCH_UP_LOADS, CONNECTIONS_PER_USER_MAX, FRAME_BYTES_COPIED_MAX, OUTPUT_BYTES_SOFT,
};
use crate::store::{Membership, ReadId, Request as StoreRequest};
use crate::wire::{Attach, ErrorCode, GroupPacket, Push};

impl Hub {
    /// Takes one frame of an attach. Says whether it was in place.
    pub(super) fn attach(&mut self, key: ConnectionKey, attach: Attach) -> bool {
        let Some(session) = self.connections.find_mut(key).and_then(|connection| connection.session_mut()) else {
            return false;
        };
        let mut collecting = match std::mem::replace(&mut session.presence, Presence::Detached) {
            Presence::Detached => Box::<Collecting>::default(),
            Presence::Collecting(collecting) => collecting,
            before @ (Presence::Loading(_) | Presence::Attached) => {
                session.presence = before;
                return false;
            }
        };
        let basis = match attach {
            Attach::Marks if collecting.has.is_empty() => Basis::Marks,
            Attach::Marks => return false,
            Attach::Device { more, groups } => {
                collecting.has.extend(groups.into_iter().map(|at| (at.group, at.seq)));
                if collecting.has.len() > ATTACH_GROUPS_MAX {
                    return false;
                }
                if more {
                    session.presence = Presence::Collecting(collecting);
                    return true;
                }
                Basis::Device(collecting.has)
            }
        };
        self.go_on_line(key, basis);
        true
    }

    /// From here on the connection counts as its user's. The newest connection of a device wins, and of a user's many
    /// the oldest gives way.
    fn go_on_line(&mut self, key: ConnectionKey, basis: Basis) {
        let Some(session) = self.connections.find(key).and_then(|connection| connection.session()) else { return };
        let (user, device) = (session.user.clone(), session.device.clone());
        let is_open = |other: &&ConnectionKey| self.connections.find(**other).is_some_and(|found| !found.closing);
        let others: Vec<_> = self.directory.connections(&user).iter().filter(is_open).copied().collect();
        let same_device = |other: &&ConnectionKey| {
            let session = self.connections.find(**other).and_then(|connection| connection.session());
            session.is_some_and(|session| session.device == device)
        };
        let mut leaving: BTreeSet<ConnectionKey> = others.iter().filter(same_device).copied().collect();
        let staying = others.iter().filter(|other| !leaving.contains(other)).count();
        let over = (staying + 1).saturating_sub(CONNECTIONS_PER_USER_MAX);
        let oldest: Vec<_> = others.iter().filter(|other| !leaving.contains(other)).take(over).copied().collect();
        leaving.extend(oldest);
        for other in leaving {
            self.append(other, |out| Push::TakenOver.encode_frame(out));
            self.directory.remove(&user, other);
            self.close(other);
        }
        self.directory.insert(&user, key);
        let read = self.begin_read(PendingRead::Attach(key));
        self.user_loads.insert(read);
        self.requests.push_back(StoreRequest::LoadUser { read, user });
        if let Some(session) = self.connections.find_mut(key).and_then(|connection| connection.session_mut()) {
            let loading = Loading { basis, late: BTreeSet::new(), ended: BTreeMap::new() };
            session.presence = Presence::Loading(Box::new(loading));
        }
    }

    /// The memberships of a connection's user are known: what it lacks follows.
    pub(super) fn finish_user_load(&mut self, read: ReadId, memberships: Vec<Membership>) {
        let Some(PendingRead::Attach(key)) = self.reads.remove(&read) else { return };
        self.user_loads.remove(&read);
        let Some(session) = self.connections.find_mut(key).and_then(|connection| connection.session_mut()) else {
            return;
        };
        let user = session.user.clone();
        let before = std::mem::replace(&mut session.presence, Presence::Attached);
        let Presence::Loading(loading) = before else { unreachable!("memberships are loaded to attach") };
        let Loading { basis, late, ended } = *loading;
        let mut places: BTreeMap<GroupId, Membership> =
            memberships.into_iter().map(|membership| (membership.group, membership)).collect();
        for group in late {
            places.entry(group).or_insert(Membership { group, joined: 1, until: None, received: 0, read: 0, head: 1 });
        }
        let mut behind = strangers(&basis, &places);
        let mut joining = BTreeMap::new();
        for place in places.into_values() {
            let (group, joined) = (place.group, place.joined);
            let Some(place) = self.newest_place(&user, place, ended.get(&group).copied()) else {
                if basis.shows(group) {
                    joining.insert(group, Behind::Untold { from: joined + 1, shows: true });
                }
                continue;
            };
            match lack(&basis, &place) {
                Some(lack) => _ = behind.insert(place.group, lack),
                None if place.until.is_none() => self.add_live(place.group, key),
                None => {}
            }
        }
        if let Some(session) = self.connections.find_mut(key).and_then(|connection| connection.session_mut()) {
            session.notices = Notices::new(behind.keys().copied());
            // Those who join are told when that is released.
            behind.append(&mut joining);
            session.behind = Lacks::new(behind);
            session.ready_owed = true;
        }
        self.tell_notices(key);
    }

    /// A membership as it is now, by what the hub has in memory, and by where it `ended` since it was asked for. Nothing
    /// if the index knew of the joining before it was released: that tells this connection of it.
    fn newest_place(&self, user: &UserId, mut place: Membership, ended: Option<u64>) -> Option<Membership> {
        if let Some(group) = self.groups.get(&place.group).and_then(|slot| slot.group.as_ref()) {
            place.head = group.durable_head;
            match group.durable.member(user) {
                Some(member) => {
                    place.joined = member.joined;
                    place.until = None;
                }
                None if place.joined > group.durable_head => return None,
                None => {
                    place.until = ended.or(place.until);
                    place.until?;
                }
            }
        }
        place.received = self.marks.of(user, place.group).0.max(place.received);
        Some(place)
    }

    /// From here on the connection gets the entries of a group as they come. A group that is not loaded finds it when
    /// it is.
    pub(super) fn add_live(&mut self, group: GroupId, key: ConnectionKey) {
        self.forget_audience();
        let Some(group) = self.groups.get_mut(&group).and_then(|slot| slot.group.as_mut()) else { return };
        if group.live.len() == group.live.capacity() {
            // Those who are gone are only noticed by an entry; where none comes, they must not pile up.
            group.live.retain(|other| self.connections.find(*other).is_some());
        }
        group.live.push(key);
        let bytes = group.memory_bytes();
        self.cache.recount(&mut group.counted_bytes, bytes);
    }

    /// Tells a connection what is owed to it, as far as its output and the loads under way allow.
    pub(super) fn tell_notices(&mut self, key: ConnectionKey) {
        loop {
            let Some(connection) = self.connections.find_mut(key) else { return };
            let has_room = !connection.closing && connection.outbox.bytes() <= OUTPUT_BYTES_SOFT / 2;
            let Some(session) = connection.session_mut() else { return };
            if !has_room || session.notices_loading >= CATCH_UP_LOADS {
                return;
            }
            let Some(group) = session.notices.pop_front() else { break };
            match session.behind.get(&group) {
                None | Some(Behind::Told) => {}
                Some(Behind::Gone { until, from }) => {
                    let (until, from) = (*until, *from);
                    session.behind.remove(&group);
                    if let Some(from) = from {
                        self.append(key, |out| Push::Behind { group, from, head: until }.encode_frame(out));
                    }
                    self.append(key, |out| Push::Gone { group, until }.encode_frame(out));
                }
                Some(Behind::Untold { .. } | Behind::Owed { .. }) => {
                    session.notices_loading += 1;
                    self.enqueue(group, Task::Notice { connection: key });
                }
            }
        }
        let Some(session) = self.connections.find_mut(key).and_then(|connection| connection.session_mut()) else {
            return;
        };
        if session.notices_loading == 0 && std::mem::take(&mut session.ready_owed) {
            self.append(key, |out| Push::Ready.encode_frame(out));
        }
    }

    /// A group that something is owed about is loaded: tells it.
    pub(super) fn tell_loaded(&mut self, key: ConnectionKey, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id).and_then(|slot| slot.group.as_mut()) else { return };
        let Some(connection) = self.connections.find_mut(key) else { return };
        let is_full = connection.outbox.bytes() > OUTPUT_BYTES_SOFT / 2;
        let Some(session) = connection.session_mut() else { return };
        session.notices_loading -= 1;
        if is_full {
            // Others came first while this one was loaded: told when they are written.
            session.notices.push_front(id);
            return;
        }
        let head = group.durable_head;
        let is_member = group.durable.has(&session.user);
        let mut is_live = false;
        let push = match session.behind.get(&id).copied() {
            None | Some(Behind::Told | Behind::Gone { .. }) => None,
            Some(Behind::Untold { shows: false, .. }) if !is_member => {
                session.behind.remove(&id);
                None
            }
            Some(Behind::Untold { .. } | Behind::Owed { .. }) if !is_member => {
                session.behind.remove(&id);
                Some(Push::Gone { group: id, until: group.durable.version })
            }
            Some(lack @ (Behind::Untold { from, .. } | Behind::Owed { from })) => {
                let from = from.max(group.floor).min(head + 1);
                if from > head {
                    session.behind.remove(&id);
                    is_live = true;
                } else {
                    session.behind.insert(id, Behind::Told);
                }
                match lack {
                    Behind::Untold { .. } => {
                        self.tell_packet(key, id, from);
                        None
                    }
                    _ if from <= head => Some(Push::Behind { group: id, from, head }),
                    _ => None,
                }
            }
        };
        if let Some(push) = push {
            self.append(key, |out| push.encode_frame(out));
        }
        if is_live {
            self.add_live(id, key);
        }
        self.tell_more(key);
    }

    /// Appends the group packet of a loaded group. A large one is made once for all who come one after the other.
    fn tell_packet(&mut self, key: ConnectionKey, id: GroupId, from: u64) {
        let Some(group) = self.groups.get_mut(&id).and_then(|slot| slot.group.as_mut()) else { return };
        let head = group.durable_head;
        if let Some((_, _, frame)) = group.packet.as_ref().filter(|packet| (packet.0, packet.1) == (head, from)) {
            let frame = frame.clone();
            return self.append_shared(key, &frame, Company::Few);
        }
        let mut frame = Vec::new();
        Push::GroupPacket(GroupPacket::of(&group.durable, head, from)).encode_frame(&mut frame);
        if frame.len() <= FRAME_BYTES_COPIED_MAX {
            return self.append(key, |out| out.extend_from_slice(&frame));
        }
        let frame = SharedFrame::new(frame);
        group.packet = Some((head, from, frame.clone()));
        self.append_shared(key, &frame, Company::Few);
    }

    /// A group that something is owed about cannot be loaded: nothing can be told of it. One that is damaged stays
    /// behind, so that nothing of it is pushed over the gap.
    pub(super) fn tell_missing(&mut self, key: ConnectionKey, id: GroupId, code: u16) {
        if let Some(session) = self.connections.find_mut(key).and_then(|connection| connection.session_mut()) {
            session.notices_loading -= 1;
            if code == ErrorCode::NotFound.number() {
                session.behind.remove(&id);
            }
        }
        self.tell_more(key);
    }

    /// Goes on with the notices of a connection when the present input is handled: not at once, for a user may have
    /// any number of groups, and one notice must not stand on the stack of another.
    pub(super) fn tell_more(&mut self, key: ConnectionKey) {
        if self.telling.back() != Some(&key) {
            self.telling.push_back(key);
        }
    }
}

/// The groups that the device has and its user has no place in.
fn strangers(basis: &Basis, places: &BTreeMap<GroupId, Membership>) -> BTreeMap<GroupId, Behind> {
    match basis {
        Basis::Marks => BTreeMap::new(),
        Basis::Device(has) => {
            let unknown = has.keys().filter(|group| !places.contains_key(group));
            unknown.map(|group| (*group, Behind::Gone { until: 0, from: None })).collect()
        }
    }
}

/// What a connection lacks of a group; `None` if there is nothing to tell.
fn lack(basis: &Basis, place: &Membership) -> Option<Behind> {
    let has = match basis {
        Basis::Device(has) => has.get(&place.group).copied(),
        Basis::Marks => Some(place.received).filter(|received| *received >= place.joined),
    };
    match (has, place.until) {
        (Some(seq), Some(until)) => {
            let from = matches!(basis, Basis::Marks).then_some(seq + 1);
            (seq < until || from.is_none()).then_some(Behind::Gone { until, from })
        }
        (None, Some(_)) => None,
        (Some(seq), None) if seq >= place.head => None,
        (Some(seq), None) if seq >= place.joined => Some(Behind::Owed { from: seq + 1 }),
        // It has the group from an earlier stay of its user at most: the record that it has misses what was between.
        (Some(_) | None, None) => Some(Behind::Untold { from: place.joined + 1, shows: has.is_some() }),
    }
}
