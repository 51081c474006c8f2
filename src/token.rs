//! Tokens: who a connection is. JWT signed with `EdDSA` (Ed25519), the one algorithm that is accepted.
//!
//! Claims: `sub` the user, `role` (`user`, `service`, `operator`; `user` if absent), `aud` the cluster's name, `nbf`
//! and `exp` in seconds since 1970, `device` if the token is for one device only. The header names the key by `kid`.
//! The server holds public keys only, except the local one that it makes at its first start.
//!
//! Time comes in as an argument: nothing here reads a clock, so a test says what time it is.

mod key;

use std::collections::BTreeMap;

use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

pub use key::{KeyError, LocalKey};

use crate::ids::{DeviceId, Identity, Role, TokenError, UserId};

/// The key id of the key that a server makes for itself.
pub const LOCAL_KID: &str = "local";
/// How far the clocks of the one who signs and the one who checks may differ, in milliseconds.
pub const LEEWAY_MS: u64 = 30_000;

/// What a token says, on the side that makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The user, or the name of the service or operator.
    pub user: UserId,
    /// What it may do.
    pub role: Role,
    /// The one device that it is for; any if there is none.
    pub device: Option<DeviceId>,
    /// The cluster that it is for.
    pub cluster: String,
    /// From when it is valid, in milliseconds since 1970; cut to whole seconds.
    pub valid_from_ms: u64,
    /// Until when it is valid, in milliseconds since 1970; cut to whole seconds.
    pub expires_at_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    #[serde(default = "role_user")]
    role: String,
    aud: Audience,
    #[serde(default)]
    nbf: u64,
    exp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<String>,
}

/// `aud` may be one name or several (RFC 7519, 4.1.3).
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

fn role_user() -> String {
    Role::User.name().to_owned()
}

/// Makes a token of a grant, signed with the server's own key.
pub fn mint(key: &LocalKey, grant: &Grant) -> String {
    let claims = Claims {
        sub: grant.user.as_str().to_owned(),
        role: grant.role.name().to_owned(),
        aud: Audience::One(grant.cluster.clone()),
        nbf: grant.valid_from_ms / 1000,
        exp: grant.expires_at_ms / 1000,
        device: grant.device.as_ref().map(|device| device.as_str().to_owned()),
    };
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(LOCAL_KID.to_owned());
    jsonwebtoken::encode(&header, &claims, key.signing()).expect("a key that was opened signs")
}

/// Checks tokens against the public keys of a cluster.
#[derive(Clone)]
pub struct Verifier {
    cluster: String,
    keys: BTreeMap<String, DecodingKey>,
    validation: Validation,
}

impl Verifier {
    /// Accepts nothing until it is given keys. `cluster` is the audience that tokens must name.
    pub fn new(cluster: impl Into<String>) -> Self {
        let cluster = cluster.into();
        let mut validation = Validation::new(Algorithm::EdDSA);
        // The library would read the system's clock; `verify` is told the time instead.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.set_required_spec_claims(&["exp", "sub", "aud"]);
        validation.set_audience(&[&cluster]);
        Self { cluster, keys: BTreeMap::new(), validation }
    }

    /// One that accepts the tokens of the local key alone.
    pub fn local(cluster: impl Into<String>, key: &LocalKey) -> Self {
        let mut verifier = Self::new(cluster);
        verifier.accept(LOCAL_KID, key.public_key());
        verifier
    }

    /// Accepts tokens that were signed with the private half of this Ed25519 key and name it by `kid`.
    pub fn accept(&mut self, kid: impl Into<String>, public_key: &[u8; 32]) {
        self.keys.insert(kid.into(), DecodingKey::from_ed_der(public_key));
    }

