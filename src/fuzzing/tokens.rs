//! Tokens: what is not rightly signed is rejected; what is, names whom its claims name, in its time and for its cluster.
//!
//! ```text
//! u8   0: the rest is a token; 1: the rest is claims, which are signed; 2: the rest is header, zero byte, claims, both signed
//! u8   what is said of the time: bits of a distance to `exp`
//! …    the rest
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::ids::{Identity, Role, TokenError};
use crate::token::{LEEWAY_MS, LocalKey, Verifier, subject_unverified};

const CLUSTER: &str = "east";
const HEADER: &[u8] = br#"{"typ":"JWT","alg":"EdDSA","kid":"local"}"#;

/// PKCS#8 (RFC 5958 version 2) of the key of RFC 8032, 7.1, test 1: known to everybody, so it opens nothing.
#[rustfmt::skip]
const PKCS8: [u8; 83] = [
    0x30, 0x51, 0x02, 0x01, 0x01, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
    0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
    0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
    0x81, 0x21, 0x00, 0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9,
    0x64, 0x07, 0x3a, 0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7,
    0x07, 0x51, 0x1a,
];

/// Garbage is rejected; what is rightly signed is judged by its claims alone, and by the time.
pub fn tokens(data: &[u8]) {
    let Some((control, rest)) = data.split_first_chunk::<2>() else { return };
    let [mode, time] = *control;
    let key = LocalKey::from_pkcs8(&PKCS8).expect("the key of the RFC");
    let verifier = Verifier::local(CLUSTER, &key);
    match mode % 3 {
        0 => garbage(&verifier, rest),
        1 => signed(&verifier, &key, time, HEADER, rest),
        _ => {
            let at = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
            signed(&verifier, &key, time, &rest[..at], rest.get(at + 1..).unwrap_or_default());
        }
    }
}

fn garbage(verifier: &Verifier, token: &[u8]) {
    let Ok(token) = std::str::from_utf8(token) else { return };
    let named = subject_unverified(token);
    if let Ok(identity) = verifier.verify(token, 0) {
        // Only a corpus that was made with the key can come here.
        assert_eq!(Some(identity.user), named);
    }
}

fn signed(verifier: &Verifier, key: &LocalKey, time: u8, header: &[u8], claims: &[u8]) {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let token = format!("{message}.{}", key.sign(message.as_bytes()));
    let said: Value = serde_json::from_slice(claims).unwrap_or(Value::Null);
    let wall_ms = time_of(&said, time);
    let found = verifier.verify(&token, wall_ms);
    if header == HEADER && said.to_string().as_bytes() == claims {
        assert_eq!(found, judge(&said, wall_ms), "{said}");
    } else if let (Ok(identity), false) = (&found, said.is_null()) {
        // Written in another way, or under another header: at least nobody else is named. What serde skips may be no
        // UTF-8, and then nothing can be read here; whoever has the key may write so.
        assert_eq!(Ok(identity.clone()), judge(&said, wall_ms), "{said}");
    }
    if found != Err(TokenError::Rejected) {
        assert!(acceptable(header), "{}", String::from_utf8_lossy(header));
        assert!(subject_unverified(&token).is_some());
    }
    let other = Verifier::local("west", key).verify(&token, wall_ms);
    assert!(other == Err(TokenError::Rejected) || said.is_null() || aud_names(&said, "west"), "{said}");
    let mut unsigned = Verifier::new(CLUSTER);
    unsigned.accept("another", key.public_key());
    let names_it = serde_json::from_slice::<Value>(header).map_or(true, |header| header["kid"] == "another");
    assert!(names_it || unsigned.verify(&token, wall_ms) == Err(TokenError::Rejected), "a key is named by its kid");
}

/// The header of a token that may be accepted.
fn acceptable(header: &[u8]) -> bool {
    serde_json::from_slice::<Value>(header).is_ok_and(|header| header["alg"] == "EdDSA" && header["kid"] == "local")
        || std::str::from_utf8(header).is_err()
}

/// A time at, or next to, a place where the answer changes.
fn time_of(claims: &Value, time: u8) -> u64 {
    let ms = |name: &str| claims[name].as_u64().unwrap_or(0).saturating_mul(1000);
    match time % 6 {
        0 => ms("exp").saturating_add(LEEWAY_MS),
        1 => ms("exp").saturating_add(LEEWAY_MS).saturating_add(1),
        2 => ms("nbf").saturating_sub(LEEWAY_MS),
        3 => ms("nbf").saturating_sub(LEEWAY_MS).saturating_sub(1),
        4 => u64::MAX,
        _ => 0,
    }
}

/// What the claims mean by the words at the top of `token.rs`.
fn judge(claims: &Value, wall_ms: u64) -> Result<Identity, TokenError> {
    identity(claims).filter(|_| aud_names(claims, CLUSTER)).ok_or(TokenError::Rejected).and_then(|(identity, nbf)| {
        let early = wall_ms.saturating_add(LEEWAY_MS) < nbf.saturating_mul(1000);
        let late = wall_ms > identity.expires_at_ms.saturating_add(LEEWAY_MS);
        if early || late { Err(TokenError::Expired) } else { Ok(identity) }
    })
}

fn identity(claims: &Value) -> Option<(Identity, u64)> {
    let name = |value: &Value| value.as_str().filter(|text| (1..=64).contains(&text.len())).map(str::to_owned);
    let role = match claims.get("role").map(Value::as_str) {
        None | Some(Some("user")) => Role::User,
        Some(Some("service")) => Role::Service,
        Some(Some("operator")) => Role::Operator,
        Some(_) => return None,
    };
    let device = match claims.get("device") {
        None | Some(Value::Null) => None,
        Some(device) => Some(name(device)?.parse::<crate::ids::UserId>().ok()?),
    };
    let nbf = claims.get("nbf").map_or(Some(0), Value::as_u64)?;
    let user = name(claims.get("sub")?)?.parse().ok()?;
    let device = device.map(|device| crate::ids::DeviceId::new(device.as_str()).expect("a legal name"));
    let expires_at_ms = claims.get("exp")?.as_u64()?.saturating_mul(1000);
    Some((Identity { user, role, device, expires_at_ms }, nbf))
}

fn aud_names(claims: &Value, cluster: &str) -> bool {
    match &claims["aud"] {
        Value::String(name) => name == cluster,
        Value::Array(names) => names.iter().all(Value::is_string) && names.iter().any(|name| name == cluster),
        _ => false,
    }
}
