//! How long a create takes until the last member has the packet, beside the raw limit of the same bytes.
//!
//! A real server process, N members on line (the creator among them), one create after the other. The clock starts
//! when the request is written and stops when the last of the N sockets has delivered the whole group packet. The raw
//! limit is a thread that does only what cannot be avoided: reads the same request, `pwrite` + `fdatasync` of the same
//! number of bytes, one `send` of the same packet to each of N sockets. The two take turns, in one run, and the same
//! code receives for both.
//!
//! `cargo bench --bench create`; `ROUNDTABLE_ROUNDS` sets the rounds for each size (default 200).

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::{Events, Interest, Poll, Token};
use roundtable::ids::{DeviceId, OperationId, Role, UserId};
use roundtable::limits::HEADER_BYTES;
use roundtable::token::{Grant, LocalKey, mint};
use roundtable::wire::{Attach, Deframer, FrameCaps, Hello, Kind, Push, Request};

const CLUSTER: &str = "roundtable";

fn main() {
    let rounds = std::env::var("ROUNDTABLE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    println!("time until the last member has the packet, {rounds} creates each, in turns with the raw limit");
    println!(
        "{:>8} {:>12} {:>12} {:>12} {:>12} {:>9} {:>8}",
        "members", "median", "p99", "raw median", "raw p99", "spread", "ratio"
    );
    for members in [10, 100, 1_000] {
        measure(members, rounds);
    }
}

fn measure(members: usize, rounds: usize) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(directory.path());
    let key = LocalKey::open(&directory.path().join("data/keys")).expect("the server made its key");
    let users: Vec<UserId> =
        (0..members).map(|number| UserId::new(&format!("member-{number:04}")).expect("legal")).collect();
    let mut peers = Peers::new(users.iter().map(|user| attach(server.address, &key, user)).collect());

    let request = create_frame(&users);
    let packet = peers.first_packet(&request, members);
    let raw = RawServer::start(directory.path(), members, request.len(), packet.clone());
    let mut raw_peers = Peers::new(raw.connect(members));

    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(peers.round(&create_frame(&users), packet.len()));
        bare.push(raw_peers.round(&request, packet.len()));
    }
    report(members, &mut ours, &mut bare);
}

