//! Every body of the protocol: what is read from it, written again, is what was read.
//!
//! ```text
//! u8  which kind, in the order of the table of kinds
//! u8  bit 0: with `as USER` in front (requests); the other bits: where the body is cut
//! …   the body
//! ```

use crate::codec::DecodeError;
use crate::ids::UserId;
use crate::limits::HEADER_BYTES;
use crate::wire::{Header, Kind, Push, Reply, Request, flags};

/// The content of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Message {
    Request(Option<UserId>, Request),
    Reply(Reply),
    Push(Push),
}

/// What a body says is what it says again once it was written anew; cut anywhere it says nothing; what stands behind
/// the last field is passed over.
pub fn bodies(data: &[u8]) {
    let Some((control, body)) = data.split_first_chunk::<2>() else { return };
    let [kind, modes] = *control;
    let kind = Kind::ALL[usize::from(kind) % Kind::ALL.len()];
    let Ok(message) = decode(kind, modes & 1 != 0, body) else { return };
    let frame = encode(&message);
    let header = Header::decode(frame.first_chunk().expect("a header")).expect("a good header");
    let written = &frame[HEADER_BYTES..];
    assert_eq!((header.kind, header.body_bytes as usize), (kind.number(), written.len()));
    assert_eq!(header.body_crc, crc32fast::hash(written));
    let acting = header.flags == flags::AS_USER;
    assert_eq!(decode(kind, acting, written).as_ref(), Ok(&message), "written anew, it says the same");
    assert!(written.len() <= body.len(), "nothing is added that was not there");
    if !says_less_than_it_has(kind) {
        assert_eq!(written, &body[..written.len()], "each value has one form");
    }
    let cut = usize::from(modes >> 1);
    if cut < written.len() {
        assert!(decode(kind, acting, &written[..cut]).is_err(), "cut at {cut}");
    }
    let last = written.len().saturating_sub(1);
    assert!(written.is_empty() || decode(kind, acting, &written[..last]).is_err(), "without its last byte");
    let later = [written, &[0xa5; 3]].concat();
    assert_eq!(decode(kind, acting, &later), Ok(message), "fields of a later version are passed over");
}

/// Kinds with bits that mean nothing yet, or with entries of which a later version may have more kinds.
fn says_less_than_it_has(kind: Kind) -> bool {
    matches!(kind, Kind::Created | Kind::Entry | Kind::HistoryPage)
        || Kind::ALL.iter().any(|of| of.done() == Some(kind))
}

fn decode(kind: Kind, acting: bool, body: &[u8]) -> Result<Message, DecodeError> {
    if acting && Request::decode(kind, &[]).is_some() {
        let (user, body) = Request::split_user(body)?;
        let request = Request::decode(kind, body).expect("asked just above")?;
        return Ok(Message::Request(Some(user), request));
    }
    let found = [
        Request::decode(kind, body).map(|read| read.map(|request| Message::Request(None, request))),
        Reply::decode(kind, body).map(|read| read.map(Message::Reply)),
        Push::decode(kind, body).map(|read| read.map(Message::Push)),
    ];
    let mut found = found.into_iter().flatten();
    let message = found.next().expect("each kind has a decoder");
    // A push that cannot be read is an error under its own kind only, so the others must not know the kind at all.
    assert!(found.next().is_none(), "{} has two decoders", kind.name());
    if let Ok(message) = &message {
        let own = match message {
            Message::Request(_, request) => request.kind(),
            Message::Reply(reply) => reply.kind(),
            Message::Push(push) => push.kind(),
        };
        assert_eq!(own, kind, "it is of the kind that it was read as");
    }
    message
}

fn encode(message: &Message) -> Vec<u8> {
    let mut frame = Vec::new();
    match message {
        Message::Request(user, request) => request.encode_frame_as(&mut frame, 7, user.as_ref()),
        Message::Reply(reply) => reply.encode_frame(&mut frame, 7),
        Message::Push(push) => push.encode_frame(&mut frame),
    }
    frame
}
