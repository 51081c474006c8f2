//! Users that are on line.

use std::io::{Read, Write};
use std::net::TcpStream;

use roundtable::ids::{DeviceId, Role, UserId};
use roundtable::wire::{Attach, Deframer, FrameCaps, Hello, Kind, Request};

use crate::process::Process;

/// A connection of a user that is on line.
pub(crate) fn attach(server: &Process, user: &UserId) -> TcpStream {
    let mut out = Vec::new();
    let device = DeviceId::new("bench").expect("legal");
    let token = server.token(user, Role::User);
    Request::Hello(Hello { version_min: 1, version_max: 1, features: 0, heartbeat_s: 300, device, token })
        .encode_frame(&mut out, 1);
    Request::Attach(Attach::Marks).encode_frame(&mut out, 2);
    let mut socket = TcpStream::connect(server.address).expect("the server listens");
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
