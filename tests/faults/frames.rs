//! Bad frames: each class of what a peer can send that is wrong gets its exact code, before and behind the hello, and
//! closes or does not close the connection; the server neither grows nor stops.
//!
//! What a class sends is drawn at random within the class. Classes that leave the connection open are sent many to one
//! connection, each with a ping behind it; the others have a connection each.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use roundtable::ids::{GroupId, OperationId, UserId};
use roundtable::limits::HEADER_BYTES;
use roundtable::token::LocalKey;
use roundtable::wire::{ErrorCode, Header, Kind, Request};

use crate::ledger::user;
use crate::peer::{Heard, Peer, hello, memory_bytes, token};
use crate::server::{PATIENCE, Server};
use crate::table::{Seen, Skipped, Stage};

/// Malformed bodies after which a connection is closed.
const MALFORMED_MAX: u64 = 10;
/// What the server may have more at the end of a class than behind the first tenth of it.
const GROWTH_BYTES_MAX: u64 = 8 << 20;
const FIRST_REQUEST: u32 = 77;

/// Where frames are sent to.
struct Ground {
    server: Server,
    key: LocalKey,
    other_key: LocalKey,
    alice: UserId,
    /// A group of Bob's that Alice is in.
    shared: GroupId,
    /// A group that she is not in.
    foreign: GroupId,
    /// An operation of hers.
    done: OperationId,
    _places: [tempfile::TempDir; 2],
}

/// One class.
struct Class {
    name: &'static str,
    /// Whether it comes behind a hello.
    entered: bool,
    expected: Expected,
    make: fn(&Ground, &mut StdRng) -> Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// Closed at once, without a word.
    Silence,
    /// Told, and closed.
    Closed(ErrorCode),
    /// Told, and the connection lives.
    Lives(ErrorCode),
}

use Expected::{Closed, Lives, Silence};

const CLASSES: &[Class] = &[
    Class { name: "other protocol", entered: false, expected: Silence, make: other_protocol },
    Class { name: "other protocol, entered", entered: true, expected: Silence, make: other_protocol },
    Class { name: "version", entered: false, expected: Closed(ErrorCode::Version), make: other_version },
    Class { name: "version, entered", entered: true, expected: Closed(ErrorCode::Version), make: other_version },
    Class {
        name: "too large",
        entered: false,
        expected: Closed(ErrorCode::TooLarge),
        make: |_, r| too_large(r, 4 << 10),
    },
    Class {
        name: "too large, entered",
        entered: true,
        expected: Closed(ErrorCode::TooLarge),
        make: |_, r| too_large(r, 128 << 10),
    },
    Class { name: "header CRC", entered: false, expected: Closed(ErrorCode::BadCrc), make: bad_header },
    Class { name: "header CRC, entered", entered: true, expected: Closed(ErrorCode::BadCrc), make: bad_header },
    Class { name: "body CRC", entered: false, expected: Closed(ErrorCode::BadCrc), make: bad_body },
    Class { name: "body CRC, entered", entered: true, expected: Closed(ErrorCode::BadCrc), make: bad_body },
    Class {
        name: "before the hello",
        entered: false,
        expected: Closed(ErrorCode::NotAuthenticated),
        make: request_of_any_kind,
    },
    Class { name: "second hello", entered: true, expected: Closed(ErrorCode::Protocol), make: |g, _| good_hello(g) },
    Class { name: "a server's frame", entered: true, expected: Closed(ErrorCode::Protocol), make: servers_frame },
    Class {
        name: "request 0",
        entered: true,
        expected: Closed(ErrorCode::Protocol),
        make: |_, _| frame(&Request::Ping, 0),
    },
    Class { name: "token rejected", entered: false, expected: Closed(ErrorCode::AuthFailed), make: rejected_token },
    Class { name: "token expired", entered: false, expected: Closed(ErrorCode::TokenExpired), make: expired_token },
    Class { name: "unknown kind", entered: true, expected: Lives(ErrorCode::UnknownKind), make: unknown_kind },
    Class { name: "reserved flag", entered: true, expected: Lives(ErrorCode::UnknownKind), make: reserved_flag },
    Class { name: "malformed body", entered: true, expected: Lives(ErrorCode::Malformed), make: malformed },
    Class { name: "no such group", entered: true, expected: Lives(ErrorCode::NotFound), make: absent_group },
    Class { name: "no right", entered: true, expected: Lives(ErrorCode::Forbidden), make: forbidden },
    Class { name: "not a member", entered: true, expected: Lives(ErrorCode::NotAMember), make: not_a_member },
    Class { name: "operation id again", entered: true, expected: Lives(ErrorCode::IdReused), make: id_reused },
];

