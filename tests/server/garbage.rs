//! Whatever arrives on the port, the server neither stops nor blocks nor grows.

use std::io::{Read, Write};
use std::net::TcpStream;

use roundtable::codec::Reader;
use roundtable::limits::HEADER_BYTES;
use roundtable::wire::{Deframer, ErrorBody, ErrorCode, FrameCaps, Header, Kind, Request};

use crate::support::{PATIENCE, Running, user};

/// Sends bytes on a connection of their own; gives the errors that came until the server closed, or was left.
fn send(server: &Running, bytes: &[u8]) -> (TcpStream, Vec<u8>) {
    let mut socket = TcpStream::connect(server.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // The server may close before everything is written: that is an answer as well.
    let _ = socket.write_all(bytes);
    (socket, Vec::new())
}

fn until_closed((mut socket, mut answer): (TcpStream, Vec<u8>)) -> Vec<ErrorCode> {
    match socket.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "it closes in time: {error}"),
    }
    let mut deframer = Deframer::default();
    deframer.feed(&answer);
    let mut codes = Vec::new();
    while let Some(frame) = deframer.next_frame(FrameCaps::Server).unwrap() {
        assert_eq!(frame.header.kind, Kind::Error.number());
        let error = ErrorBody::decode(&mut Reader::new(frame.body)).unwrap();
        codes.push(ErrorCode::from_number(error.code).unwrap());
    }
    codes
}

fn ping() -> Vec<u8> {
    let mut frame = Vec::new();
    Request::Ping.encode_frame(&mut frame, 1);
    frame
}

/// A ping whose header announces a body of this length; the header's own CRC is right.
fn announcing(length: u32) -> Vec<u8> {
    let mut frame = ping();
    frame[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32fast::hash(&frame[..20]);
    frame[20..24].copy_from_slice(&crc.to_be_bytes());
    frame
}

#[test]
fn strangers_are_sent_away_without_a_word() {
    let server = Running::start();
    let mut noise = vec![0_u8; 100_000];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for byte in &mut noise {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = (state >> 56) as u8 | 0x80;
    }
    let http = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n";
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    for bytes in [&noise[..], &http[..], &tls[..], &b"R"[..1].repeat(2)[..]] {
        assert_eq!(until_closed(send(&server, bytes)), []);
    }
    assert!(server.connect("alice").ping().unwrap().ready);
}

#[test]
fn damaged_and_oversized_frames_are_told_and_closed() {
    let server = Running::start();
    let mut bad_header = ping();
    bad_header[12] ^= 1;
    let mut bad_body = Vec::new();
    Request::Kick { user: user("x") }.encode_frame(&mut bad_body, 1);
    *bad_body.last_mut().unwrap() ^= 1;
    let mut other_version = ping();
    other_version[4] = 9;
    let crc = crc32fast::hash(&other_version[..20]);
    other_version[20..24].copy_from_slice(&crc.to_be_bytes());
    let mut stranger = vec![0; HEADER_BYTES];
    Header::seal(&mut stranger, 0, Kind::Stats, 0, 7);
    let cases = [
        (bad_header, ErrorCode::BadCrc),
        (bad_body, ErrorCode::BadCrc),
        (announcing(u32::MAX), ErrorCode::TooLarge),
        (announcing(4 * 1024), ErrorCode::TooLarge),
        (other_version, ErrorCode::Version),
        (stranger, ErrorCode::NotAuthenticated),
    ];
    for (bytes, code) in cases {
        assert_eq!(until_closed(send(&server, &bytes)), [code]);
    }
}

#[test]
fn frames_cut_in_the_middle_and_left_cost_nothing_that_stays() {
    let server = Running::start();
    let mut alice = server.attach("alice");
    let connections = server.stat("connections_count");
    let halves: Vec<_> = (0..200).map(|cut| send(&server, &announcing(4_000)[..=cut % HEADER_BYTES])).collect();
    // Those that are left open hold a slot each, and nobody who is on line notices.
    let group = alice.create("still here", &[user("bob")]).unwrap().group;
    assert_eq!(alice.send(group, "hi").unwrap().seq, 2);
    drop(halves);
    // The server hears of each close by itself; asking takes longer than that.
    let mut asked = 0;
    while server.stat("connections_count") > connections {
        asked += 1;
        assert!(asked < 10_000, "every connection that was closed is forgotten");
    }
    assert_eq!(server.stat("output_bytes"), 0);
}

#[test]
fn a_hello_that_never_comes_is_not_waited_for() {
    let server = Running::start();
    // Limits of time are the server's own: 5 s until it says so and closes.
    assert_eq!(until_closed(send(&server, &[])), [ErrorCode::Timeout]);
}
