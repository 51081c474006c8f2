//! A file system in user space that forgets what was not synced: the real server runs on it, and the power can be cut.
//!
//! It is mounted by this process and answered by a thread of it. Where the system has no FUSE, or does not let us mount,
//! [`Disk::mount`] says why, and the rows that need it are skipped by name.

mod content;
mod image;
mod mount;
mod plan;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use fuser::{BackgroundSession, Config, MountOption, spawn_mount};
use rand::rngs::StdRng;

use mount::{Mounted, Shared};
pub(crate) use plan::{Act, Failure, Fault, Lasting, Syncs};

/// The disk, and where it is mounted. Unmounted when it is dropped: whoever uses it has to be gone by then.
pub(crate) struct Disk {
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
    place: tempfile::TempDir,
}

impl Disk {
    /// An empty disk, or why there cannot be one.
    pub(crate) fn mount() -> Result<Self, String> {
        let place = tempfile::tempdir().map_err(|error| error.to_string())?;
        let shared = Arc::new(Shared::new());
        let session = mount(&shared, place.path()).map_err(|error| format!("FUSE cannot be mounted here: {error}"))?;
        Ok(Self { shared, session: Some(session), place })
    }

    /// Where servers may have their data.
    pub(crate) fn data(&self) -> PathBuf {
        self.place.path().join("data")
    }

    /// The power goes before the n-th change or sync from now on: that one is not done and not answered, nor is
    /// anything behind it.
    pub(crate) fn cut_at(&self, nth: u64) {
        self.shared.lock().plan.cut_at(nth);
    }

    /// What lets the power go at once, from any thread.
    pub(crate) fn switch(&self) -> impl FnOnce() + Send + 'static {
        let shared = self.shared.clone();
        move || {
            shared.lock().plan.turn_off();
            shared.changed.notify_all();
        }
    }

    /// Waits until the power is off; `false` if it was not by then.
    pub(crate) fn wait_until_off(&self, patience: Duration) -> bool {
        let state = self.shared.lock();
        let waited = self.shared.changed.wait_timeout_while(state, patience, |state| !state.plan.is_off());
        waited.unwrap_or_else(PoisonError::into_inner).0.plan.is_off()
    }

    /// Answers what waits. Of a process that was killed: it ends when its last call has an answer, and does not see it.
    pub(crate) fn let_the_dead_go(&self) {
        self.shared.lock().let_the_dead_go();
    }

    /// Answers what waits when it is dropped: made behind a server, it lets that be killed when a test fails.
    pub(crate) fn releasing(&self) -> Releasing {
        Releasing(self.shared.clone())
    }

    /// What is left when the power comes back, mounted again: of what was not synced, each piece with a probability of
    /// `share`. No process may use it. Gives how many pieces survived, and how many did not.
    pub(crate) fn come_back(&mut self, share: f64, random: &mut StdRng) -> (u64, u64) {
        self.let_the_dead_go();
        self.unmount();
        let mut state = self.shared.lock();
        let pieces = state.image.cut(share, random);
        state.revive();
        drop(state);
        self.session = Some(mount(&self.shared, self.place.path()).expect("it was mounted before"));
        pieces
    }

    /// Lets operations fail, or no longer.
    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        self.shared.lock().plan.set_fault(fault);
    }

    /// How many operations the fault concerned since it was set.
    pub(crate) fn counted(&self) -> u64 {
        self.shared.lock().plan.counted()
    }

    /// What has failed since the fault was set, each with the name of its file.
    pub(crate) fn failed(&self) -> Vec<(Act, String)> {
        let state = self.shared.lock();
        state.plan.failed().iter().map(|(act, inode)| (*act, state.name(*inode).to_owned())).collect()
    }

    pub(crate) fn set_syncs(&self, syncs: Syncs) {
        self.shared.lock().syncs = syncs;
    }

    /// Waits until a sync waits; `false` if none did by then.
    pub(crate) fn wait_for_held_sync(&self, patience: Duration) -> bool {
        let state = self.shared.lock();
        let waited = self.shared.changed.wait_timeout_while(state, patience, |state| state.held_syncs.is_empty());
        !waited.unwrap_or_else(PoisonError::into_inner).0.held_syncs.is_empty()
    }

    pub(crate) fn has_held_sync(&self) -> bool {
        !self.shared.lock().held_syncs.is_empty()
    }

    /// Does and answers the syncs that wait, and no longer lets any wait.
    pub(crate) fn let_syncs_go(&self) {
        let mut state = self.shared.lock();
        state.syncs = Syncs::Done;
        for (inode, reply) in std::mem::take(&mut state.held_syncs) {
            state.image.sync(inode);
            reply.ok();
        }
    }

    fn unmount(&mut self) {
        let Some(session) = self.session.take() else { return };
        if session.umount_and_join().is_err() {
            // Somebody still has a file open: it goes when they do.
            let lazily = Command::new("umount").arg("-l").arg(self.place.path()).stderr(Stdio::null()).status();
            drop(lazily);
        }
    }
}

/// See [`Disk::releasing`].
pub(crate) struct Releasing(Arc<Shared>);

impl Drop for Releasing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().let_the_dead_go();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.let_the_dead_go();
        self.unmount();
    }
}

fn mount(shared: &Arc<Shared>, place: &Path) -> std::io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("roundtable-faults".to_owned()), MountOption::NoAtime];
    spawn_mount(Mounted(shared.clone()), place, &config)
}