pub(crate) fn run(stage: &Stage) -> Result<Seen, Skipped> {
    let each = stage.scale(50, 10_000);
    let ground = Ground::new();
    let mut growth = (0, "no class");
    for (place, class) in (1..).zip(CLASSES) {
        let mut random = stage.random(place);
        let mut before = 0;
        let mut sent = 0;
        while sent < each {
            if sent * 10 <= each {
                before = memory_bytes(ground.server.pid());
            }
            sent += class.send(&ground, &mut random, each - sent).unwrap_or_else(|why| panic!("{}: {why}", class.name));
        }
        let grown = memory_bytes(ground.server.pid()).saturating_sub(before);
        growth = growth.max((grown, class.name));
        assert!(!stage.is_milestone || grown <= GROWTH_BYTES_MAX, "{}: {grown} bytes more", class.name);
        stage.show(place, CLASSES.len() as u64, class.name);
    }
    let mut alice = Peer::enter(&ground.server, &ground.alice, 30);
    assert!(alice.pings(PATIENCE), "it is as if nothing had been");
    let control = control(&ground);
    let (status, _) = ground.server.terminate();
    assert_eq!(status.code(), Some(0));
    Ok(Seen {
        count: format!("{} classes, {each} each", CLASSES.len()),
        observed: format!("exact codes; at most {} KiB more memory ({})", growth.0 / 1024, growth.1),
        control,
    })
}

impl Ground {
    fn new() -> Self {
        let places = [(); 2].map(|()| tempfile::tempdir().expect("a temporary directory"));
        let data = places[0].path().join("data");
        let server = Server::start(&data);
        let key = LocalKey::open(&data.join("keys")).expect("the server made its key");
        let other_key = LocalKey::open_or_create(&places[1].path().join("keys")).expect("a key");
        let (alice, bob) = (user("alice"), user("bob"));
        let mut owner = server.connect(&bob, "owner").expect("it takes a client");
        let shared = owner.create("shared", std::slice::from_ref(&alice)).expect("made").group;
        let foreign = owner.create("foreign", &[]).expect("made").group;
        let done = OperationId::from_bytes([7; 16]).expect("not zero");
        let mut client = server.connect(&alice, "done").expect("it takes a client");
        client.send_with(done, shared, b"once").expect("sent");
        Self { server, key, other_key, alice, shared, foreign, done, _places: places }
    }
}

impl Class {
    /// Sends one, or as many as one connection takes; gives how many.
    fn send(&self, ground: &Ground, random: &mut StdRng, most: u64) -> Result<u64, String> {
        let mut peer = if self.entered {
            Peer::enter(&ground.server, &ground.alice, 300)
        } else {
            Peer::connect(&ground.server.address)
        };
        let Lives(code) = self.expected else {
            peer.say(&(self.make)(ground, random));
            let expected = if let Closed(code) = self.expected { vec![code] } else { vec![] };
            let codes = peer.codes_until_closed(PATIENCE);
            return if codes.as_ref() == Some(&expected) { Ok(1) } else { Err(format!("{codes:?} for {expected:?}")) };
        };
        let is_counted = code == ErrorCode::Malformed;
        let here = most.min(if is_counted { MALFORMED_MAX } else { 500 });
        for number in 1..=here {
            peer.say(&(self.make)(ground, random));
            let heard = peer.hear(PATIENCE);
            if heard.code() != Some(code) {
                return Err(format!("{heard:?} for {code:?}, number {number}"));
            }
            let is_last = is_counted && number == MALFORMED_MAX;
            if is_last && peer.hear(PATIENCE) != Heard::Closed {
                return Err("not closed at the tenth".to_owned());
            }
            if !is_last && !peer.pings(PATIENCE) {
                return Err(format!("closed behind number {number}"));
            }
        }
        Ok(here)
    }
}

