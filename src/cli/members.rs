//! Lists of users on the command line: as arguments, from a file or standard input, asked for on a terminal.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use roundtable::ids::UserId;
use roundtable::limits::FRAME_BYTES_MAX_LIST;

use super::failure::{Failure, Format, notice, tell};
use super::text;

/// Members, from wherever they come.
#[derive(Args)]
pub(crate) struct MemberArgs {
    /// Take members from a file, one a line; white space around a name and empty lines do not count; `-` is standard
    /// input
    #[arg(long, value_name = "FILE|-")]
    members_from: Option<PathBuf>,
    /// The members
    #[arg(value_name = "MEMBER")]
    members: Vec<UserId>,
}

impl MemberArgs {
    /// All of them. Where none are named they are asked for on a terminal, with this question; elsewhere there are
    /// none.
    pub(crate) fn gather(self, question: &str, format: Format) -> Result<Vec<UserId>, Failure> {
        let mut members = self.members;
        for member in members.iter().filter(|member| member.as_str().contains(',')) {
            let name = text::escape(member.as_str());
            notice(format, &format!("`{name}` is one user, comma and all: members are separated by spaces"));
        }
        if let Some(path) = &self.members_from {
            members.extend(members_from(path)?);
        } else if members.is_empty() && io::stdin().is_terminal() {
            members = ask_for_members(question)?;
        }
        Ok(members)
    }
}

fn members_from(path: &Path) -> Result<Vec<UserId>, Failure> {
    let name = path.display().to_string();
    let unreadable = |error: io::Error| Failure::usage(format!("cannot read the members from {name}: {error}"));
    let text = if path.as_os_str() == "-" {
        read_list(io::stdin().lock())
    } else {
        std::fs::File::open(path).and_then(read_list)
    };
    members_of(&text.map_err(unreadable)?, &name)
}

/// Reads a text of at most what one request can carry: `/dev/zero` is no list of members.
fn read_list(source: impl Read) -> io::Result<String> {
    let limit = u64::try_from(FRAME_BYTES_MAX_LIST).unwrap_or(u64::MAX);
    let mut text = String::new();
    let mut source = source.take(limit.saturating_add(1));
    source.read_to_string(&mut text)?;
    if text.len() > FRAME_BYTES_MAX_LIST {
        let message = format!("it has more than the {FRAME_BYTES_MAX_LIST} bytes that a request may have");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

/// One member a line. Any text is a legal id, spaces inside of it included; what editors and other systems put around
/// lines is none of it.
fn members_of(text: &str, name: &str) -> Result<Vec<UserId>, Failure> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .map(|(index, line)| {
            UserId::new(line).map_err(|error| Failure::usage(format!("{name}, line {}: {error}", index + 1)))
        })
        .collect()
}

fn ask_for_members(question: &str) -> Result<Vec<UserId>, Failure> {
    let mut terminal = io::stderr();
    write!(terminal, "{question} Names, separated by spaces or commas: ")?;
    terminal.flush()?;
    let mut line = String::new();
    let count = io::stdin().lock().read_line(&mut line).map_err(|error| Failure::usage(error.to_string()))?;
    if count == 0 {
        // Nobody pressed return: what follows begins a line of its own.
        tell("");
    }
    members_answered(&line)
}

fn members_answered(line: &str) -> Result<Vec<UserId>, Failure> {
    let names: Vec<&str> =
        line.split(|c: char| c == ',' || c.is_whitespace()).filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Err(Failure::usage(
            "no members named: say who; a group of one is made with `create --members-from /dev/null`",
        ));
    }
    names
        .into_iter()
        .map(|name| UserId::new(name).map_err(|error| Failure::usage(format!("{}: {error}", text::escape(name)))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<UserId> {
        names.iter().map(|name| UserId::new(name).unwrap()).collect()
    }

    #[test]
    fn no_answer_to_the_question_makes_no_group() {
        for empty in ["", "\n", " , \r\n"] {
            assert!(
                members_answered(empty).is_err_and(|failure| format!("{failure:?}").contains("USAGE")),
                "{empty:?}"
            );
        }
        assert_eq!(members_answered("bob, carol\n").unwrap(), ids(&["bob", "carol"]));
    }

    #[test]
    fn what_editors_put_around_lines_is_not_part_of_a_name() {
        let text = "\u{feff}bob\r\n\r\n\t Ms. Carol \r\n\ndave";
        assert_eq!(members_of(text, "-").unwrap(), ids(&["bob", "Ms. Carol", "dave"]));
        let long = format!("bob\n\n{}", "x".repeat(65));
        assert!(members_of(&long, "names").is_err_and(|failure| format!("{failure:?}").contains("line 3")));
    }

    #[test]
    fn a_list_of_members_has_an_end() {
        let at_limit = vec![b'\n'; FRAME_BYTES_MAX_LIST];
        assert!(read_list(&at_limit[..]).is_ok());
        assert!(read_list(io::repeat(0)).is_err());
    }
}
