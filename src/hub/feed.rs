//! The feed: every entry of every group, told to services that ask for it: group, seq, sender, and the members who had
//! no live connection. It is what mobile push, moderation, search and bots are built from.
//!
//! ```text
//! Reading ──page──▶ Reading … ──page at the end──▶ Live ──output is full──▶ Resting ──output is read──▶ Reading
//! ```
//!
//! A position is an LSN of the journal, so a feed goes on over any restart from the last position that was taken. Behind
//! the end of the journal goes what is kept in `recent`, so that a feed becomes live under any load.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Hub;
use super::connection::ConnectionKey;
use super::reads::PendingRead;
use super::release::{Released, ended_by};
use super::task::{Caller, Task};
use crate::group::{Entry, Record};
use crate::ids::{GroupId, UserId};
use crate::limits::{FEED_PAGE_ITEMS, FEED_RECENT_ITEMS, OUTPUT_BYTES_SOFT};
use crate::store::{FeedError, FeedItem, FeedPage, FeedPlace, ReadId, Request as StoreRequest};
use crate::wire::{ErrorBody, ErrorCode, Push, Reply};

/// How far the feed has been told on a connection.
#[derive(Debug)]
pub(super) struct Feed {
    /// Everything up to here was told.
    place: FeedPlace,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A page is on its way, or being told.
    Reading,
    /// The output is full: goes on when it is read.
    Resting,
    /// What is released is told.
    Live,
}

impl Feed {
    /// Whether it goes on when output is written.
    pub(super) fn is_resting(&self) -> bool {
        self.state == State::Resting
    }
}

/// What all feeds have in common.
///
/// Invariant: `recent` has every effect that was released since the first of the present feeds was asked for, but those
/// up to the LSN `dropped`.
#[derive(Debug, Default)]
pub(super) struct Feeds {
    connections: Vec<ConnectionKey>,
    recent: VecDeque<News>,
    dropped: u64,
}

impl Feeds {
    pub(super) fn forget(&mut self, key: ConnectionKey) {
        self.connections.retain(|other| *other != key);
        if self.connections.is_empty() {
            self.recent.clear();
        }
    }
}

/// An effect that was released.
#[derive(Clone, Debug)]
struct News {
    lsn: u64,
    group: GroupId,
    entry: Arc<Entry>,
    record: Arc<Record>,
    before: Arc<Record>,
}

/// A page on its way to a connection, item by item: each needs its group.
#[derive(Debug)]
pub(super) struct FeedJob {
    connection: ConnectionKey,
    items: VecDeque<FeedItem>,
    through: FeedPlace,
    at_end: bool,
}

impl Hub {
    /// A service asks for the feed behind a position; 0 is the end.
    pub(super) fn begin_feed(&mut self, caller: Caller, position: u64) {
        let key = caller.connection;
        let Some(session) = self.connections.find_mut(key).and_then(|connection| connection.session_mut()) else {
            return;
        };
        if session.feed.is_some() {
            return self.close_with(key, ErrorCode::Protocol, 0, "a second feed on one connection");
        }
        let after = (position > 0).then(|| FeedPlace::behind(position));
        let place = after.unwrap_or(FeedPlace::behind(0));
        session.feed = Some(Box::new(Feed { place, state: State::Reading }));
        self.feeds.connections.push(key);
        self.read_feed(key, Some(caller), after);
    }

    fn read_feed(&mut self, key: ConnectionKey, begins: Option<Caller>, after: Option<FeedPlace>) {
        let read = self.begin_read(PendingRead::Feed(key, begins));
        self.requests.push_back(StoreRequest::ReadFeed { read, after, items_max: FEED_PAGE_ITEMS });
    }

    pub(super) fn finish_feed_page(&mut self, read: ReadId, page: Result<FeedPage, FeedError>) {
        let Some(PendingRead::Feed(key, begins)) = self.reads.remove(&read) else { return };
        let Some(place) = self.feed_mut(key).map(|feed| feed.place) else { return };
        let page = match page {
            Ok(page) => page,
            Err(error) => return self.fail_feed(key, begins, error),
        };
        if let Some(caller) = begins {
            let position = if place.lsn == 0 { page.through.lsn } else { place.lsn };
            self.answer(key, caller.request_id, &Reply::FeedBegun { position });
        }
        let FeedPage { items, through, at_end } = page;
        self.tell_feed_page(Box::new(FeedJob { connection: key, items: items.into(), through, at_end }));
    }

    /// A feed that cannot begin is refused; one that cannot go on ends its connection.
    fn fail_feed(&mut self, key: ConnectionKey, begins: Option<Caller>, error: FeedError) {
        let (code, detail, message) = match error {
            FeedError::Truncated { first } => (ErrorCode::Truncated, first, "the feed begins behind this position"),
            FeedError::Beyond { last } => (ErrorCode::Range, last, "the feed ends before this position"),
            FeedError::Damaged => (ErrorCode::Damaged, 0, "this place on the server's disk is damaged"),
        };
        self.feeds.forget(key);
        let Some(caller) = begins else { return self.close_with(key, code, detail, message) };
        if let Some(session) = self.connections.find_mut(key).and_then(|connection| connection.session_mut()) {
            session.feed = None;
        }
        self.refuse(key, caller.request_id, ErrorBody::new(code, detail, message));
    }