/// Good frames, judged as if they were bad: each class has to say that this is not what it expects.
fn control(ground: &Ground) -> String {
    let mut noticed = 0;
    for class in CLASSES {
        let mut random = StdRng::seed_from_u64(0);
        let mut peer = Peer::connect(&ground.server.address);
        peer.say(&good_hello(ground));
        peer.say(&frame(&Request::GetGroup { group: ground.shared, newer_than: 0 }, FIRST_REQUEST));
        // What is good closes nothing: this does, with a code that the class does not expect.
        let is_version = class.expected == Closed(ErrorCode::Version);
        let last = if is_version { frame(&Request::Ping, 0) } else { other_version(ground, &mut random) };
        peer.say(&last);
        let codes = peer.codes_until_closed(PATIENCE);
        let expected = match class.expected {
            Silence => vec![],
            Closed(code) | Lives(code) => vec![code],
        };
        noticed += u64::from(codes.is_some_and(|codes| codes != expected));
    }
    assert_eq!(noticed, CLASSES.len() as u64, "control: good frames pass for bad ones");
    format!("good frames in place of bad ones: noticed in all {noticed} classes")
}

// ---- what is sent ------------------------------------------------------------------------------------------------------

fn frame(request: &Request, number: u32) -> Vec<u8> {
    let mut frame = Vec::new();
    request.encode_frame(&mut frame, number);
    frame
}

fn good_hello(ground: &Ground) -> Vec<u8> {
    frame(&hello(token(&ground.key, &ground.alice, |_| {}), 30), FIRST_REQUEST)
}

fn send_request(ground: &Ground, random: &mut StdRng) -> Request {
    let body: Vec<u8> = (0..random.random_range(1..200)).map(|_| random.random()).collect();
    Request::Send { operation: operation(random), group: ground.shared, body: body.into() }
}

fn operation(random: &mut StdRng) -> OperationId {
    OperationId::from_bytes(random.random()).expect("not zero")
}

/// Writes the CRC of a header that was changed.
fn reseal(frame: &mut [u8]) {
    let crc = crc32fast::hash(&frame[..20]);
    frame[20..HEADER_BYTES].copy_from_slice(&crc.to_be_bytes());
}

fn other_protocol(_: &Ground, random: &mut StdRng) -> Vec<u8> {
    match random.random_range(0..4) {
        0 => b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".to_vec(),
        1 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03random bytes of a TLS hello".to_vec(),
        _ => {
            let mut noise: Vec<u8> = (0..random.random_range(24..4_000)).map(|_| random.random()).collect();
            noise[0] = b'R' ^ (1 << random.random_range(0..8));
            noise
        }
    }
}

fn other_version(_: &Ground, random: &mut StdRng) -> Vec<u8> {
    let mut frame = frame(&Request::Ping, FIRST_REQUEST);
    frame[4] = random.random_range(2..=255);
    reseal(&mut frame);
    frame
}

fn too_large(random: &mut StdRng, cap: u32) -> Vec<u8> {
    let mut frame = frame(&Request::Ping, FIRST_REQUEST);
    let least = cap - u32::try_from(HEADER_BYTES).expect("small") + 1;
    // Just over it as often as far over it.
    let length = if random.random() { least } else { random.random_range(least..=u32::MAX) };
    frame[8..12].copy_from_slice(&length.to_be_bytes());
    reseal(&mut frame);
    frame
}

fn bad_header(ground: &Ground, random: &mut StdRng) -> Vec<u8> {
    let mut frame = frame(&send_request(ground, random), FIRST_REQUEST);
    // Not in the magic: that would be another protocol.
    let bit = random.random_range(4 * 8..HEADER_BYTES * 8);
    frame[bit / 8] ^= 1 << (bit % 8);
    frame
}

fn bad_body(ground: &Ground, random: &mut StdRng) -> Vec<u8> {
    let mut frame = frame(&send_request(ground, random), FIRST_REQUEST);
    let bit = random.random_range(HEADER_BYTES * 8..frame.len() * 8);
    frame[bit / 8] ^= 1 << (bit % 8);
    frame
}

/// Any kind but those that may come before the hello.
fn request_of_any_kind(ground: &Ground, random: &mut StdRng) -> Vec<u8> {
    match random.random_range(0..3) {
        0 => frame(&send_request(ground, random), FIRST_REQUEST),
        1 => unknown_kind(ground, random),
        _ => servers_frame(ground, random),
    }
}

fn of_kind(kind: u16, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; HEADER_BYTES];
    frame.extend_from_slice(body);
    Header::seal(&mut frame, 0, Kind::Ping, flags, FIRST_REQUEST);
    frame[6..8].copy_from_slice(&kind.to_be_bytes());
    reseal(&mut frame);
    frame
}

fn servers_frame(_: &Ground, random: &mut StdRng) -> Vec<u8> {
    let kinds: Vec<u16> = Kind::ALL.iter().map(|kind| kind.number()).filter(|number| *number >= 0x4000).collect();
    of_kind(kinds[random.random_range(0..kinds.len())], 0, &[])
}

