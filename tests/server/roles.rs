//! The table of answers in `docs/protocol.md`, cell by cell: every request, by every role and place in a group.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use roundtable::client::Client;
use roundtable::ids::{DeviceId, GroupId, Openness, OperationId, Role, UserId};
use roundtable::net::Policy;
use roundtable::wire::{
    Attach, Deframer, FrameCaps, GroupSeq, Hello, HistoryOutcome, HistoryRequest, Kind, Mark, Reply, Request,
};

use crate::support::{Running, user};

const COLUMNS: [&str; 8] = [
    "owner",
    "member",
    "former member",
    "stranger",
    "service for a member",
    "service",
    "operator for a user",
    "operator",
];

/// The table of the page: each request with the answer of each column.
fn table() -> Vec<(String, Vec<String>)> {
    let page = include_str!("../../docs/protocol.md");
    let begin = page.find("### Table of answers").expect("the page has the table");
    let lines =
        page[begin..].lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    let mut rows = lines.map(cells);
    let head = rows.next().expect("a head");
    assert_eq!(head[1..], COLUMNS, "the columns of the page");
    rows.skip(1).map(|mut row| (row.remove(0), row)).collect()
}

/// A group with an owner, a member, and one who was removed.
struct Scene {
    group: GroupId,
    owner: String,
    member: String,
    former: String,
    stranger: String,
}

impl Scene {
    fn new(server: &Running, number: usize) -> Self {
        let name = |what: &str| format!("{what}-{number}");
        let (owner, member, former, stranger) = (name("owner"), name("member"), name("former"), name("stranger"));
        let mut client: Client = server.connect(&owner);
        let group = client.create("scene", &[user(&member), user(&former)]).unwrap().group;
        client.send(group, "before").unwrap();
        client.remove(group, &[user(&former)]).unwrap();
        client.send(group, "after").unwrap();
        Self { group, owner, member, former, stranger }
    }

    /// Who asks in a column: the name in the token, its role, and the user for whom it asks.
    fn asker(&self, column: &str) -> (String, Role, Option<UserId>) {
        match column {
            "owner" => (self.owner.clone(), Role::User, None),
            "member" => (self.member.clone(), Role::User, None),
            "former member" => (self.former.clone(), Role::User, None),
            "stranger" => (self.stranger.clone(), Role::User, None),
            "service for an owner" => ("gateway".to_owned(), Role::Service, Some(user(&self.owner))),
            "service for a member" => ("gateway".to_owned(), Role::Service, Some(user(&self.member))),
            "service for a former member" => ("gateway".to_owned(), Role::Service, Some(user(&self.former))),
            "service for a stranger" => ("gateway".to_owned(), Role::Service, Some(user(&self.stranger))),
            "service" => ("gateway".to_owned(), Role::Service, None),
            "operator for a user" => ("root".to_owned(), Role::Operator, Some(user(&self.member))),
            "operator" => ("root".to_owned(), Role::Operator, None),
            other => panic!("who is {other}?"),
        }
    }

    fn request(&self, server: &Running, kind: Kind, token: &str) -> Request {
        let (operation, group) = (OperationId::random(), self.group);
        let members = vec![user(&format!("new-{operation}"))];
        match kind {
            Kind::Hello => hello(token),
            Kind::Attach => Request::Attach(Attach::Marks),
            Kind::Authenticate => Request::Authenticate { token: token.to_owned() },
            Kind::Ping => Request::Ping,
            Kind::Create => Request::Create { operation, title: "t".into(), members },
            Kind::Add => Request::Add { operation, group, members },
            Kind::Remove => Request::Remove { operation, group, members: vec![user("nobody-there")] },
            Kind::Leave => Request::Leave { operation, group },
            Kind::Rename => Request::Rename { operation, group, title: "another".into() },
            Kind::Transfer => Request::Transfer { operation, group, owner: user(&self.member) },
            Kind::Dissolve => Request::Dissolve { operation, group },
            Kind::Send => Request::Send { operation, group, body: b"hi".as_slice().into() },
            Kind::Whisper => {
                Request::Whisper { operation, group, to: vec![user(&self.owner)], body: b"psst".as_slice().into() }
            }
            Kind::Signal => Request::Signal { group, body: b"typing".as_slice().into() },
            Kind::Acknowledge => Request::Acknowledge { marks: vec![Mark { group, received: 1, read: 1 }] },
            Kind::GetGroup => Request::GetGroup { group, newer_than: 0 },
            Kind::ListGroups => Request::ListGroups { after: None, count_max: 0 },
            Kind::History => history(group),
            Kind::Readers => Request::Readers { group, seq: 0 },
            Kind::Feed => Request::Feed { position: 0 },
            Kind::Stats => Request::Stats,
            Kind::Backup => {
                let path = server.directory.path().join(format!("backup-{operation}"));
                Request::Backup { path: path.display().to_string() }
            }
            Kind::Connections => Request::Connections { after: 0, count_max: 0 },
            Kind::Kick => Request::Kick { user: user("nobody-there") },
            other => panic!("{other:?} is no request"),
        }
    }
}

fn hello(token: &str) -> Request {
    let device = DeviceId::new("roles").unwrap();
    let token = token.to_owned();
    Request::Hello(Hello { version_min: 1, version_max: 1, features: 0, heartbeat_s: 0, device, token })
}