    /// Goes on with a page: the next item, or what comes behind it.
    fn tell_feed_page(&mut self, job: Box<FeedJob>) {
        let key = job.connection;
        let has_room = self.connections.find(key).is_some_and(|connection| !connection.closing && has_room(connection));
        let Some(feed) = self.feed_mut(key) else { return };
        if !has_room {
            feed.state = State::Resting;
            return;
        }
        if let Some(item) = job.items.front() {
            return self.enqueue(item.group, Task::Feed(job));
        }
        feed.place = job.through;
        if job.at_end && self.feeds.dropped <= job.through.lsn {
            return self.go_live(key);
        }
        self.read_feed(key, None, Some(job.through));
    }

    /// An item of a page, now that its group is there.
    pub(super) fn tell_feed_item(&mut self, id: GroupId, mut job: Box<FeedJob>) {
        let Some(item) = job.items.pop_front() else { unreachable!("a job is at an item") };
        let Some(record) = self.loaded_group(id).map(|group| group.durable.clone()) else {
            unreachable!("work on a group begins when it is loaded")
        };
        let were = record.members.iter().filter(|member| member.joined <= item.seq).map(|member| &member.user);
        let offline = self.offline(id, were);
        self.push_feed_item(job.connection, &item, offline);
        self.tell_feed_page(job);
    }

    /// An item of a group that is there no more, or damaged: nobody is left to be told of it.
    pub(super) fn tell_feed_item_of_nobody(&mut self, mut job: Box<FeedJob>) {
        let Some(item) = job.items.pop_front() else { unreachable!("a job is at an item") };
        self.push_feed_item(job.connection, &item, Vec::new());
        self.tell_feed_page(job);
    }

    fn push_feed_item(&mut self, key: ConnectionKey, item: &FeedItem, offline: Vec<UserId>) {
        let FeedItem { lsn, group, seq, ref sender } = *item;
        let Some(feed) = self.feed_mut(key) else { return };
        feed.place = feed.place.advanced(lsn);
        let push = Push::FeedItem { position: lsn, group, seq, sender: sender.clone(), offline };
        self.append(key, |out| push.encode_frame(out));
    }

    /// The journal was told to its end: what was released since comes from memory.
    fn go_live(&mut self, key: ConnectionKey) {
        if let Some(feed) = self.feed_mut(key) {
            feed.state = State::Live;
        }
        let passed_over = usize::from(planted!("hub: a feed that becomes live passes over what came meanwhile"));
        for at in 0..self.feeds.recent.len() * (1 - passed_over) {
            let news = self.feeds.recent[at].clone();
            let frame = self.news_frame(&news);
            self.tell_news(key, news.lsn, &frame);
        }
    }

    /// An effect was released: every live feed is told.
    pub(super) fn tell_feeds(&mut self, lsn: u64, released: &Released, before: Arc<Record>) {
        if self.feeds.connections.is_empty() {
            return;
        }
        let (group, entry, record) = (released.group, released.entry.clone(), released.record.clone());
        let news = News { lsn, group, entry, record, before };
        let frame = self.news_frame(&news);
        for key in self.feeds.connections.clone() {
            self.tell_news(key, lsn, &frame);
        }
        self.feeds.recent.push_back(news);
        if self.feeds.recent.len() > FEED_RECENT_ITEMS
            && let Some(oldest) = self.feeds.recent.pop_front()
        {
            self.feeds.dropped = oldest.lsn;
        }
    }

    /// Those who were members at the entry, and those whose membership ended with it, as far as they are not on line.
    fn news_frame(&self, news: &News) -> Vec<u8> {
        let ended = ended_by(&news.entry, &news.before);
        let members = news.record.members.iter().map(|member| &member.user);
        let offline = self.offline(news.group, members.chain(ended));
        let (position, group, seq, sender) = (news.lsn, news.group, news.entry.seq, news.entry.sender.clone());
        let mut frame = Vec::new();
        Push::FeedItem { position, group, seq, sender, offline }.encode_frame(&mut frame);
        frame
    }

    fn tell_news(&mut self, key: ConnectionKey, lsn: u64, frame: &[u8]) {
        let has_room = self.connections.find(key).is_some_and(|connection| !connection.closing && has_room(connection));
        // A page may have had it already: the index can be ahead of the report.
        let is_next = |feed: &&mut Feed| feed.state == State::Live && feed.place.lsn < lsn;
        let Some(feed) = self.feed_mut(key).filter(is_next) else { return };
        if !has_room {
            feed.state = State::Resting;
            return;
        }
        feed.place = FeedPlace::behind(lsn);
        self.append(key, |out| out.extend_from_slice(frame));
    }

    /// Output was read: a feed that rests goes on.
    pub(super) fn resume_feed(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.find_mut(key) else { return };
        if connection.closing || connection.outbox.bytes() > OUTPUT_BYTES_SOFT / 2 {
            return;
        }
        let feed = connection.session_mut().and_then(|session| session.feed.as_mut());
        if let Some(feed) = feed.filter(|feed| feed.is_resting()) {
            feed.state = State::Reading;
            let place = feed.place;
            self.read_feed(key, None, Some(place));
        }
    }

    /// Those of these users on none of whose connections the group is live.
    fn offline<'u>(&self, group: GroupId, users: impl Iterator<Item = &'u UserId>) -> Vec<UserId> {
        let is_live = |key: &ConnectionKey| self.connections.find(*key).is_some_and(|found| found.is_live(group));
        users.filter(|user| !self.directory.connections(user).iter().any(is_live)).cloned().collect()
    }

    fn feed_mut(&mut self, key: ConnectionKey) -> Option<&mut Feed> {
        self.connections.find_mut(key)?.session_mut()?.feed.as_deref_mut()
    }
}

fn has_room(connection: &super::connection::Connection) -> bool {
    connection.outbox.bytes() <= OUTPUT_BYTES_SOFT
}