fn unknown_kind(_: &Ground, random: &mut StdRng) -> Vec<u8> {
    let kind = loop {
        let kind = random.random_range(0..0x4000);
        if Kind::from_number(kind).is_none() {
            break kind;
        }
    };
    let body: Vec<u8> = (0..random.random_range(0..100)).map(|_| random.random()).collect();
    of_kind(kind, 0, &body)
}

fn reserved_flag(_: &Ground, random: &mut StdRng) -> Vec<u8> {
    of_kind(Kind::Ping.number(), 1 << random.random_range(1..8), &[])
}

/// A body that is too short, has an operation that is zero, or text that is no UTF-8.
fn malformed(ground: &Ground, random: &mut StdRng) -> Vec<u8> {
    let whole = frame(&send_request(ground, random), FIRST_REQUEST);
    let body = &whole[HEADER_BYTES..];
    match random.random_range(0..3) {
        0 => of_kind(Kind::Send.number(), 0, &body[..random.random_range(0..32)]),
        1 => of_kind(Kind::Send.number(), 0, &[&[0; 16], &body[16..]].concat()),
        _ => {
            let kick = frame(&Request::Kick { user: user("abcdef") }, FIRST_REQUEST);
            let mut body = kick[HEADER_BYTES..].to_vec();
            *body.last_mut().expect("it has a name") = random.random_range(0x80..=0xff);
            of_kind(Kind::Kick.number(), 0, &body)
        }
    }
}

fn rejected_token(ground: &Ground, random: &mut StdRng) -> Vec<u8> {
    let Ground { key, other_key, alice, .. } = ground;
    let text = match random.random_range(0..4) {
        0 => token(key, alice, |grant| "another".clone_into(&mut grant.cluster)),
        1 => token(other_key, alice, |_| {}),
        2 => (0..random.random_range(1..300)).map(|_| char::from(random.random_range(b' '..b'~'))).collect(),
        _ => {
            let mut good = token(key, alice, |_| {}).into_bytes();
            // Not the last letter: some of its bits mean nothing.
            let at = random.random_range(0..good.len() - 1);
            good[at] = if good[at] == b'A' { b'B' } else { b'A' };
            String::from_utf8(good).expect("letters")
        }
    };
    frame(&hello(text, 30), FIRST_REQUEST)
}

fn expired_token(ground: &Ground, random: &mut StdRng) -> Vec<u8> {
    let text = token(&ground.key, &ground.alice, |grant| {
        if random.random() {
            grant.expires_at_ms = random.random_range(1_000..1_500_000_000_000);
        } else {
            grant.valid_from_ms = random.random_range(3_500_000_000_000..3_900_000_000_000);
        }
    });
    frame(&hello(text, 30), FIRST_REQUEST)
}

fn absent_group(ground: &Ground, random: &mut StdRng) -> Vec<u8> {
    let group = if random.random() {
        ground.foreign
    } else {
        let mut bytes = *ground.foreign.as_bytes();
        random.fill(&mut bytes[8..]);
        bytes[8] = bytes[8] & 0x3f | 0x80;
        GroupId::from_bytes(bytes).expect("a legal id")
    };
    let request = match random.random_range(0..3) {
        0 => Request::GetGroup { group, newer_than: 0 },
        1 => Request::Send { operation: operation(random), group, body: vec![1].into() },
        _ => Request::Leave { operation: operation(random), group },
    };
    frame(&request, FIRST_REQUEST)
}

fn forbidden(ground: &Ground, random: &mut StdRng) -> Vec<u8> {
    let group = ground.shared;
    let request = match random.random_range(0..4) {
        0 => Request::Rename { operation: operation(random), group, title: "mine".into() },
        1 => Request::Dissolve { operation: operation(random), group },
        2 => Request::Stats,
        _ => Request::Kick { user: user("bob") },
    };
    frame(&request, FIRST_REQUEST)
}

fn not_a_member(ground: &Ground, random: &mut StdRng) -> Vec<u8> {
    let operation = operation(random);
    let to = vec![user("carol")];
    frame(&Request::Whisper { operation, group: ground.shared, to, body: vec![1].into() }, FIRST_REQUEST)
}

fn id_reused(ground: &Ground, random: &mut StdRng) -> Vec<u8> {
    let body: Vec<u8> = (0..random.random_range(5..100)).map(|_| random.random()).collect();
    frame(&Request::Send { operation: ground.done, group: ground.shared, body: body.into() }, FIRST_REQUEST)
}
