//! One life of the server: the hub, and storage that takes steps, from a start to a kill, a power cut or a stop.

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use super::plan::Plan;
use super::truth::{Kept, Truth};
use crate::hub::{Authenticator, Hub, Now, Policy, Seed};
use crate::ids::{Identity, Principal, Role, TokenError, UserId};
use crate::store::stepped::{MemoryHome, Parts, SimulatedDisk, Stepped, SteppedClock};
use crate::store::{Event, GroupQuota, OpenError, ReadId, Request, Retention};

/// Reads tokens like `user:alice`, `service:gateway`, `operator:root`.
struct Tokens;

impl Authenticator for Tokens {
    fn authenticate(&self, token: &str, wall_ms: u64) -> Result<Identity, TokenError> {
        let (role, name) = token.split_once(':').ok_or(TokenError::Rejected)?;
        let role = match role {
            "user" => Role::User,
            "service" => Role::Service,
            "operator" => Role::Operator,
            _ => return Err(TokenError::Rejected),
        };
        let user = UserId::new(name).map_err(|_| TokenError::Rejected)?;
        let expires_at_ms = wall_ms + 365 * 86_400_000;
        Ok(Identity { user, role, device: None, expires_at_ms })
    }
}

/// A server that runs.
pub(super) struct Server {
    pub(super) hub: Hub,
    pub(super) storage: Stepped<SimulatedDisk>,
    clock: Arc<SteppedClock>,
    started_ms: u64,
}

impl Server {
    /// Starts on what is there.
    pub(super) fn start(
        disk: &SimulatedDisk,
        home: &MemoryHome,
        plan: &Plan,
        random: &mut StdRng,
        now: Now,
    ) -> Result<Self, OpenError> {
        let clock = Arc::new(SteppedClock::default());
        clock.set(0, now.wall_ms);
        let storage = open(disk, home, plan, random.random(), clock.clone())?;
        let mut ids = [0; 32];
        random.fill_bytes(&mut ids);
        let hash = [random.random(), random.random(), random.random(), random.random()];
        let hub = Hub::new(Seed { hash, ids }, Policy::default(), Box::new(Tokens), now);
        Ok(Self { hub, storage, clock, started_ms: now.monotonic_ms })
    }

    /// Tells the time.
    pub(super) fn set_time(&mut self, now: Now) {
        self.clock.set(now.monotonic_ms - self.started_ms, now.wall_ms);
    }

    /// Storage says what it has to say, and the hub what it wants of it.
    pub(super) fn hear_storage(&mut self, disk: &SimulatedDisk, truth: &mut Truth, now: Now) -> Result<usize, String> {
        let mut heard = 0;
        while let Some(event) = self.storage.poll_event() {
            if heard == 0 {
                // What is reported from here on was durable before it was reported.
                truth.follow(disk);
            }
            heard += 1;
            if let Event::Failed { message } = &event {
                return Err(message.clone());
            }
            self.hub.handle_storage(event, now);
        }
        Ok(heard)
    }

    /// Hands what the hub wants to storage.
    pub(super) fn submit(&mut self) -> usize {
        let mut asked = 0;
        self.storage.submit_all(std::iter::from_fn(|| self.hub.poll_request()).inspect(|_| asked += 1));
        asked
    }
}

pub(super) fn open(
    disk: &SimulatedDisk,
    home: &MemoryHome,
    plan: &Plan,
    seed: u64,
    clock: Arc<SteppedClock>,
) -> Result<Stepped<SimulatedDisk>, OpenError> {
    let parts = Parts {
        disk: disk.clone(),
        home: Box::new(home.clone()),
        segment_bytes: plan.segment_bytes,
        random: StdRng::seed_from_u64(seed),
        retention: Retention { entries_max: plan.entries_kept, ..Retention::default() },
        quota: GroupQuota::default(),
    };
    parts.start_stepped(clock)
}

/// What storage says of everything that there is, as the truth names it.
pub(super) fn account(storage: &mut Stepped<SimulatedDisk>, truth: &Truth, users: &[UserId]) -> Vec<Event> {
    let read = ReadId(1);
    let mut requests = Vec::new();
    for group in truth.groups.keys() {
        requests.push(Request::LoadGroup { group: *group });
        requests.push(Request::ReadMarks { read, group: *group });
        let (from, through) = (truth.group(*group).floor, u64::MAX);
        let (entries_max, bytes_max) = (10_000, 1 << 20);
        requests.push(Request::ReadEntries { read, group: *group, from, through, entries_max, bytes_max });
    }
    for user in users {
        requests.push(Request::LoadUser { read, user: user.clone() });
    }
    let principals: BTreeSet<&Principal> = truth.operations.keys().map(|(principal, _)| principal).collect();
    requests.extend(principals.into_iter().map(|principal| Request::LoadOperations { principal: principal.clone() }));
    requests.iter().map(|request| storage.ask(request).expect("the index answers")).collect()
}

/// Storage has exactly what is so.
pub(super) fn check_account(account: &[Event], truth: &Truth) {
    let (of_groups, of_users) = account.split_at(3 * truth.groups.len());
    for (kept, events) in truth.groups.values().zip(of_groups.chunks(3)) {
        check_group(kept, events);
    }
    for event in of_users {
        match event {
            Event::UserLoaded { memberships, .. } => {
                for place in memberships {
                    let kept = truth.group(place.group);
                    assert_eq!(place.head, kept.head(), "a membership names the head");
                    assert!(place.received <= place.head, "marks are below the head");
                }
            }
            Event::OperationsLoaded { principal, operations } => {
                for (key, done) in truth.operations.iter().filter(|(key, _)| key.0 == *principal) {
                    assert!(operations.contains(done), "operation {} is remembered", key.1);
                }
            }
            _ => {}
        }
    }
}

/// A group, the marks of its members, its log.
fn check_group(kept: &Kept, events: &[Event]) {
    let id = kept.record.group;
    for event in events {
        match event {
            Event::GroupLoaded { state, .. } => {
                let state = state.as_ref().expect("nothing is damaged");
                let Some(state) = state else {
                    assert!(kept.record.dissolved, "storage has {id}");
                    return;
                };
                assert_eq!(state.record, kept.record, "storage has the record");
                assert_eq!((state.head, state.floor), (kept.head(), kept.floor), "storage has the log of {id}");
            }
            Event::EntriesRead { entries, .. } => {
                let from = usize::try_from(kept.floor - 1).unwrap_or(usize::MAX);
                let entries = entries.as_deref().expect("nothing is damaged");
                assert_eq!(entries, kept.log.get(from..).unwrap_or_default(), "the log as far as it is kept");
            }
            _ => {}
        }
    }
}

/// Opens a copy of what is on the disk once more and gives the account of that.
pub(super) fn account_anew(
    disk: &SimulatedDisk,
    home: &MemoryHome,
    plan: &Plan,
    truth: &Truth,
    users: &[UserId],
) -> Result<Vec<Event>, String> {
    let copy = disk.fork();
    copy.kill();
    copy.set_capacity(None);
    let mut storage =
        open(&copy, home, plan, 1, Arc::new(SteppedClock::default())).map_err(|error| error.to_string())?;
    storage.step_index()?;
    storage.catch_up()?;
    Ok(account(&mut storage, truth, users))
}