fn report(members: usize, ours: &mut [Duration], bare: &mut [Duration]) {
    let mut ratios: Vec<f64> =
        ours.iter().zip(&*bare).map(|(ours, bare)| ours.as_secs_f64() / bare.as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    ours.sort();
    bare.sort();
    let at = |sorted: &[Duration], share: usize| sorted[(sorted.len() * share / 100).min(sorted.len() - 1)];
    let millis = |time: Duration| format!("{:.3} ms", time.as_secs_f64() * 1e3);
    println!(
        "{members:>8} {:>12} {:>12} {:>12} {:>12} {:>9} {:>8.2}",
        millis(at(ours, 50)),
        millis(at(ours, 99)),
        millis(at(bare, 50)),
        millis(at(bare, 99)),
        format!("{:.2}-{:.2}", ratios[ratios.len() / 4], ratios[ratios.len() * 3 / 4]),
        ratios[ratios.len() / 2],
    );
}

fn create_frame(users: &[UserId]) -> Vec<u8> {
    let mut frame = Vec::new();
    let create = Request::Create { operation: OperationId::random(), title: "bench".into(), members: users.to_vec() };
    create.encode_frame(&mut frame, 9);
    frame
}

/// The server as its users run it.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(directory: &Path) -> Self {
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
        Self { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection of a user that is on line.
fn attach(address: SocketAddr, key: &LocalKey, user: &UserId) -> TcpStream {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let now_ms = since_1970.as_secs() * 1_000;
    let grant = Grant {
        user: user.clone(),
        role: Role::User,
        device: None,
        cluster: CLUSTER.to_owned(),
        valid_from_ms: now_ms - 1_000,
        expires_at_ms: now_ms + 3_600_000,
    };
    let mut out = Vec::new();
    let device = DeviceId::new("bench").expect("legal");
    let token = mint(key, &grant);
    Request::Hello(Hello { version_min: 1, version_max: 1, features: 0, heartbeat_s: 300, device, token })
        .encode_frame(&mut out, 1);
    Request::Attach(Attach::Marks).encode_frame(&mut out, 2);
    let mut socket = TcpStream::connect(address).expect("the server listens");
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

/// The sockets of all members; the first is the creator's.
struct Peers {
    poll: Poll,
    sockets: Vec<mio::net::TcpStream>,
    /// Bytes that each has received in this round.
    received: Vec<usize>,
    scratch: Vec<u8>,
    /// Bytes of the reply that the creator gets beside the packet.
    reply_bytes: usize,
}

impl Peers {
    fn new(sockets: Vec<TcpStream>) -> Self {
        let poll = Poll::new().expect("epoll");
        let mut sockets: Vec<_> = sockets
            .into_iter()
            .map(|socket| {
                socket.set_nonblocking(true).expect("a socket");
                mio::net::TcpStream::from_std(socket)
            })
            .collect();
        for (slot, socket) in sockets.iter_mut().enumerate() {
            poll.registry().register(socket, Token(slot), Interest::READABLE).expect("it is registered");
        }
        let received = vec![0; sockets.len()];
        Self { poll, sockets, received, scratch: vec![0; 1 << 20], reply_bytes: 0 }
    }

    /// One create that warms up: checks that every member gets the same packet with all members, and gives its bytes.
    fn first_packet(&mut self, request: &[u8], members: usize) -> Vec<u8> {
        self.sockets[0].write_all(request).expect("a small frame");
        let mut packets = vec![Vec::new(); self.sockets.len()];
        let mut deframers: Vec<_> = packets.iter().map(|_| Deframer::default()).collect();
        let mut events = Events::with_capacity(1024);
        while packets.iter().any(Vec::is_empty) {
            self.poll.poll(&mut events, Some(Duration::from_secs(30))).expect("epoll");
            for event in &events {
                let slot = event.token().0;
                while let Some(count) = read(&mut self.sockets[slot], &mut self.scratch) {
                    deframers[slot].feed(&self.scratch[..count]);
                }
                while let Some(frame) = deframers[slot].next_frame(FrameCaps::Server).expect("frames") {
                    let length = frame.body.len() + HEADER_BYTES;
                    let kind = Kind::from_number(frame.header.kind).expect("a known kind");
                    match Push::decode(kind, frame.body) {
                        Some(Ok(Push::GroupPacket(packet))) => {
                            assert_eq!(packet.members.len(), members, "the packet names all members");
                            Push::GroupPacket(packet).encode_frame(&mut packets[slot]);
                        }
                        _ => self.reply_bytes = length,
                    }
                }
            }
        }
        assert!(packets.windows(2).all(|pair| pair[0] == pair[1]), "everybody gets the same packet");
        packets.swap_remove(0)
    }

    /// Writes the request and waits until every socket has the packet.
    fn round(&mut self, request: &[u8], packet_bytes: usize) -> Duration {
        self.received.fill(0);
        self.received[0] = 0;
        let reply_bytes = self.reply_bytes;
        let wanted = |slot: usize| packet_bytes + if slot == 0 { reply_bytes } else { 0 };
        let mut missing = self.sockets.len();
        let mut events = Events::with_capacity(1024);
        let begun = Instant::now();
        self.sockets[0].write_all(request).expect("a small frame");
        while missing > 0 {
            self.poll.poll(&mut events, Some(Duration::from_secs(30))).expect("epoll");
            assert!(!events.is_empty(), "{missing} members got nothing");
            for event in &events {
                let slot = event.token().0;
                while let Some(count) = read(&mut self.sockets[slot], &mut self.scratch) {
                    self.received[slot] += count;
                    if self.received[slot] == wanted(slot) {
                        missing -= 1;
                    }
                }
            }
        }
        begun.elapsed()
    }
}

/// The bytes that a socket has; `None` once it has no more.
fn read(socket: &mut mio::net::TcpStream, scratch: &mut [u8]) -> Option<usize> {
    match socket.read(scratch) {
        Ok(0) => panic!("the server closed"),
        Ok(count) => Some(count),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

/// Only the system calls that cannot be avoided.
struct RawServer {
    listener: TcpListener,
    accepted: std::sync::mpsc::Sender<TcpStream>,
}

impl RawServer {
    fn start(directory: &Path, members: usize, request_bytes: usize, packet: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let file = File::create(directory.join("raw")).expect("a file");
        file.write_all_at(&vec![0; 64 << 20], 0).expect("room");
        file.sync_all().expect("a disk");
        let (accepted, sockets) = std::sync::mpsc::channel::<TcpStream>();
        std::thread::spawn(move || {
            let mut sockets: Vec<TcpStream> = sockets.iter().take(members).collect();
            let mut request = vec![0; request_bytes];
            let mut offset = 0;
            while sockets[0].read_exact(&mut request).is_ok() {
                file.write_all_at(&request, offset % (63 << 20)).expect("room");
                offset += request.len() as u64;
                file.sync_data().expect("a disk");
                for socket in &mut sockets {
                    if socket.write_all(&packet).is_err() {
                        return;
                    }
                }
            }
        });
        Self { listener, accepted }
    }

    fn connect(&self, members: usize) -> Vec<TcpStream> {
        let address = self.listener.local_addr().expect("a port");
        let connect = |_| {
            let socket = TcpStream::connect(address).expect("it listens");
            socket.set_nodelay(true).expect("a socket");
            let (peer, _) = self.listener.accept().expect("a connection");
            peer.set_nodelay(true).expect("a socket");
            self.accepted.send(peer).expect("the raw server runs");
            socket
        };
        (0..members).map(connect).collect()
    }
}
