//! How the server begins and ends: starts, kills, power cuts, stops that drain.

use rand::Rng;

use super::{DRAIN_MS, Line, World, check_same};
use crate::sim::plan::Fault;
use crate::sim::rot;
use crate::sim::server::{self, Server};
use crate::store::OpenError;
use crate::store::stepped::MemoryHome;

impl World {
    pub(super) fn start(&mut self) {
        if self.happens(Fault::IndexLoss) {
            self.count("index lost");
            self.home = MemoryHome::default();
        }
        let started = Server::start(&self.disk, &self.home, &self.plan, &mut self.random, self.now);
        if self.disk.is_dead() {
            self.count("cut while starting");
            return self.end_process();
        }
        let mut server = match started {
            Ok(server) => server,
            Err(error @ (OpenError::Disk(_) | OpenError::Full { .. })) => {
                self.count("start failed");
                self.tell(|| format!("the server does not start: {error}"));
                self.disk.kill();
                return self.rest_before_start();
            }
            Err(error) => panic!("the server refuses to start: {error}"),
        };
        let known = self.truth.operations.len();
        self.truth.follow(&self.disk);
        if self.truth.operations.len() > known {
            self.count("unacknowledged changes recovered");
        }
        self.tell(|| "the server starts".to_owned());
        // What the run before had not folded is folded now, or beside everything else.
        let lazily = self.random.random_bool(0.5);
        let begun = server.storage.step_index().and_then(|()| if lazily { Ok(()) } else { server.storage.catch_up() });
        if let Err(message) = begun {
            panic!("the index does not start: {message}");
        }
        if self.disk.is_dead() {
            self.count("cut while starting");
            return self.end_process();
        }
        if lazily {
            self.count("answers beside the replay");
            self.server = Some(server);
            return;
        }
        let account = server::account(&mut server.storage, &self.truth, &self.users);
        server::check_account(&account, &self.truth);
        if self.random.random_bool(0.15) {
            let home = if self.random.random_bool(0.5) { MemoryHome::default() } else { self.home.fork() };
            let anew = server::account_anew(&self.disk, &home, &self.plan, &self.truth, &self.users);
            check_same(anew, &account, "recovered twice, it is the same");
            self.count("recovered twice");
        }
        if self.happens(Fault::BitFlip) {
            let home = if self.random.random_bool(0.5) { MemoryHome::default() } else { self.home.fork() };
            let known = (&self.truth, &self.users[..]);
            let outcome = rot::check(&self.disk, &home, &self.plan, known, &mut self.random);
            self.count(outcome);
        }
        self.server = Some(server);
    }

    fn rest_before_start(&mut self) {
        self.start_at_ms = self.now.monotonic_ms + self.random.random_range(0..500);
    }

    /// The process came to its end within what it asked of the disk.
    pub(super) fn end_process(&mut self) {
        let is_power_cut = self.random.random_bool(0.6);
        self.count("cut within a step");
        self.end_life(is_power_cut);
    }

    pub(super) fn end_life(&mut self, is_power_cut: bool) {
        if self.server.is_some() && self.random.random_bool(0.5) && !self.disk.is_dead() {
            // What was reported may still have got out.
            self.turn();
        }
        let Some(server) = self.server.take() else {
            if self.disk.is_dead() {
                self.lose(is_power_cut);
            }
            return;
        };
        assert_eq!(server.storage.renewals(), 0, "the index never fails by itself");
        drop(server);
        if self.drain_until_ms.take().is_some() {
            self.count("cut while stopping");
        }
        self.lose(is_power_cut);
        for line in &mut self.lines {
            line.key = None;
        }
        self.lines.retain(|line| line.device.is_some());
    }

    fn lose(&mut self, is_power_cut: bool) {
        let pending = self.disk.pending();
        if is_power_cut {
            self.count("power cut");
            if pending > 0 {
                self.count("power cut between write and sync");
            }
            let chance = [0.0, 0.3, 0.7, 1.0][self.random.random_range(0..4_usize)];
            let kept: Vec<bool> = (0..pending).map(|_| self.random.random_bool(chance)).collect();
            let some = kept.iter().filter(|kept| **kept).count();
            self.tell(|| format!("the power is cut: {some} of {pending} pending writes survive"));
            self.disk.crash(|number| kept[number]);
            let batches = self.random.random_range(0..4);
            self.home.crash(batches);
        } else {
            self.count("kill");
            self.tell(|| format!("the server is killed, {pending} writes are not synced"));
            self.disk.kill();
        }
        self.rest_before_start();
    }

    /// Storage has failed: the process stops, as it has to.
    pub(super) fn fail(&mut self, message: &str) {
        if self.disk.is_dead() {
            return self.end_process();
        }
        self.tell(|| format!("storage fails: {message}"));
        self.count("storage failed");
        self.end_life(false);
    }

    /// The server is asked to stop: it begins nothing more, finishes what it has begun, and then ends. Asked again, or
    /// told so, it does not wait.
    pub(super) fn begin_stop(&mut self) {
        let Some(server) = &mut self.server else { return };
        let patience_ms = [0, 200, DRAIN_MS][self.random.random_range(0..3_usize)];
        let until_ms = self.now.monotonic_ms + patience_ms;
        if let Some(before_ms) = &mut self.drain_until_ms {
            *before_ms = until_ms.min(*before_ms);
            return;
        }
        self.drain_until_ms = Some(until_ms);
        server.set_time(self.now);
        server.hub.handle_stop(DRAIN_MS, self.now);
        self.tell(|| format!("the server is asked to stop, within {patience_ms} ms"));
    }

    /// Ends the server if it stops and has nothing left to do, or no more time.
    pub(super) fn end_stop_if_due(&mut self) {
        let (Some(until_ms), Some(server)) = (self.drain_until_ms, &self.server) else { return };
        let is_drained = server.hub.is_drained();
        if !is_drained && self.now.monotonic_ms < until_ms {
            return;
        }
        if is_drained {
            let is_told = |line: &Line| line.key.is_none() || line.audit.has_ended();
            assert!(self.lines.iter().all(is_told), "a server that stops tells each connection");
            self.count("drained stop");
        }
        self.end_stop();
    }

    fn end_stop(&mut self) {
        self.drain_until_ms = None;
        let Some(server) = self.server.take() else { return };
        self.tell(|| "the server is stopped".to_owned());
        let stopped = server.storage.stop();
        if stopped.is_ok() {
            self.count("clean stop");
        }
        for line in &mut self.lines {
            line.key = None;
        }
        self.lines.retain(|line| line.device.is_some());
        if self.disk.is_dead() {
            return self.lose(true);
        }
        self.disk.kill();
        self.rest_before_start();
    }
}