    /// The cluster whose tokens it accepts.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Whom a token names. `wall_ms` is the time in milliseconds since 1970; it may differ from the signer's by
    /// [`LEEWAY_MS`]. A rightly signed token outside its time is [`TokenError::Expired`]; whatever else is wrong is
    /// [`TokenError::Rejected`], without telling what.
    pub fn verify(&self, token: &str, wall_ms: u64) -> Result<Identity, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Rejected)?;
        let key = header.kid.and_then(|kid| self.keys.get(&kid)).ok_or(TokenError::Rejected)?;
        let decoded = jsonwebtoken::decode::<Claims>(token, key, &self.validation).map_err(|_| TokenError::Rejected)?;
        let claims = decoded.claims;
        let identity = identity_of(&claims).ok_or(TokenError::Rejected)?;
        let begins_ms = claims.nbf.saturating_mul(1000);
        if wall_ms.saturating_add(LEEWAY_MS) < begins_ms || wall_ms > identity.expires_at_ms.saturating_add(LEEWAY_MS) {
            return Err(TokenError::Expired);
        }
        Ok(identity)
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kids: Vec<_> = self.keys.keys().collect();
        f.debug_struct("Verifier").field("cluster", &self.cluster).field("kids", &kids).finish_non_exhaustive()
    }
}

/// Whom a token names by its own word: nothing is checked. For the one who carries it, never for a server.
pub fn subject_unverified(token: &str) -> Option<UserId> {
    use base64::Engine;
    let payload = token.split('.').nth(1)?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Claims = serde_json::from_slice(&bytes).ok()?;
    UserId::new(&claims.sub).ok()
}

