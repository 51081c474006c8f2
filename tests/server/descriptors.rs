//! What the system gives too little of.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use roundtable::wire::{Deframer, FrameCaps, Kind, Request};

use crate::support::PATIENCE;

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(limit: &str) -> (Process, tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let script = format!("ulimit -n {limit}; exec \"$0\" serve --data \"$1\" --listen 127.0.0.1:0 --segment-mib 4");
    let mut child = Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_roundtable")])
        .arg(directory.path().join("data"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().rsplit(' ').next().unwrap().to_owned();
    (Process(child), directory, address)
}

fn pings(socket: &mut TcpStream) -> std::io::Result<bool> {
    let mut frame = Vec::new();
    Request::Ping.encode_frame(&mut frame, 1);
    socket.write_all(&frame)?;
    let mut deframer = Deframer::default();
    let mut bytes = [0; 256];
    loop {
        let count = socket.read(&mut bytes)?;
        if count == 0 {
            return Ok(false);
        }
        deframer.feed(&bytes[..count]);
        if let Some(frame) = deframer.next_frame(FrameCaps::Server).unwrap() {
            return Ok(frame.header.kind == Kind::Pong.number());
        }
    }
}

fn connect(address: &str) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn those_who_wait_for_a_descriptor_are_accepted_as_soon_as_one_is_free() {
    let (_process, _directory, address) = serve("128");
    let mut first: Vec<_> = (0..40).map(|_| connect(&address)).collect();
    for socket in &mut first {
        assert!(pings(socket).unwrap(), "there is room for these");
    }
    // 128 descriptors, 64 kept back: these wait in the listener's queue.
    let mut waiting: Vec<_> = (0..40).map(|_| connect(&address)).collect();
    assert!(pings(&mut first[0]).unwrap(), "live clients do not notice");
    drop(first);
    for socket in &mut waiting {
        assert!(pings(socket).unwrap(), "it was accepted when another one had closed");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_idle_server_does_not_spin() {
    let (process, _directory, address) = serve("256");
    let mut sockets: Vec<_> = (0..20).map(|_| connect(&address)).collect();
    for socket in &mut sockets {
        assert!(pings(socket).unwrap());
    }
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.0.id())).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().map(str::to_owned).collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    // Two seconds in which nothing comes: a loop that spins would use all of them.
    sockets[0].set_read_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
    assert!(sockets[0].read(&mut [0; 1]).is_err(), "nothing comes");
    // A tick is 10 ms: a twentieth of the time is more than any timer needs.
    assert!(ticks() - before <= 10, "{} ticks of 10 ms in 2 s", ticks() - before);
}
