//! The tables of the page: kinds, errors, entries, features, limits, caps.

use std::collections::BTreeSet;

use roundtable::limits;
use roundtable::wire::{ErrorCode, FrameCaps, Kind, features, flags};

use crate::page;

fn hex(cell: &str) -> u64 {
    u64::from_str_radix(cell.trim_start_matches("0x"), 16).unwrap_or_else(|_| panic!("not hexadecimal: {cell}"))
}

#[test]
fn the_table_of_kinds_is_that_of_the_code() {
    let rows = page::table(&page::text(), "### Table of kinds");
    let on_page: Vec<(u64, String)> = rows.iter().map(|row| (hex(&row[0]), row[1].clone())).collect();
    let in_code: Vec<(u64, String)> =
        Kind::ALL.iter().map(|kind| (u64::from(kind.number()), kind.name().to_owned())).collect();
    assert_eq!(on_page, in_code);
}

#[test]
fn kinds_have_their_direction_in_their_number_and_their_answer_in_the_table() {
    let rows = page::table(&page::text(), "### Table of kinds");
    for row in rows {
        let [number, name, direction, answer, served] = &row[..] else { panic!("five columns: {row:?}") };
        let number = hex(number);
        let expected = match number {
            0..0x4000 => "client → server",
            _ => "server → client",
        };
        assert_eq!(direction, expected, "{name}");
        if number < 0x4000 && answer != "none" {
            let reply = Kind::ALL.iter().find(|kind| kind.name() == answer).expect("the answer is a kind");
            assert_eq!(u64::from(reply.number()), number | 0x8000, "{name}");
        }
        assert!(["yes", "no"].contains(&served.as_str()), "{name}: served is yes or no");
    }
}

#[test]
fn what_is_served_is_what_version_1_of_the_program_serves() {
    let rows = page::table(&page::text(), "### Table of kinds");
    let served: BTreeSet<&str> =
        rows.iter().filter(|row| row[4] == "yes" && row[2] == "client → server").map(|row| row[1].as_str()).collect();
    let requests = Kind::ALL.iter().filter(|kind| kind.number() < 0x4000).map(|kind| kind.name());
    assert_eq!(served, requests.collect());
}

#[test]
fn every_kind_has_a_section_with_its_number() {
    let page = page::text();
    for kind in Kind::ALL {
        let heading = format!("#### {} (0x{:04x})", kind.name(), kind.number());
        assert_eq!(page.lines().filter(|line| *line == heading).count(), 1, "{heading}");
    }
}

#[test]
fn the_table_of_errors_is_that_of_the_code() {
    let rows = page::table(&page::text(), "### Table of errors");
    let on_page: Vec<(u16, String, bool)> =
        rows.iter().map(|row| (row[0].parse().expect("a number"), row[1].clone(), row[2] == "yes")).collect();
    let in_code: Vec<(u16, String, bool)> =
        ErrorCode::ALL.iter().map(|code| (code.number(), code.name().to_owned(), code.closes())).collect();
    assert_eq!(on_page, in_code);
    assert!(rows.iter().all(|row| ["yes", "no"].contains(&row[2].as_str())));
}

#[test]
fn the_table_of_features_is_that_of_the_code() {
    let rows = page::table(&page::text(), "### Features");
    let on_page: Vec<(u64, &str)> =
        rows.iter().map(|row| (1 << row[0].parse::<u32>().expect("a bit"), row[1].as_str())).collect();
    assert_eq!(
        on_page,
        [
            (features::GATEWAY, "GATEWAY"),
            (features::MEMBERSHIP, "MEMBERSHIP"),
            (features::WHISPER, "WHISPER"),
            (features::SERVICE, "SERVICE"),
            (features::OPERATOR, "OPERATOR"),
            (features::REAUTHENTICATE, "REAUTHENTICATE"),
        ]
    );
    let all = on_page.iter().map(|(bit, _)| bit).sum::<u64>();
    assert_eq!(features::SERVED, all & !features::GATEWAY, "the page says that all but this are offered");
    assert_eq!(flags::AS_USER, 1, "the page says bit 0");
}

