//! Who a connection is: the hello, and authentication again in place.

use super::Hub;
use super::connection::{ConnectionKey, Lacks, Notices, Presence, Session, State, in_flight_max};
use crate::ids::{Identity, TokenError};
use crate::limits::{
    BODY_BYTES_MAX, FRAME_BYTES_MAX, FRAME_BYTES_MAX_LIST, GROUP_MEMBERS_MAX, HEARTBEAT_S_DEFAULT, HEARTBEAT_S_MAX,
    HEARTBEAT_S_MIN, TITLE_BYTES_MAX, TOKEN_LEEWAY_MS,
};
use crate::wire::{ErrorBody, ErrorCode, Hello, Limits, Reply, VERSION, Welcome, features};

pub(super) const VERSION_MESSAGE: &str = "protocol version 1 is spoken here";

impl Hub {
    pub(super) fn hello(&mut self, key: ConnectionKey, request_id: u32, hello: &Hello) {
        if hello.version_min > VERSION || hello.version_max < VERSION {
            return self.turn_away(
                key,
                request_id,
                ErrorBody::new(ErrorCode::Version, VERSION.into(), VERSION_MESSAGE),
            );
        }
        let identity = match self.authenticator.authenticate(&hello.token, self.now.wall_ms) {
            Ok(identity) if identity.device.as_ref().is_none_or(|device| *device == hello.device) => identity,
            Ok(_) | Err(TokenError::Rejected) => return self.turn_away(key, request_id, rejected()),
            Err(TokenError::Expired) => return self.turn_away(key, request_id, expired()),
        };
        let heartbeat_s = match hello.heartbeat_s {
            0 => HEARTBEAT_S_DEFAULT,
            wanted => wanted.clamp(HEARTBEAT_S_MIN, HEARTBEAT_S_MAX),
        };
        let (wall_ms, now_ms) = (self.now.wall_ms, self.now.monotonic_ms);
        let Some(connection) = self.connections.find_mut(key) else { return };
        let welcome = welcome(connection.number, wall_ms, heartbeat_s, hello.features, &identity);
        let token_ends_ms = token_ends_ms(&identity, wall_ms, now_ms);
        connection.state = State::Open(Box::new(Session {
            user: identity.user,
            role: identity.role,
            device: hello.device.clone(),
            silence_ms: u32::from(heartbeat_s) * 2_500,
            token_ends_ms,
            told_of_end: false,
            presence: Presence::Detached,
            behind: Lacks::default(),
            notices: Notices::default(),
            notices_loading: 0,
            feed: None,
            ready_owed: false,
        }));
        self.unauthenticated -= 1;
        self.answer(key, request_id, &Reply::Welcome(welcome));
        self.arm(key);
    }

    /// Refuses a hello, under its number, and closes.
    fn turn_away(&mut self, key: ConnectionKey, request_id: u32, error: ErrorBody) {
        self.refuse(key, request_id, error);
        self.close(key);
    }

    /// A new token of the same user, in place of the one that ends.
    pub(super) fn authenticate_again(&mut self, key: ConnectionKey, request_id: u32, token: &str) {
        let (wall_ms, now_ms) = (self.now.wall_ms, self.now.monotonic_ms);
        let identity = self.authenticator.authenticate(token, wall_ms);
        let Some(session) = self.connections.find_mut(key).and_then(|connection| connection.session_mut()) else {
            return;
        };
        let is_same = |identity: &Identity| {
            let device = identity.device.as_ref().is_none_or(|device| *device == session.device);
            device && identity.user == session.user && identity.role == session.role
        };
        match identity {
            Ok(identity) if is_same(&identity) => {
                session.token_ends_ms = token_ends_ms(&identity, wall_ms, now_ms);
                session.told_of_end = false;
                let expires_at_ms = identity.expires_at_ms;
                self.answer(key, request_id, &Reply::Authenticated { expires_at_ms });
                self.arm(key);
            }
            Ok(_) | Err(TokenError::Rejected) => self.turn_away(key, request_id, rejected()),
            Err(TokenError::Expired) => self.turn_away(key, request_id, expired()),
        }
    }
}

/// When a token that is good now ends, leeway included, on the monotonic clock.
fn token_ends_ms(identity: &Identity, wall_ms: u64, now_ms: u64) -> u64 {
    let lasts_ms = identity.expires_at_ms.saturating_sub(wall_ms).saturating_add(TOKEN_LEEWAY_MS);
    now_ms.saturating_add(lasts_ms)
}

fn rejected() -> ErrorBody {
    ErrorBody::new(ErrorCode::AuthFailed, 0, "the token is not accepted")
}

fn expired() -> ErrorBody {
    ErrorBody::new(ErrorCode::TokenExpired, 0, "the token has expired, or is not valid yet: get a new one")
}

fn welcome(connection: u64, wall_ms: u64, heartbeat_s: u16, wanted: u64, identity: &Identity) -> Welcome {
    let limit = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Welcome {
        version: VERSION,
        connection,
        server_time_ms: wall_ms,
        heartbeat_s,
        features: wanted & features::SERVED,
        user: identity.user.clone(),
        role: identity.role,
        limits: Limits {
            frame_bytes: limit(FRAME_BYTES_MAX),
            list_frame_bytes: limit(FRAME_BYTES_MAX_LIST),
            members: limit(GROUP_MEMBERS_MAX),
            body_bytes: limit(BODY_BYTES_MAX),
            title_bytes: limit(TITLE_BYTES_MAX),
            in_flight: limit(in_flight_max(identity.role)),
        },
    }
}
