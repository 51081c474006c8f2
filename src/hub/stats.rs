//! Counters and gauges, by name with unit.

use super::Hub;
use super::reads::PendingRead;
use super::task::Caller;
use crate::store::{ReadId, Request as StoreRequest};
use crate::wire::{Reply, Stat};

/// What happened since the start.
#[derive(Debug)]
pub(super) struct Counters {
    started_ms: u64,
    pub(super) accepted: u64,
    pub(super) requests: u64,
    pub(super) refused: u64,
    pub(super) commits: u64,
    pub(super) group_packets: u64,
    pub(super) entries_pushed: u64,
    pub(super) signals_pushed: u64,
    pub(super) fallen_behind: u64,
    pub(super) closed_slow: u64,
    pub(super) closed_protocol: u64,
    pub(super) evicted: u64,
    pub(super) held_back: u64,
}

impl Counters {
    pub(super) fn new(started_ms: u64) -> Self {
        Self {
            started_ms,
            accepted: 0,
            requests: 0,
            refused: 0,
            commits: 0,
            group_packets: 0,
            entries_pushed: 0,
            signals_pushed: 0,
            fallen_behind: 0,
            closed_slow: 0,
            closed_protocol: 0,
            evicted: 0,
            held_back: 0,
        }
    }
}

impl Hub {
    pub(super) fn stats(&mut self, caller: Caller) {
        let read = self.begin_read(PendingRead::Stats(caller));
        self.requests.push_back(StoreRequest::ReadStats { read });
    }

    pub(super) fn finish_stats(&mut self, read: ReadId, storage: Vec<(String, u64)>) {
        let Some(PendingRead::Stats(caller)) = self.reads.remove(&read) else { return };
        let own = self.own_stats().into_iter().map(|(name, value)| (name.to_owned(), value));
        let stats = own.chain(storage).map(|(name, value)| Stat { name, value }).collect();
        self.answer(caller.connection, caller.request_id, &Reply::StatsListed { stats });
    }

    fn own_stats(&self) -> Vec<(&'static str, u64)> {
        let counters = &self.counters;
        vec![
            ("uptime_ms", self.now.monotonic_ms - counters.started_ms),
            ("connections_count", self.connections.len() as u64),
            ("connections_unauthenticated_count", self.unauthenticated as u64),
            ("users_on_line_count", self.directory.len() as u64),
            ("groups_loaded_count", self.groups.len() as u64),
            ("cache_bytes", self.cache.bytes as u64),
            ("output_bytes", self.output_bytes as u64),
            ("input_bytes", self.input_bytes as u64),
            ("commits_pending_count", self.releases.len() as u64),
            ("commits_pending_bytes", self.releases.bytes),
            ("credit_bytes", self.credit_bytes.saturating_sub(self.committed_bytes)),
            ("accepted_total", counters.accepted),
            ("requests_total", counters.requests),
            ("refused_total", counters.refused),
            ("commits_total", counters.commits),
            ("group_packets_pushed_total", counters.group_packets),
            ("entries_pushed_total", counters.entries_pushed),
            ("signals_pushed_total", counters.signals_pushed),
            ("fallen_behind_total", counters.fallen_behind),
            ("closed_slow_total", counters.closed_slow),
            ("closed_protocol_total", counters.closed_protocol),
            ("evicted_total", counters.evicted),
            ("held_back_total", counters.held_back),
        ]
    }
}
