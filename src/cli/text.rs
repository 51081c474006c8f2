//! Text from others, made fit for a terminal; times and lengths of time.

use std::fmt::Write;
use std::time::Duration;

/// Text with everything escaped that could move the cursor, change colours, reorder what is read, or pretend to be a
/// line of its own: control characters and invisible or direction-changing format characters. A backslash is doubled,
/// so that the result can be told from the real thing.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            hidden if hidden.is_control() || is_deceptive(hidden) => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(hidden));
            }
            shown => out.push(shown),
        }
    }
    out
}

/// An object as one line of JSON that is fit for a terminal too: what [`escape`] would escape, and JSON itself leaves as
/// it is, becomes `\\uXXXX`. Such characters stand inside of strings only, so it is the same object.
pub(crate) fn json_line(object: &serde_json::Value) -> String {
    let plain = object.to_string();
    let mut out = String::with_capacity(plain.len());
    for character in plain.chars() {
        if character.is_control() || is_deceptive(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(character);
        }
    }
    out
}

/// Format characters that show nothing themselves but change how their neighbours are read.
fn is_deceptive(character: char) -> bool {
    matches!(u32::from(character),
        0x00ad | 0x034f | 0x061c | 0x180e
        // Zero width, direction marks; line and paragraph separators; embeddings, overrides; isolates.
        | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f
        | 0xfeff | 0xfff9..=0xfffb
        // Tags: a whole invisible alphabet.
        | 0xe_0000..=0xe_007f)
}

/// A body for people: text escaped, anything else as its size and first bytes.
pub(crate) fn body(bytes: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return escape(text);
    }
    let mut out = format!("({} bytes, no text:", bytes.len());
    for byte in bytes.iter().take(16) {
        let _ = write!(out, " {byte:02x}");
    }
    out.push_str(if bytes.len() > 16 { " …)" } else { ")" });
    out
}

/// Milliseconds since 1970 as `2026-11-22 22:39:21` in UTC.
pub(crate) fn time(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// The Gregorian date of a day counted from 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Reads `90`, `90s`, `15m`, `12h`, `7d`: a length of time of at least a second.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no length of time: say 90s, 15m, 12h or 7d");
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let seconds = count.checked_mul(unit).filter(|seconds| (1..=100 * 366 * 86_400).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_drive_the_terminal() {
        assert_eq!(escape("hi, Алиса 👋"), "hi, Алиса 👋");
        assert_eq!(escape("\x1b[2J\x07\n\r\t\u{9b}1m"), "\\u{1b}[2J\\u{7}\\n\\r\\t\\u{9b}1m");
        assert_eq!(escape("a\u{202e}b\u{2066}c\u{200b}d\u{feff}"), "a\\u{202e}b\\u{2066}c\\u{200b}d\\u{feff}");
        assert_eq!(escape("\\u{1b}"), "\\\\u{1b}", "what was escaped can be told from what was typed");
        assert_eq!(escape("\u{e0041}\u{2028}\u{61c}"), "\\u{e0041}\\u{2028}\\u{61c}");
    }

    #[test]
    fn json_cannot_drive_the_terminal_and_means_the_same() {
        let object = serde_json::json!({"body": "a\u{9b}1m\u{7f}\u{202e}\u{e0041}\n\u{1b}\"\\ Алиса"});
        let line = json_line(&object);
        assert_eq!(line, r#"{"body":"a\u009b1m\u007f\u202e\udb40\udc41\n\u001b\"\\ Алиса"}"#);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), object);
    }

    #[test]
    fn bodies_that_are_no_text_are_shown_as_bytes() {
        assert_eq!(body(b"hi\n"), "hi\\n");
        assert_eq!(body(&[0xff, 0x00]), "(2 bytes, no text: ff 00)");
        assert!(body(&[0xff; 17]).ends_with(" …)"));
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(time(0), "1970-01-01 00:00:00");
        assert_eq!(time(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(time(1_795_387_161_999), "2026-11-22 22:39:21");
        assert_eq!(time(4_107_542_399_000), "2100-02-28 23:59:59");
        assert_eq!(time(4_107_542_400_000), "2100-03-01 00:00:00");
    }

    #[test]
    fn lengths_of_time_are_read() {
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        for wrong in ["", "m", "-1s", "15x", "0", "99999999999999d", "1.5h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
