//! What the index answers to look-ups.

use super::IndexThread;
use crate::store::disk::Disk;
use crate::store::indexer::FoldError;
use crate::store::{Event, Request};

impl<D: Disk> IndexThread<D> {
    /// The answer from what is folded; none to what is no look-up.
    pub(in crate::store::thread) fn answer(&mut self, request: &Request) -> Result<Option<Event>, FoldError> {
        let backlog_bytes = self.links.backlog.bytes();
        let (end, renewals, journal) = (self.end, self.renewals, self.cleaner.stats());
        let indexer = self.indexer()?;
        Ok(Some(match request {
            Request::Commit { .. } | Request::Backup { .. } => return Ok(None),
            Request::LoadGroup { group } => Event::GroupLoaded { group: *group, state: indexer.load_group(*group)? },
            Request::LoadUser { read, user } => {
                Event::UserLoaded { read: *read, memberships: indexer.load_user(user)? }
            }
            Request::LoadMembership { read, user, group } => {
                Event::MembershipLoaded { read: *read, membership: indexer.load_membership(user, *group)? }
            }
            Request::ReadMarks { read, group } => Event::MarksRead { read: *read, marks: indexer.read_marks(*group)? },
            Request::LoadOperations { principal } => Event::OperationsLoaded {
                principal: principal.clone(),
                operations: indexer.load_operations(principal)?,
            },
            Request::ListGroups { read, user, after, count_max } => {
                let (groups, more) = indexer.list_groups(user, *after, *count_max)?;
                Event::GroupsListed { read: *read, groups, more }
            }
            Request::ScanGroups { read, after, count_max } => {
                let (groups, more) = indexer.scan_groups(*after, *count_max)?;
                Event::GroupsScanned { read: *read, groups, more }
            }
            Request::ReadEntries { read, group, from, through, entries_max, bytes_max } => {
                let entries = indexer.read_entries(*group, *from, *through, *entries_max, *bytes_max)?;
                Event::EntriesRead { read: *read, entries }
            }
            Request::ReadFeed { read, after, items_max } => {
                Event::FeedRead { read: *read, page: indexer.read_feed(*after, *items_max) }
            }
            Request::ReadStats { read } => {
                let folded_lsn = indexer.folded().map_or(0, |folded| folded.lsn);
                let stats = [
                    ("journal_live_bytes", indexer.live_bytes()),
                    ("journal_dropped_entry_count", indexer.dropped_entries()),
                    ("journal_end_offset_bytes", u64::from(end.offset)),
                    ("journal_indexed_lsn", folded_lsn),
                    ("index_backlog_bytes", backlog_bytes),
                    ("index_dirty_bytes", indexer.dirty_bytes() as u64),
                    ("index_renewed_count", u64::from(renewals)),
                ];
                let stats = journal.into_iter().chain(stats);
                let stats = stats.map(|(name, value)| (name.to_owned(), value)).collect();
                Event::StatsRead { read: *read, stats }
            }
        }))
    }

    /// Whether an answer tells of a group of which something waits to be folded.
    pub(super) fn is_old(&mut self, answer: &Event) -> bool {
        match answer {
            Event::UserLoaded { memberships, .. } => {
                memberships.iter().any(|membership| self.waiting.concerns_group(membership.group))
            }
            Event::GroupsListed { groups, .. } => groups.iter().any(|group| self.waiting.concerns_group(group.group)),
            _ => false,
        }
    }
}
