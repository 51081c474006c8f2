//! Which operation of the disk fails, and how.

use std::time::Duration;

/// What is asked of the disk, as far as it can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Create,
    Read,
    Write,
    Resize,
    Rename,
    Remove,
    Sync,
    SyncNames,
}

impl Act {
    fn takes_room(self) -> bool {
        matches!(self, Self::Create | Self::Write | Self::Resize | Self::Rename)
    }

    pub(crate) fn is_sync(self) -> bool {
        matches!(self, Self::Sync | Self::SyncNames)
    }
}

/// A way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Whatever it is answers `EIO`.
    InputOutput,
    /// What takes room answers `ENOSPC`.
    NoSpace,
    /// A write takes only half of what it was given, and says so.
    ShortWrite,
    /// A sync answers `EIO`, and what it covered of a file is dropped.
    Sync,
    /// A write is not done, and answers that all is well: for controls.
    HiddenWrite,
    /// A sync drops what it covered, and answers that all is well: for controls.
    HiddenSync,
}

impl Failure {
    fn concerns(self, act: Act) -> bool {
        match self {
            Self::InputOutput => true,
            Self::NoSpace => act.takes_room(),
            Self::ShortWrite | Self::HiddenWrite => act == Act::Write,
            Self::Sync | Self::HiddenSync => act.is_sync(),
        }
    }
}

/// How long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasting {
    Once,
    ForGood,
}

/// The n-th operation that a failure concerns fails; 1 is the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) failure: Failure,
    pub(crate) nth: u64,
    pub(crate) lasting: Lasting,
}

/// What syncs do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Syncs {
    #[default]
    Done,
    /// Answered at once and not done: for controls.
    Ignored,
    /// Done and answered when [`super::Disk::let_syncs_go`] says so.
    Held,
    /// Done and answered after so long.
    Slow(Duration),
}

/// What becomes of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Go,
    /// The power is off: it is never done, and not answered before the process is dead.
    Off,
    Fail(Failure),
}

/// Counts operations, and says what becomes of each.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    fault: Option<Fault>,
    /// Operations that the fault concerns, since it was set.
    counted: u64,
    cut_in: Option<u64>,
    off: bool,
    failed: Vec<(Act, u64)>,
}

impl Plan {
    pub(crate) fn set_fault(&mut self, fault: Option<Fault>) {
        (self.fault, self.counted) = (fault, 0);
        self.failed.clear();
    }

    /// The power goes before the n-th change or sync from now on; 1 is the next.
    pub(crate) fn cut_at(&mut self, nth: u64) {
        self.cut_in = Some(nth);
    }

    pub(crate) fn is_off(&self) -> bool {
        self.off
    }

    pub(crate) fn turn_off(&mut self) {
        self.off = true;
    }

    pub(crate) fn turn_on(&mut self) {
        (self.cut_in, self.off) = (None, false);
    }

    /// How many operations the fault concerned since it was set.
    pub(crate) fn counted(&self) -> u64 {
        self.counted
    }

    /// What has failed since the fault was set, with the inodes.
    pub(crate) fn failed(&self) -> &[(Act, u64)] {
        &self.failed
    }

    pub(crate) fn judge(&mut self, act: Act, inode: u64) -> Verdict {
        if act != Act::Read
            && let Some(left) = &mut self.cut_in
        {
            *left = left.saturating_sub(1);
            self.off |= *left == 0;
        }
        if self.off {
            return Verdict::Off;
        }
        let Some(Fault { failure, nth, lasting }) = self.fault else { return Verdict::Go };
        if !failure.concerns(act) {
            return Verdict::Go;
        }
        self.counted += 1;
        let fails = match lasting {
            Lasting::Once => self.counted == nth,
            Lasting::ForGood => self.counted >= nth,
        };
        if !fails {
            return Verdict::Go;
        }
        self.failed.push((act, inode));
        Verdict::Fail(failure)
    }
}