/// Each limit of the page by its name in `limits.rs`.
fn limits_in_code() -> Vec<(&'static str, u64)> {
    let size = |limit: usize| u64::try_from(limit).expect("64 bits");
    vec![
        ("USER_BYTES_MAX", size(limits::USER_BYTES_MAX)),
        ("TITLE_BYTES_MAX", size(limits::TITLE_BYTES_MAX)),
        ("BODY_BYTES_MAX", size(limits::BODY_BYTES_MAX)),
        ("TOKEN_BYTES_MAX", size(limits::TOKEN_BYTES_MAX)),
        ("GROUP_MEMBERS_MAX", size(limits::GROUP_MEMBERS_MAX)),
        ("GROUPS_PER_FRAME_MAX", size(limits::GROUPS_PER_FRAME_MAX)),
        ("ATTACH_GROUPS_MAX", size(limits::ATTACH_GROUPS_MAX)),
        ("HISTORY_GROUPS_MAX", size(limits::HISTORY_GROUPS_MAX)),
        ("HISTORY_ENTRIES_MAX", size(limits::HISTORY_ENTRIES_MAX)),
        ("HISTORY_BYTES_MAX", size(limits::HISTORY_BYTES_MAX)),
        ("LIST_GROUPS_MAX", size(limits::LIST_GROUPS_MAX)),
        ("HEADER_BYTES", size(limits::HEADER_BYTES)),
        ("FRAME_BYTES_MAX_UNAUTHENTICATED", size(limits::FRAME_BYTES_MAX_UNAUTHENTICATED)),
        ("FRAME_BYTES_MAX", size(limits::FRAME_BYTES_MAX)),
        ("FRAME_BYTES_MAX_LIST", size(limits::FRAME_BYTES_MAX_LIST)),
        ("FRAME_BYTES_MAX_SERVER", size(limits::FRAME_BYTES_MAX_SERVER)),
        ("IN_FLIGHT_MAX", size(limits::IN_FLIGHT_MAX)),
        ("LARGE_IN_FLIGHT_MAX", size(limits::LARGE_IN_FLIGHT_MAX.into())),
        ("CONNECTIONS_PER_USER_MAX", size(limits::CONNECTIONS_PER_USER_MAX)),
        ("OUTPUT_BYTES_SOFT", size(limits::OUTPUT_BYTES_SOFT)),
        ("OUTPUT_BYTES_HARD", size(limits::OUTPUT_BYTES_HARD)),
        ("OUTPUT_STALL_MS", limits::OUTPUT_STALL_MS),
        ("AUTHENTICATE_MS", limits::AUTHENTICATE_MS),
        ("FRAME_STALL_MS", limits::FRAME_STALL_MS),
        ("MALFORMED_PER_MINUTE_MAX", u64::from(limits::MALFORMED_PER_MINUTE_MAX)),
        ("HEARTBEAT_S_DEFAULT", u64::from(limits::HEARTBEAT_S_DEFAULT)),
        ("HEARTBEAT_S_MIN", u64::from(limits::HEARTBEAT_S_MIN)),
        ("HEARTBEAT_S_MAX", u64::from(limits::HEARTBEAT_S_MAX)),
        ("OPERATIONS_REMEMBERED", size(limits::OPERATIONS_REMEMBERED)),
        ("OPERATIONS_REMEMBERED_SERVICE", size(limits::OPERATIONS_REMEMBERED_SERVICE)),
        ("DRAIN_MS", limits::DRAIN_MS),
    ]
}

#[test]
fn the_limits_on_the_page_are_those_of_the_code() {
    let rows = page::table(&page::text(), "## Limits");
    let on_page: Vec<(&str, u64)> =
        rows.iter().map(|row| (row[2].as_str(), row[1].replace(' ', "").parse().expect("a number"))).collect();
    assert_eq!(on_page, limits_in_code());
}

#[test]
fn the_caps_on_the_page_are_those_of_the_deframer() {
    let rows = page::table(&page::text(), "### Largest frame");
    let caps = |who: &str, kind: Kind| {
        let caps = match who {
            "a client before it is authenticated" => FrameCaps::Unauthenticated,
            "an authenticated client" => FrameCaps::Client,
            _ => FrameCaps::Server,
        };
        caps.frame_bytes_max(kind.number())
    };
    let mut lists = BTreeSet::new();
    for row in &rows {
        let expected: usize = row[2].replace(' ', "").parse().expect("a number");
        let named: Vec<&Kind> = Kind::ALL.iter().filter(|kind| row[1].contains(kind.name())).collect();
        for kind in named.iter().copied().filter(|kind| row[1].split(", ").any(|name| name == kind.name())) {
            assert_eq!(caps(&row[0], *kind), expected, "{}", kind.name());
            lists.insert(kind.number());
        }
        if row[1] == "all" || row[1] == "all others" {
            for kind in Kind::ALL.iter().filter(|kind| row[1] == "all" || !lists.contains(&kind.number())) {
                assert_eq!(caps(&row[0], *kind), expected, "{} from {}", kind.name(), row[0]);
            }
        }
    }
    assert_eq!(rows.len(), 4);
    assert_eq!(lists.len(), 4);
}
