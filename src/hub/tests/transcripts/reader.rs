//! A frame in words, read by `docs/protocol.md` alone: what somebody with that page and no other help makes of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::page::{self, Field};

const HEADER_BYTES: usize = 24;
/// So many equal bytes in a row, and more, are written as their number.
const RUN_BYTES_MIN: usize = 64;
/// Longer texts are cut where they are shown.
const SHOWN_CHARS_MAX: usize = 40;
/// Fields that nobody looks for in a transcript; their bytes are there.
const LEFT_OUT: [&str; 7] = ["operation", "at_ms", "created_at_ms", "server_time_ms", "by", "bytes_max", "message"];

/// The layouts and the kinds of the page.
pub(super) struct Reader {
    layouts: BTreeMap<String, Vec<Field>>,
    /// Names by number.
    kinds: BTreeMap<u16, String>,
}

impl Reader {
    pub(super) fn new(text: &str) -> Self {
        let number = |cell: &str| u16::from_str_radix(cell.trim_start_matches("0x"), 16).expect("a number of a kind");
        let rows = page::table(text, "### Table of kinds");
        let kinds = rows.into_iter().map(|row| (number(&row[0]), row[1].clone())).collect();
        Self { layouts: page::layouts(text), kinds }
    }

    /// The number of a request or its answer, the kind, and the main fields.
    pub(super) fn words(&self, frame: &[u8]) -> String {
        let Some((kind, request_id, body)) = whole(frame) else { return "not a frame".to_owned() };
        let name = &self.kinds[&kind];
        let mut words = if request_id == 0 { name.clone() } else { format!("#{request_id} {name}") };
        // Every byte has to be explained, those that are not shown too.
        for (_, said) in page::explain(&self.layouts, name, body) {
            let Some((field, value)) = said.split_once(" = ") else { continue };
            let last = field.rsplit('.').next().unwrap_or(field);
            if !LEFT_OUT.contains(&last) {
                let _ = write!(words, ", {field} = {}", short(value));
            }
        }
        words
    }
}

/// Kind, request id and body of exactly one frame whose CRCs are right.
fn whole(frame: &[u8]) -> Option<(u16, u32, &[u8])> {
    let (header, body) = frame.split_at_checked(HEADER_BYTES)?;
    let u32_at = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let good = header.starts_with(b"RTBL\x01\x00")
        && u32_at(8) as usize == body.len()
        && u32_at(16) == crc32fast::hash(body)
        && u32_at(20) == crc32fast::hash(&header[..20]);
    good.then(|| (u16::from_be_bytes([header[6], header[7]]), u32_at(12), body))
}

/// The length of the frame that begins here.
pub(super) fn frame_bytes(bytes: &[u8]) -> usize {
    HEADER_BYTES + u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize
}

fn short(value: &str) -> String {
    if value.chars().count() <= SHOWN_CHARS_MAX {
        return value.to_owned();
    }
    let begin: String = value.chars().take(12).collect();
    format!("{begin}…\" ({} bytes)", value.len() - 2)
}

/// Bytes in hexadecimal; a long run of one byte as `[COUNT x BYTE, CRC]`, the CRC being that of the run.
pub(super) fn hex_of(bytes: &[u8]) -> String {
    let mut hex = String::new();
    for run in bytes.chunk_by(|a, b| a == b) {
        if run.len() >= RUN_BYTES_MIN {
            let _ = write!(hex, "[{} x {:02x}, CRC {:08x}]", run.len(), run[0], crc32fast::hash(run));
        } else {
            for byte in run {
                let _ = write!(hex, "{byte:02x}");
            }
        }
    }
    hex
}

/// The bytes that [`hex_of`] wrote. Panics where it cannot have been that.
pub(super) fn bytes_of(hex: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = hex;
    while !rest.is_empty() {
        if let Some((run, behind)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            bytes.extend(run_of(run).unwrap_or_else(|| panic!("not `COUNT x BYTE, CRC`: {run}")));
            rest = behind;
        } else {
            let (byte, behind) = rest.split_at_checked(2).unwrap_or_else(|| panic!("an odd digit: {rest}"));
            bytes.push(u8::from_str_radix(byte, 16).unwrap_or_else(|_| panic!("not hexadecimal: {byte}")));
            rest = behind;
        }
    }
    bytes
}

fn run_of(run: &str) -> Option<Vec<u8>> {
    let (count, rest) = run.split_once(" x ")?;
    let (byte, crc) = rest.split_once(", CRC ")?;
    let bytes = vec![u8::from_str_radix(byte, 16).ok()?; count.parse().ok()?];
    (u32::from_str_radix(crc, 16).ok()? == crc32fast::hash(&bytes)).then_some(bytes)
}

#[test]
fn bytes_in_hexadecimal_read_back_with_and_without_runs() {
    for run in [0, RUN_BYTES_MIN - 1, RUN_BYTES_MIN, RUN_BYTES_MIN + 1, 70_000] {
        let mut bytes = b"before".to_vec();
        bytes.resize(bytes.len() + run, b'z');
        bytes.extend_from_slice(b"behind");
        let hex = hex_of(&bytes);
        assert_eq!(hex.contains('['), run >= RUN_BYTES_MIN);
        assert_eq!(bytes_of(&hex), bytes);
    }
    assert_eq!(hex_of(&[b'z'; 64]), "[64 x 7a, CRC ".to_owned() + &format!("{:08x}]", crc32fast::hash(&[b'z'; 64])));
}