fn history(group: GroupId) -> Request {
    Request::History(HistoryRequest { groups: vec![GroupSeq { group, seq: 1 }], entries_max: 0, bytes_max: 0 })
}

/// Sends hello, the request, and behind it a read of the same group, which is answered after it; gives the answer.
fn ask(server: &Running, scene: &Scene, column: &str, asked: Kind) -> String {
    let (name, role, for_user) = scene.asker(column);
    let token = server.token(&name, role);
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut bytes = Vec::new();
    hello(&token).encode_frame(&mut bytes, 1);
    scene.request(server, asked, &token).encode_frame_as(&mut bytes, 2, for_user.as_ref());
    history(scene.group).encode_frame_as(&mut bytes, 3, for_user.as_ref());
    stream.write_all(&bytes).unwrap();
    let is_answered = !matches!(asked, Kind::Signal | Kind::Acknowledge);
    let mut deframer = Deframer::default();
    let mut scratch = vec![0; 64 * 1024];
    loop {
        let count = stream.read(&mut scratch).unwrap();
        assert!(count > 0, "{column} {asked:?}: closed without an answer");
        deframer.feed(&scratch[..count]);
        while let Some(frame) = deframer.next_frame(FrameCaps::Server).unwrap() {
            let reply = Reply::decode(Kind::from_number(frame.header.kind).unwrap(), frame.body);
            match (frame.header.request_id, reply.map(Result::unwrap)) {
                // What closes a connection bears no number.
                (0, Some(Reply::Error(error))) => return error.name().to_owned(),
                (2, Some(reply)) => return said(&reply),
                (3, Some(_)) if !is_answered => return "none".to_owned(),
                _ => {}
            }
        }
    }
}

fn said(reply: &Reply) -> String {
    match reply {
        Reply::Error(error) => error.name().to_owned(),
        Reply::HistoryPage { groups } => match &groups[0].outcome {
            HistoryOutcome::Entries { .. } => Kind::HistoryPage.name().to_owned(),
            HistoryOutcome::Refused(error) => error.name().to_owned(),
        },
        reply => reply.kind().name().to_owned(),
    }
}

#[test]
fn every_cell_of_the_table_of_answers_is_what_a_server_answers() {
    let server = Running::start();
    let rows = table();
    let requests: Vec<_> = Kind::ALL.iter().filter(|kind| kind.number() < 0x4000).map(|kind| kind.name()).collect();
    assert_eq!(rows.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), requests, "every request has its row");
    let mut wrong = Vec::new();
    for (number, (name, cells)) in rows.iter().enumerate() {
        let kind = *Kind::ALL.iter().find(|kind| kind.name() == name).unwrap();
        let for_others = ["service for an owner", "service for a former member", "service for a stranger"];
        // Where a service gets what the member gets, it gets what the others get as well.
        let by_service = |at: usize| if cells[4] == cells[1] { &cells[at] } else { &cells[4] };
        let expected = COLUMNS.into_iter().zip(cells);
        let expected = expected.chain([(for_others[0], by_service(0)), (for_others[1], by_service(2))]);
        for (at, (column, cell)) in expected.chain([(for_others[2], by_service(3))]).enumerate() {
            // A scene of its own for each cell: what one does to a group is nothing to the next.
            let scene = Scene::new(&server, number * 100 + at);
            let answer = ask(&server, &scene, column, kind);
            if answer != *cell {
                wrong.push(format!("{name} by {column}: {answer}, and the page says {cell}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn create_and_add_may_be_closed_to_all_but_services() {
    let server = Running::start_with(|options| {
        options.policy = Policy { create: Openness::Services, add: Openness::Services };
    });
    let by_service =
        |request: &Request, user: &UserId| one_answer(&server, "gateway", Role::Service, request, Some(user));
    let (operation, alice) = (OperationId::random(), user("alice"));
    let create = Request::Create { operation, title: "t".into(), members: vec![user("bob")] };
    let refused = one_answer(&server, "alice", Role::User, &create, None);
    assert!(matches!(&refused, Reply::Error(error) if error.name() == "FORBIDDEN"), "{refused:?}");
    let Reply::Created(created) = by_service(&create, &alice) else { panic!("a service makes it") };
    let add = Request::Add { operation: OperationId::random(), group: created.group, members: vec![user("carol")] };
    let refused = one_answer(&server, "alice", Role::User, &add, None);
    assert!(matches!(&refused, Reply::Error(error) if error.name() == "FORBIDDEN"), "{refused:?}");
    assert!(matches!(by_service(&add, &alice), Reply::Changed(Kind::AddDone, _)));
}

fn one_answer(server: &Running, name: &str, role: Role, request: &Request, for_user: Option<&UserId>) -> Reply {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut bytes = Vec::new();
    hello(&server.token(name, role)).encode_frame(&mut bytes, 1);
    request.encode_frame_as(&mut bytes, 2, for_user);
    stream.write_all(&bytes).unwrap();
    let mut deframer = Deframer::default();
    let mut scratch = vec![0; 64 * 1024];
    loop {
        let count = stream.read(&mut scratch).unwrap();
        assert!(count > 0, "closed without an answer");
        deframer.feed(&scratch[..count]);
        while let Some(frame) = deframer.next_frame(FrameCaps::Server).unwrap() {
            let reply = Reply::decode(Kind::from_number(frame.header.kind).unwrap(), frame.body);
            if frame.header.request_id == 2 {
                return reply.unwrap().unwrap();
            }
        }
    }
}
