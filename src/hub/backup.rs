//! Backups that an operator asks for: storage makes them, and everybody else is served meanwhile.

use super::Hub;
use super::reads::PendingRead;
use super::task::Caller;
use crate::store::{BackupError, BackupSummary, ReadId, Request as StoreRequest};
use crate::wire::{ErrorBody, ErrorCode, Reply};

impl Hub {
    pub(super) fn backup(&mut self, caller: Caller, path: String) {
        let read = self.begin_read(PendingRead::Backup(caller));
        self.requests.push_back(StoreRequest::Backup { read, path });
    }

    pub(super) fn finish_backup(&mut self, read: ReadId, result: Result<BackupSummary, BackupError>) {
        let Some(PendingRead::Backup(caller)) = self.reads.remove(&read) else { return };
        match result {
            Ok(BackupSummary { files, bytes }) => {
                self.answer(caller.connection, caller.request_id, &Reply::BackupDone { files, bytes });
            }
            Err(error) => {
                let body = ErrorBody::new(code(&error), 0, error.to_string());
                self.refuse(caller.connection, caller.request_id, body);
            }
        }
    }
}

fn code(error: &BackupError) -> ErrorCode {
    match error {
        BackupError::Place(_) | BackupError::Failed(_) => ErrorCode::Malformed,
        BackupError::NoSpace(_) => ErrorCode::StorageFull,
        BackupError::Damaged(_) => ErrorCode::Damaged,
        BackupError::Busy => ErrorCode::Limit,
        BackupError::Stopping => ErrorCode::GoingAway,
    }
}
