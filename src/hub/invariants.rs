//! The hub's bookkeeping, recounted from the beginning.

use std::collections::BTreeSet;

use crate::hub::Hub;
use crate::hub::connection::{Connection, ConnectionKey, Overdue, Presence, State, in_flight_max};
use crate::hub::operations::Window;
use crate::hub::reads::PendingRead;
use crate::hub::release::Release;
use crate::hub::task::Task;
use crate::limits::IN_FLIGHT_MAX;

impl Hub {
    /// Asserts what the types of the hub say about themselves. It may look at everything, and so takes its time.
    pub(crate) fn check_invariants(&self) {
        assert!(self.burst.is_none(), "a burst ends with the input that it began in");
        self.check_output();
        self.check_connections();
        self.check_input();
        self.check_live();
        self.check_cache();
        self.check_releases();
    }

    fn each_connection(&self) -> impl Iterator<Item = (ConnectionKey, &Connection)> {
        self.connections
            .keys()
            .into_iter()
            .map(|key| (key, self.connections.find(key).expect("a key is of a connection")))
    }

    fn check_output(&self) {
        let mut shared = BTreeSet::new();
        let mut bytes = 0;
        for (_, connection) in self.each_connection() {
            bytes += connection.outbox.check_invariants(&mut shared);
        }
        bytes += shared.iter().map(|(_, bytes)| bytes).sum::<usize>();
        assert_eq!(self.output_bytes, bytes, "output is counted once");
    }

    fn check_connections(&self) {
        let unauthenticated = self.each_connection().filter(|(_, found)| found.session().is_none()).count();
        assert_eq!(self.unauthenticated, unauthenticated);
        assert_eq!(self.timers.len(), self.connections.len(), "each connection has one timer");
        for (key, connection) in self.each_connection() {
            let in_flight_max = connection.session().map_or(IN_FLIGHT_MAX, |session| in_flight_max(session.role));
            // The last one that is taken may be an acknowledgement, which counts for each of its marks.
            let in_flight = connection.in_flight as usize;
            let surplus = if in_flight > in_flight_max { self.marks_under_way(key) } else { 0 };
            assert!(in_flight <= in_flight_max + surplus, "requests above the limit are not taken");
            let (deadline_ms, overdue) = connection.deadline();
            // What is not heard while it is paused counts from when it is resumed, and is armed then.
            let begins_anew = self.resumed.contains(&key) && matches!(overdue, Overdue::Silence | Overdue::Frame);
            assert!(connection.timer_ms <= deadline_ms || begins_anew, "no deadline is missed");
            assert!(self.timers.contains(&(connection.timer_ms, key)));
            let is_stuck = connection.stuck_since.is_some();
            assert!(!is_stuck || connection.closing || !connection.outbox.is_empty(), "what is stuck waits");
            assert_eq!(self.dirty.times(key), usize::from(connection.dirty), "a dirty connection is queued once");
            assert_eq!(self.held_back.contains(&key), connection.held_back);
            self.check_presence(key, connection);
        }
    }

    /// Marks that a connection has said and that are not taken yet.
    fn marks_under_way(&self, key: ConnectionKey) -> usize {
        let waiting = self.groups.values().flat_map(|slot| &slot.waiting);
        let waiting = waiting.filter(|task| matches!(task, Task::Mark { caller, .. } if caller.connection == key));
        let is_its =
            |read: &&PendingRead| matches!(read, PendingRead::FormerMark(caller, ..) if caller.connection == key);
        waiting.count() + self.reads.values().filter(is_its).count()
    }

    fn check_presence(&self, key: ConnectionKey, connection: &Connection) {
        let State::Open(session) = &connection.state else { return };
        let listed = self.directory.connections(&session.user).iter().filter(|other| **other == key).count();
        let on_line = matches!(session.presence, Presence::Loading(_) | Presence::Attached);
        assert!(listed <= usize::from(on_line), "only who is on line is in the directory, once");
        assert!(connection.closing || listed == usize::from(on_line), "who is on line is in the directory");
    }

    /// What counts as input is what connections hold, or held when they were last heard.
    fn check_input(&self) {
        let counted: usize = self.each_connection().map(|(_, connection)| connection.counted_input).sum();
        assert_eq!(self.input_bytes, counted, "input is accounted");
        for (_, connection) in self.each_connection().filter(|(_, connection)| connection.in_flight == 0) {
            assert_eq!(connection.request_bytes, 0, "requests that are done cost nothing");
        }
    }

    /// `live` names exactly the connections that get the next entry.
    fn check_live(&self) {
        for (id, slot) in &self.groups {
            let Some(group) = &slot.group else { continue };
            let named: Vec<_> = group
                .live
                .iter()
                .copied()
                .filter(|key| self.connections.find(*key).is_some_and(|connection| !connection.closing))
                .collect();
            let distinct: BTreeSet<_> = named.iter().copied().collect();
            assert_eq!(named.len(), distinct.len(), "a connection is live once");
            let wanted: BTreeSet<_> = self
                .each_connection()
                .filter(|(_, connection)| connection.is_live(*id))
                .filter(|(_, connection)| {
                    group.durable_head > 0
                        && group.durable.has(&connection.session().expect("who is live is authenticated").user)
                })
                .map(|(key, _)| key)
                .collect();
            assert_eq!(distinct, wanted, "live in {id}");
        }
    }

    fn check_cache(&self) {
        let groups = self.groups.values().filter_map(|slot| slot.group.as_ref()).map(|group| group.counted_bytes);
        let windows = self.windows.values().map(|window| match window {
            Window::Loaded(remembered) => remembered.counted_bytes,
            Window::Loading { .. } => 0,
        });
        let loading = self.groups.values().filter(|slot| slot.group.is_none()).count()
            + self.windows.values().filter(|window| matches!(window, Window::Loading { .. })).count();
        assert_eq!(self.loads, loading, "loads under way");
        assert_eq!(self.cache.bytes, groups.sum::<usize>() + windows.sum::<usize>(), "the cache counts what is loaded");
    }

    fn check_releases(&self) {
        let mut pending = std::collections::BTreeMap::new();
        for release in self.releases.all() {
            if let Release::Effect(released) = release {
                *pending.entry(released.group).or_insert(0) += 1;
            }
        }
        for (id, slot) in &self.groups {
            let counted = slot.group.as_ref().map_or(0, |group| group.pending);
            assert_eq!(counted, pending.remove(id).unwrap_or(0), "pending commits of {id}");
        }
        assert!(pending.is_empty(), "a group with pending commits stays loaded");
    }

    /// Nothing that came in is still without its outcome.
    pub(crate) fn check_idle(&self) {
        assert!(self.releases.is_empty() && self.reads.is_empty() && self.requests.is_empty());
        assert!(self.marks.is_known(), "marks are kept for look-ups that are under way");
        assert!(self.held_back.is_empty() && self.resumed.is_empty() && self.unblocked.is_empty());
        for (id, slot) in &self.groups {
            let group = slot.group.as_ref().unwrap_or_else(|| panic!("{id} is still being loaded"));
            assert!(slot.waiting.is_empty() && group.is_idle(), "{id} has work that nothing will wake");
        }
        for (_, connection) in self.each_connection().filter(|(_, connection)| !connection.closing) {
            assert_eq!(connection.in_flight, 0, "every request has its answer");
            assert!(connection.outbox.is_empty());
            let Some(session) = connection.session() else { continue };
            assert!(session.notices.is_empty() && session.notices_loading == 0 && !session.ready_owed);
        }
    }
}
