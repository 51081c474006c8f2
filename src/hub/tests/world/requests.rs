//! What peers ask in so many words, and what they are told.

use super::{Peer, World, users};
use crate::ids::{GroupId, OperationId};
use crate::wire::{Changed, Created, GroupSeq, HistoryOutcome, HistoryRequest, LogEntry, Mark, Reply, Request};

impl World {
    pub(in crate::hub::tests) fn operation(&mut self) -> OperationId {
        self.operations += 1;
        OperationId::from_bytes((u128::from(self.operations) | 1 << 100).to_be_bytes()).unwrap()
    }

    pub(in crate::hub::tests) fn create_request(&mut self, title: &str, members: &[&str]) -> Request {
        Request::Create { operation: self.operation(), title: title.into(), members: users(members) }
    }

    pub(in crate::hub::tests) fn send_request(&mut self, group: GroupId, body: &[u8]) -> Request {
        Request::Send { operation: self.operation(), group, body: body.into() }
    }

    pub(in crate::hub::tests) fn leave_request(&mut self, group: GroupId) -> Request {
        Request::Leave { operation: self.operation(), group }
    }

    pub(in crate::hub::tests) fn create(&mut self, peer: Peer, title: &str, members: &[&str]) -> Created {
        let request = self.create_request(title, members);
        let id = self.ask(peer, &request);
        match self.reply(peer, id) {
            Reply::Created(created) => created,
            other => panic!("not created: {other:?}"),
        }
    }

    pub(in crate::hub::tests) fn send(&mut self, peer: Peer, group: GroupId, body: &[u8]) -> Changed {
        let request = self.send_request(group, body);
        self.change(peer, &request)
    }

    pub(in crate::hub::tests) fn leave(&mut self, peer: Peer, group: GroupId) -> Changed {
        let request = self.leave_request(group);
        self.change(peer, &request)
    }

    pub(in crate::hub::tests) fn change(&mut self, peer: Peer, request: &Request) -> Changed {
        let id = self.ask(peer, request);
        match self.reply(peer, id) {
            Reply::Changed(kind, changed) => {
                assert_eq!(Some(kind), request.kind().done());
                changed
            }
            other => panic!("not changed: {other:?}"),
        }
    }

    pub(in crate::hub::tests) fn acknowledge(&mut self, peer: Peer, group: GroupId, received: u64) -> u32 {
        self.ask(peer, &Request::Acknowledge { marks: vec![Mark { group, received, read: 0 }] })
    }

    pub(in crate::hub::tests) fn history(&mut self, peer: Peer, group: GroupId, from: u64) -> HistoryOutcome {
        let id = self.ask(peer, &history_request(&[(group, from)], 0, 0));
        match self.reply(peer, id) {
            Reply::HistoryPage { mut groups } => groups.pop().unwrap().outcome,
            other => panic!("no page: {other:?}"),
        }
    }

    /// The seqs of a page of one group, and the head that it names.
    pub(in crate::hub::tests) fn history_seqs(&mut self, peer: Peer, group: GroupId, from: u64) -> (Vec<u64>, u64) {
        page_seqs(self.history(peer, group, from))
    }

    /// Reads history page by page until the head; all seqs.
    pub(in crate::hub::tests) fn catch_up(&mut self, peer: Peer, group: GroupId, from: u64) -> Vec<u64> {
        let mut seqs = Vec::new();
        loop {
            let next = from + seqs.len() as u64;
            let (page, head) = self.history_seqs(peer, group, next);
            seqs.extend(page);
            if from + seqs.len() as u64 > head {
                return seqs;
            }
        }
    }
}

pub(in crate::hub::tests) fn history_request(groups: &[(GroupId, u64)], entries_max: u32, bytes_max: u32) -> Request {
    let groups = groups.iter().map(|(group, seq)| GroupSeq { group: *group, seq: *seq }).collect();
    Request::History(HistoryRequest { groups, entries_max, bytes_max })
}

pub(in crate::hub::tests) fn page_seqs(outcome: HistoryOutcome) -> (Vec<u64>, u64) {
    match outcome {
        HistoryOutcome::Entries { head, entries, .. } => (entries.iter().map(LogEntry::seq).collect(), head),
        HistoryOutcome::Refused(error) => panic!("refused: {error:?}"),
    }
}