fn identity_of(claims: &Claims) -> Option<Identity> {
    let role = [Role::User, Role::Service, Role::Operator].into_iter().find(|role| role.name() == claims.role)?;
    let device = claims.device.as_deref().map(DeviceId::new).transpose().ok()?;
    let user = UserId::new(&claims.sub).ok()?;
    Some(Identity { user, role, device, expires_at_ms: claims.exp.saturating_mul(1000) })
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::EncodingKey;
    use serde_json::json;

    use super::*;

    const NOW_MS: u64 = 1_700_000_000_000;

    fn key() -> (tempfile::TempDir, LocalKey) {
        let directory = tempfile::tempdir().unwrap();
        let key = LocalKey::open_or_create(&directory.path().join("keys")).unwrap();
        (directory, key)
    }

    fn grant() -> Grant {
        Grant {
            user: UserId::new("алиса").unwrap(),
            role: Role::Service,
            device: Some(DeviceId::new("phone").unwrap()),
            cluster: "east".to_owned(),
            valid_from_ms: NOW_MS,
            expires_at_ms: NOW_MS + 60_000,
        }
    }

    fn signed(key: &LocalKey, claims: &serde_json::Value) -> String {
        let header = Header { kid: Some(LOCAL_KID.to_owned()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, key.signing()).unwrap()
    }

    #[test]
    fn a_minted_token_names_whom_it_was_made_for() {
        let (_directory, key) = key();
        let identity = Verifier::local("east", &key).verify(&mint(&key, &grant()), NOW_MS).unwrap();
        assert_eq!(identity.user.as_str(), "алиса");
        assert_eq!(identity.role, Role::Service);
        assert_eq!(identity.device, Some(DeviceId::new("phone").unwrap()));
        assert_eq!(identity.expires_at_ms, NOW_MS + 60_000);
        assert_eq!(subject_unverified(&mint(&key, &grant())), Some(identity.user));
    }

    #[test]
    fn times_hold_within_30_seconds_of_leeway() {
        let (_directory, key) = key();
        let verifier = Verifier::local("east", &key);
        let token = mint(&key, &grant());
        assert!(verifier.verify(&token, NOW_MS + 60_000 + LEEWAY_MS).is_ok());
        assert_eq!(verifier.verify(&token, NOW_MS + 60_001 + LEEWAY_MS), Err(TokenError::Expired));
        assert!(verifier.verify(&token, NOW_MS - LEEWAY_MS).is_ok());
        assert_eq!(verifier.verify(&token, NOW_MS - LEEWAY_MS - 1), Err(TokenError::Expired), "not yet valid");
        assert_eq!(verifier.verify(&token, u64::MAX), Err(TokenError::Expired));
    }

    #[test]
    fn other_algorithms_are_rejected() {
        let (_directory, key) = key();
        let verifier = Verifier::local("east", &key);
        let claims = json!({"sub": "mallory", "aud": "east", "exp": 1_800_000_000});
        let header = Header { kid: Some(LOCAL_KID.to_owned()), ..Header::new(Algorithm::HS256) };
        let with_public_key_as_secret =
            jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(key.public_key())).unwrap();
        assert_eq!(verifier.verify(&with_public_key_as_secret, NOW_MS), Err(TokenError::Rejected));
        let payload = signed(&key, &claims).split('.').nth(1).unwrap().to_owned();
        // {"alg":"none","kid":"local"}
        let none = format!("eyJhbGciOiJub25lIiwia2lkIjoibG9jYWwifQ.{payload}.");
        assert_eq!(verifier.verify(&none, NOW_MS), Err(TokenError::Rejected));
    }

    #[test]
    fn another_key_another_audience_and_an_unknown_kid_are_rejected() {
        let (_directory, key) = key();
        let (_other_directory, other) = self::key();
        let token = mint(&key, &grant());
        assert_eq!(Verifier::local("east", &other).verify(&token, NOW_MS), Err(TokenError::Rejected));
        assert_eq!(Verifier::local("west", &key).verify(&token, NOW_MS), Err(TokenError::Rejected));
        assert_eq!(Verifier::new("east").verify(&token, NOW_MS), Err(TokenError::Rejected));
        let mut renamed = Verifier::new("east");
        renamed.accept("other", key.public_key());
        assert_eq!(renamed.verify(&token, NOW_MS), Err(TokenError::Rejected));
    }

    #[test]
    fn expired_and_badly_signed_is_rejected_not_expired() {
        let (_directory, key) = key();
        let (_other_directory, other) = self::key();
        let token = mint(&other, &grant());
        assert_eq!(Verifier::local("east", &key).verify(&token, u64::MAX), Err(TokenError::Rejected));
    }

    #[test]
    fn a_claim_that_is_missing_or_makes_no_sense_is_rejected() {
        let (_directory, key) = key();
        let verifier = Verifier::local("east", &key);
        let good = json!({"sub": "bob", "aud": "east", "exp": 1_800_000_000});
        let identity = verifier.verify(&signed(&key, &good), NOW_MS).unwrap();
        assert_eq!((identity.role, identity.device), (Role::User, None), "role and device have defaults");
        for missing in ["sub", "aud", "exp"] {
            let mut claims = good.clone();
            claims.as_object_mut().unwrap().remove(missing);
            assert_eq!(verifier.verify(&signed(&key, &claims), NOW_MS), Err(TokenError::Rejected), "without {missing}");
        }
        let long = "x".repeat(65);
        for (name, value) in [
            ("sub", json!("")),
            ("sub", json!(long)),
            ("role", json!("root")),
            ("device", json!("")),
            ("exp", json!(-1)),
            ("exp", json!("1800000000")),
        ] {
            let mut claims = good.clone();
            claims[name] = value;
            assert_eq!(verifier.verify(&signed(&key, &claims), NOW_MS), Err(TokenError::Rejected), "{claims}");
        }
        let mut several = good.clone();
        several["aud"] = json!(["west", "east"]);
        assert!(verifier.verify(&signed(&key, &several), NOW_MS).is_ok());
    }

    #[test]
    fn garbage_is_rejected() {
        let (_directory, key) = key();
        let verifier = Verifier::local("east", &key);
        let token = mint(&key, &grant());
        for garbage in ["", ".", "..", "a.b.c", "\u{0}", &token[..token.len() - 4], &format!("{token}x")] {
            assert_eq!(verifier.verify(garbage, NOW_MS), Err(TokenError::Rejected), "{garbage}");
        }
    }
}
