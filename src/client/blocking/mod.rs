//! The blocking client: one method for each request, one request at a time.

mod driver;
mod options;
mod requests;

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use super::error::ClientError;
use super::event::Event;
use super::link::Turn;
use super::tracked::GroupView;
use crate::ids::{GroupId, UserId};
use crate::wire::{GroupSeq, Mark, Welcome};
use driver::Driver;
pub use options::{ConnectOptions, TokenSource};
pub use requests::{HistoryPart, Pong, ping};

/// A connected client that blocks.
///
/// Events that come while an answer is awaited are kept for [`Client::next_event`], in order.
///
/// A connection that breaks is made again, by whatever method runs at the time, as [`ConnectOptions::retry`] says: the
/// client goes on line with what it has, says again what has no answer (changes under their operation ids, so nothing
/// is done twice), and the method simply takes longer. [`Event::Interrupted`] and [`Event::Resumed`] tell of it.
#[derive(Debug)]
pub struct Client {
    driver: Driver,
    welcome: Welcome,
    /// The user that requests are made for, if the client is a service.
    acting: Option<UserId>,
}

impl Client {
    /// Connects and authenticates; this first time without trying again. A connection gets pushes only after
    /// [`Self::attach_marks`] or [`Self::attach_device`].
    pub fn connect(options: ConnectOptions) -> Result<Self, ClientError> {
        let (driver, welcome) = Driver::open(options)?;
        Ok(Self { driver, welcome, acting: None })
    }

    /// What the server granted on the first connection: the user, the limits, the heartbeat.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// The user, or the service or operator, that the token names.
    pub fn user(&self) -> &UserId {
        &self.welcome.user
    }

    /// Whether there is a connection at this moment, as far as is known.
    pub fn is_connected(&self) -> bool {
        self.driver.is_connected()
    }

    // ---- acting for users ----------------------------------------------------------------------------------------

    /// For a service: whatever is asked through what this gives is asked for that user, judged by its rights.
    ///
    /// ```no_run
    /// # fn f(service: &mut roundtable::client::Client, alice: &roundtable::ids::UserId) -> Result<(), roundtable::client::ClientError> {
    /// let created = service.acting_for(alice).create("lunch", &[])?;
    /// service.acting_for(alice).send(created.group, "noon?")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn acting_for(&mut self, user: &UserId) -> ActingFor<'_> {
        let before = self.acting.replace(user.clone());
        ActingFor { client: self, before }
    }

    /// The same for all that follows; `None` ends it.
    pub fn act_for(&mut self, user: Option<UserId>) {
        self.acting = user;
    }

    /// Whom requests are made for: the user that is acted for, or else [`Self::user`].
    pub fn acting_user(&self) -> &UserId {
        self.acting.as_ref().unwrap_or(&self.welcome.user)
    }

    // ---- being on line -------------------------------------------------------------------------------------------

    /// Goes on line with the user's received marks: for a client that keeps nothing. What was missed, and then what
    /// happens, comes out of [`Self::next_event`]; [`Event::Ready`] stands between the two.
    pub fn attach_marks(&mut self) -> Result<(), ClientError> {
        self.driver.attach_marks()
    }

    /// Goes on line with what this device has: the highest seq of each group that it keeps, as [`Self::positions`]
    /// gave it.
    pub fn attach_device(&mut self, groups: &[GroupSeq]) -> Result<(), ClientError> {
        self.driver.attach_device(groups)
    }

    /// How far each group was told in the events that [`Self::next_event`] has given: what an application stores to
    /// come back with [`Self::attach_device`].
    ///
    /// Exact at any moment, in the middle of catching up too. Store it *after* what the events told, or together with
    /// it: what is stored here will not be told again. A group that is not in it was not told, or is over.
    /// For a client that went on line by [`Self::attach_marks`], groups that nothing was told of are missing: there the
    /// marks on the server are the position.
    pub fn positions(&self) -> Vec<GroupSeq> {
        self.driver.session().positions()
    }

    /// Says how far this device has received and read groups. There is no answer; [`Self::ping`] afterwards makes
    /// sure that the server has taken it. Marks are said again after a reconnection.
    pub fn acknowledge(&mut self, marks: &[Mark]) -> Result<(), ClientError> {
        self.driver.acknowledge(marks)
    }

    /// The groups that the user is in, as far as this client was told of them: what a user interface shows.
    pub fn groups(&self) -> impl Iterator<Item = GroupView<'_>> {
        self.driver.session().groups()
    }

    /// One of them.
    pub fn group_view(&self, group: GroupId) -> Option<GroupView<'_>> {
        self.driver.session().group(group)
    }

    /// The next event. `None` once the time is up, or earlier if a signal interrupted the wait; without a timeout it
    /// waits for ever. Pings the server while it waits.
    pub fn next_event(&mut self, timeout: Option<Duration>) -> Result<Option<Event>, ClientError> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if let Some(event) = self.driver.poll_event() {
                return Ok(Some(event));
            }
            match self.driver.turn(deadline) {
                Ok(Turn::Moved) => {}
                Ok(Turn::TimeUp | Turn::Interrupted) => return Ok(self.driver.poll_event()),
                // What came before the end is told before the end.
                Err(error) => return self.driver.poll_event().map_or(Err(error), |event| Ok(Some(event))),
            }
        }
    }
}

/// A service's client while it acts for a user; the client's own methods are its methods.
#[derive(Debug)]
pub struct ActingFor<'a> {
    client: &'a mut Client,
    before: Option<UserId>,
}

impl Deref for ActingFor<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.client
    }
}

impl DerefMut for ActingFor<'_> {
    fn deref_mut(&mut self) -> &mut Client {
        self.client
    }
}

impl Drop for ActingFor<'_> {
    fn drop(&mut self) {
        self.client.acting = self.before.take();
    }
}
