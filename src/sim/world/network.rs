//! What lies between server and clients: bytes in pieces, windows, lines that come and go.

use std::hash::Hash;

use rand::Rng;

use super::{Line, WINDOW_BYTES, World};
use crate::client::Standing;
use crate::ids::UserId;
use crate::sim::audit::Audit;
use crate::sim::plan::Fault;

impl World {
    pub(super) fn move_bytes(&mut self) {
        let Some(at) = self.some_line() else { return };
        if self.lines[at].stalled_until_ms > self.now.monotonic_ms {
            return;
        }
        let most = if self.happens(Fault::SmallPieces) { 3 } else { 8_192 };
        let bytes = self.random.random_range(1..=most);
        if self.random.random_bool(0.5) {
            self.move_up(at, bytes);
        } else {
            self.move_down(at, bytes);
        }
    }

    pub(super) fn move_up(&mut self, at: usize, most: usize) -> bool {
        let (line, Some(server)) = (&mut self.lines[at], &mut self.server) else { return false };
        let Some(key) = line.key else { return false };
        if !server.hub.wants_bytes(key) {
            return false;
        }
        let bytes: Vec<u8> = if let Some(device) = line.device {
            let conversation = &mut self.devices[device].conversation;
            let bytes: Vec<u8> = conversation.session().output().iter().copied().take(most).collect();
            conversation.consume_output(bytes.len());
            bytes
        } else {
            let count = most.min(line.up.len());
            line.up.drain(..count).collect()
        };
        if bytes.is_empty() {
            return false;
        }
        bytes.hash(&mut self.trace);
        server.hub.handle_bytes(key, &bytes, self.now);
        true
    }

    pub(super) fn move_down(&mut self, at: usize, most: usize) -> bool {
        let line = &mut self.lines[at];
        let count = most.min(line.down.len());
        let bytes: Vec<u8> = line.down.drain(..count).collect();
        let key = line.key;
        if let (Some(key), Some(server)) = (key, &mut self.server)
            && count > 0
        {
            server.hub.handle_writable(key);
        }
        let Some(device) = line.device else { return count > 0 };
        let now_ms = self.now.monotonic_ms;
        if count > 0 {
            let received = self.devices[device].conversation.receive(now_ms, &bytes);
            received.expect("what a server says can be understood");
            self.devices[device].take(&mut self.truth);
            for what in std::mem::take(&mut self.devices[device].rare) {
                self.count(what);
            }
        }
        if self.lines[at].down.is_empty() && key.is_none() {
            if self.lines[at].audit.has_gone_away() {
                self.devices[device].check_finished(self.lines[at].number, &self.truth);
            }
            self.drop_line(at, false);
            return true;
        }
        count > 0
    }

    /// A connection breaks; what is on its way is lost.
    pub(super) fn drop_line(&mut self, at: usize, _is_reset: bool) {
        let line = self.lines.remove(at);
        if let (Some(key), Some(server)) = (line.key, &mut self.server) {
            server.hub.handle_closed(key, self.now);
        }
        if let Some(device) = line.device {
            self.leave_line(device);
        }
    }

    /// The connections of a user that the server knows as its.
    pub(in crate::sim) fn lines_of(&self, user: &UserId) -> Vec<usize> {
        let lines = self.lines.iter().filter(|line| line.key.is_some() && line.audit.user() == Some(user));
        lines.map(|line| line.number).collect()
    }

    pub(super) fn leave_line(&mut self, at: usize) {
        let away_ms = if self.quiet { 0 } else { self.random.random_range(0..1_500) };
        let device = &mut self.devices[at];
        device.line = None;
        device.away_until_ms = self.now.monotonic_ms + away_ms;
        device.take(&mut self.truth);
        let reason = device.conversation.handle_disconnected();
        let title = device.title();
        if matches!(device.conversation.standing(), Standing::Over(_)) {
            device.restart();
        }
        self.tell(|| {
            format!("{title} loses its connection{}", reason.map_or(String::new(), |r| format!(": {}", r.name())))
        });
    }

    pub(in crate::sim) fn accept(&mut self, device: Option<usize>) -> bool {
        let Some(server) = self.server.as_mut().filter(|_| self.drain_until_ms.is_none()) else { return false };
        let key = server.hub.handle_accepted(self.now);
        self.lines_made += 1;
        let number = self.lines_made;
        let window_bytes = if self.happens(Fault::SmallWindow) { 300 } else { WINDOW_BYTES };
        self.lines.push(Line {
            number,
            key: Some(key),
            device,
            is_hostile: device.is_none(),
            down: Vec::new(),
            up: Vec::new(),
            window_bytes,
            stalled_until_ms: 0,
            audit: Audit::default(),
        });
        if let Some(device) = device {
            self.devices[device].line = Some(number);
            let connected = self.devices[device].conversation.handle_connected(self.now.monotonic_ms);
            connected.expect("a hello is small");
            let title = self.devices[device].title();
            self.tell(|| format!("{title} connects"));
        }
        true
    }
}
