//! The server as its users run it, and users that are on line.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use roundtable::ids::{DeviceId, Role, UserId};
use roundtable::token::{Grant, LocalKey, mint};
use roundtable::wire::{Attach, Deframer, FrameCaps, Hello, Kind, Request};

const CLUSTER: &str = "roundtable";

/// A process on a port of its own; killed at the end.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    key: LocalKey,
}

impl Server {
    /// With its data below `directory`.
    pub(crate) fn start(directory: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_roundtable"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(directory.join("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it says where it listens");
        let address = line.trim().rsplit(' ').next().and_then(|text| text.parse().ok()).expect("an address");
        let key = LocalKey::open(&directory.join("data/keys")).expect("the server made its key");
        Self { child, address, key }
    }

    /// A connection of a user that is on line.
    pub(crate) fn attach(&self, user: &UserId) -> TcpStream {
        let mut out = Vec::new();
        let device = DeviceId::new("bench").expect("legal");
        let token = mint(&self.key, &grant(user));
        Request::Hello(Hello { version_min: 1, version_max: 1, features: 0, heartbeat_s: 300, device, token })
            .encode_frame(&mut out, 1);
        Request::Attach(Attach::Marks).encode_frame(&mut out, 2);
        let mut socket = TcpStream::connect(self.address).expect("the server listens");
        socket.set_nodelay(true).expect("a socket");
        socket.write_all(&out).expect("it takes a hello");
        let mut deframer = Deframer::default();
        let mut bytes = [0; 4096];
        loop {
            while let Some(frame) = deframer.next_frame(FrameCaps::Server).expect("frames") {
                if frame.header.kind == Kind::Ready.number() {
                    return socket;
                }
            }
            let count = socket.read(&mut bytes).expect("it answers");
            assert!(count > 0, "the server closed");
            deframer.feed(&bytes[..count]);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Good for an hour.
fn grant(user: &UserId) -> Grant {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let now_ms = since_1970.as_secs() * 1_000;
    Grant {
        user: user.clone(),
        role: Role::User,
        device: None,
        cluster: CLUSTER.to_owned(),
        valid_from_ms: now_ms - 1_000,
        expires_at_ms: now_ms + 3_600_000,
    }
}
