//! Iterators that hold one page at a time.

use std::collections::VecDeque;

use super::{Engine, EngineError, Snapshot};
use crate::ids::{GroupId, UserId};
use crate::limits::LIST_GROUPS_MAX;
use crate::store::{Damaged, Event, GroupState, GroupSummary, Request};

/// The groups of a user, in the order of their ids; made by [`Engine::groups_of`]. Each page of 256 shows one moment;
/// what changes between two pages may or may not be seen. Ends behind the first error.
#[derive(Debug)]
pub struct GroupsOf {
    engine: Engine,
    user: UserId,
    page: VecDeque<GroupSummary>,
    place: Place,
}

/// All groups, in the order of their ids; made by [`Engine::groups`]. Memory: one page, of at most 256 groups and a few
/// megabytes. Each page shows one moment; what changes between two pages may or may not be seen. Ends behind the first
/// error.
#[derive(Debug)]
pub struct Groups {
    engine: Engine,
    page: VecDeque<GroupState>,
    place: Place,
}

/// Where an iteration is.
#[derive(Clone, Copy, Debug)]
struct Place {
    after: Option<GroupId>,
    more: bool,
}

impl Place {
    const START: Self = Self { after: None, more: true };
}

impl GroupsOf {
    pub(super) fn new(engine: Engine, user: UserId) -> Self {
        Self { engine, user, page: VecDeque::new(), place: Place::START }
    }

    fn turn_page(&mut self) -> Result<(), EngineError> {
        let port = &self.engine.shared().port;
        let (user, after) = (self.user.clone(), self.place.after);
        let event = port.ask(|read| Request::ListGroups { read, user, after, count_max: LIST_GROUPS_MAX })?;
        let Event::GroupsListed { groups, more, .. } = event else { unreachable!("a list is answered by a list") };
        port.settle()?;
        self.place = Place { after: groups.last().map(|summary| summary.group), more: more && !groups.is_empty() };
        self.page = groups.into();
        Ok(())
    }
}

impl Iterator for GroupsOf {
    type Item = Result<GroupSummary, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty()
            && std::mem::take(&mut self.place.more)
            && let Err(error) = self.turn_page()
        {
            return Some(Err(error));
        }
        self.page.pop_front().map(Ok)
    }
}

impl Groups {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine, page: VecDeque::new(), place: Place::START }
    }

    fn turn_page(&mut self) -> Result<(), EngineError> {
        let (groups, more) = self.engine.scan(self.place.after, LIST_GROUPS_MAX)?;
        self.place = Place { after: groups.last().map(|state| state.record.group), more: more && !groups.is_empty() };
        self.page = groups.into();
        Ok(())
    }
}

impl Iterator for Groups {
    type Item = Result<Snapshot, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty()
            && std::mem::take(&mut self.place.more)
            && let Err(error) = self.turn_page()
        {
            return Some(Err(error));
        }
        self.page.pop_front().map(|state| Ok(Snapshot::from(state)))
    }
}

impl Engine {
    /// A page of all groups.
    pub(super) fn scan(
        &self,
        after: Option<GroupId>,
        count_max: usize,
    ) -> Result<(Vec<GroupState>, bool), EngineError> {
        let port = &self.shared().port;
        let event = port.ask(|read| Request::ScanGroups { read, after, count_max })?;
        let Event::GroupsScanned { groups, more, .. } = event else { unreachable!("a scan is answered by a scan") };
        port.settle()?;
        groups.map(|groups| (groups, more)).map_err(|Damaged| EngineError::Damaged)
    }
}
