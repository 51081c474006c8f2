//! Holds `src/` to the tables under "Who may know whom" of `docs/architecture.md`.
//!
//! The check is textual: comments, literals and `#[cfg(test)]` items are taken out, and every path that is left, in
//! `use` trees and inline, is resolved to a module of the crate or to an outside name.

#[path = "architecture/fuzz_dependencies.rs"]
mod fuzz_dependencies;
#[path = "architecture/named_tests.rs"]
mod named_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/architecture.md";

#[test]
fn the_code_keeps_to_who_may_know_whom() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join(PAGE)).expect("docs/architecture.md is there");
    let cargo = std::fs::read_to_string(root.join("Cargo.toml")).expect("Cargo.toml is there");
    let sources = read_sources(&root.join("src"));
    assert!(sources.len() > 10, "the sources were found");
    let violations = check(&Rules::read(&page, &cargo), &sources);
    assert!(violations.is_empty(), "against {PAGE}:\n{}", violations.join("\n"));
}

/// Files of the crate by the path of their module: `store/disk/real`, `lib`, `main`.
type Sources = BTreeMap<String, String>;

fn read_sources(src: &Path) -> Sources {
    let mut files = Vec::new();
    find_files(src, &mut files);
    let module = |file: &Path| {
        let path = file.strip_prefix(src).expect("below src").with_extension("");
        let path = path.to_str().expect("UTF-8").to_owned();
        path.strip_suffix("/mod").map(str::to_owned).unwrap_or(path)
    };
    files.iter().map(|file| (module(file), std::fs::read_to_string(file).expect("readable"))).collect()
}

fn find_files(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            find_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The two tables of the page.
struct Rules {
    /// Module → modules that it may name, as they stand in the cell.
    modules: BTreeMap<String, BTreeSet<String>>,
    /// Outside name → modules that may name it.
    outside: BTreeMap<String, BTreeSet<String>>,
    /// Crates that `Cargo.toml` names: each must stand in the second table before it is used.
    dependencies: BTreeSet<String>,
}

impl Rules {
    fn read(page: &str, cargo: &str) -> Self {
        let section = || page.lines().skip_while(|line| *line != "## Who may know whom").skip(1);
        let section = section().take_while(|line| !line.starts_with("## "));
        let mut tables: Vec<BTreeMap<String, BTreeSet<String>>> = Vec::new();
        for line in section.filter(|line| line.starts_with('|')) {
            let cells: Vec<String> =
                line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
            let [key, value, ..] = &cells[..] else { panic!("two columns: {line}") };
            if value.starts_with("may ") {
                tables.push(BTreeMap::new());
            } else if !key.starts_with("---") {
                let names = value.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
                let table = tables.last_mut().expect("a table has a head");
                assert!(table.insert(key.clone(), names.collect()).is_none(), "{key} stands in a table twice");
            }
        }
        let [modules, outside] = <[_; 2]>::try_from(tables).expect("the section has two tables");
        let dependencies = cargo
            .lines()
            .skip_while(|line| *line != "[dependencies]")
            .skip(1)
            .take_while(|line| !line.starts_with('['))
            .filter_map(|line| line.split_once('=').filter(|_| !line.starts_with('#')))
            .map(|(name, _)| name.trim().replace('-', "_"))
            .collect();
        Self { modules, outside, dependencies }
    }

    /// The row that holds for a module: its own, or that of the nearest module above it.
    fn row(&self, module: &str) -> Option<&str> {
        let mut path = module;
        loop {
            if let Some((row, _)) = self.modules.get_key_value(path) {
                return Some(row);
            }
            path = path.rsplit_once('/')?.0;
        }
    }

    fn may_name_module(&self, row: &str, target: &str) -> bool {
        let target_row = self.row(target);
        target_row == Some(row)
            || self.modules[row].iter().any(|allowed| match allowed.strip_suffix(" (port)") {
                Some(port) => target == port,
                None => target_row == Some(allowed),
            })
    }

    /// Whether the name is in the second table, and if so, whether the row may use it.
    fn may_name_outside(&self, row: &str, name: &str) -> Option<bool> {
        let known = self.outside.get(name).map(|rows| rows.contains(row));
        known.or_else(|| self.dependencies.contains(name).then_some(false))
    }
}

fn check(rules: &Rules, sources: &Sources) -> Vec<String> {
    let mut violations = BTreeSet::new();
    let tests = test_files(sources);
    for (module, text) in sources.iter().filter(|(module, _)| !tests.contains(*module)) {
        let Some(row) = rules.row(module) else {
            violations.insert(format!("{module} has no row in the table of modules"));
            continue;
        };
        for path in paths(&without_tests(&tokens(text))) {
            match resolve(module, &path, sources) {
                Name::Module(target) if !rules.may_name_module(row, &target) => {
                    violations.insert(format!("{module} names {target} ({})", path.join("::")));
                }
                Name::Outside(name) if rules.may_name_outside(row, &name) == Some(false) => {
                    violations.insert(format!("{module} names {name} ({})", path.join("::")));
                }
                Name::Module(_) | Name::Outside(_) => {}
            }
        }
    }
    violations.into_iter().collect()
}

/// Files that are there under `#[cfg(test)]` only, with all below them.
fn test_files(sources: &Sources) -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for (module, text) in sources {
        let tokens = tokens(text);
        for (at, window) in tokens.windows(CFG_TEST.len()).enumerate() {
            let behind = &tokens[at + CFG_TEST.len()..];
            if window == CFG_TEST
                && let Some(at) = behind.iter().take(5).position(|token| token == "mod")
                && let [name, end, ..] = &behind[at + 1..]
                && end == ";"
            {
                let name = child(module, name);
                let below = format!("{name}/");
                tests.extend(sources.keys().filter(|file| **file == name || file.starts_with(&below)).cloned());
            }
        }
    }
    tests
}

fn child(module: &str, name: &str) -> String {
    if matches!(module, "lib" | "main") { name.to_owned() } else { format!("{module}/{name}") }
}

enum Name {
    Module(String),
    Outside(String),
}

/// What the path of a file stands for: the deepest module that it goes through, or a name from outside.
fn resolve(module: &str, path: &[String], sources: &Sources) -> Name {
    let mut at: Vec<&str> = module.split('/').filter(|part| !matches!(*part, "lib" | "main")).collect();
    let mut rest = path;
    match path[0].as_str() {
        // The command line belongs to the binary, to which the library is a crate.
        "crate" | "roundtable" => (at, rest) = (Vec::new(), &path[1..]),
        "self" => rest = &path[1..],
        "super" => {
            while rest.first().is_some_and(|part| part == "super") {
                at.pop();
                rest = &rest[1..];
            }
        }
        first if !sources.contains_key(&child(module, first)) => {
            let std = matches!(first, "std" | "core" | "alloc");
            return Name::Outside(match path.get(1) {
                Some(second) if std => format!("std::{second}"),
                _ => first.to_owned(),
            });
        }
        _ => {}
    }
    for part in rest {
        let deeper = [&at[..], &[part.as_str()]].concat();
        if !sources.contains_key(&deeper.join("/")) {
            break;
        }
        at = deeper;
    }
    Name::Module(if at.is_empty() { "lib".to_owned() } else { at.join("/") })
}

/// Words and signs of a source text; comments, texts, characters and lifetimes are left out.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = raw_text(rest) {
            length
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == '\'' {
            character(rest)
        } else if first.is_alphanumeric() || first == '_' {
            let length = rest.find(|next: char| !next.is_alphanumeric() && next != '_').unwrap_or(rest.len());
            tokens.push(rest[..length].to_owned());
            length
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of a raw text that begins here.
fn raw_text(text: &str) -> Option<usize> {
    let behind = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = behind.len() - behind.trim_start_matches('#').len();
    let content = behind.trim_start_matches('#').strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(text.len() - content.len() + content.find(&end).map_or(content.len(), |at| at + end.len()))
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, next) in text.char_indices().skip(1) {
        if next == quote && !escaped {
            return at + 1;
        }
        escaped = next == '\\' && !escaped;
    }
    text.len()
}

/// The length of a character, or of the sign of a lifetime.
fn character(text: &str) -> usize {
    let mut behind = text.char_indices().skip(1);
    match (behind.next(), behind.next()) {
        (Some((_, '\\')), _) => quoted(text, '\''),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

const CFG_TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];

/// The tokens without the items behind `#[cfg(test)]`: each up to its `;` or the end of its braces.
fn without_tests(tokens: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut rest = tokens;
    while let Some((first, behind)) = rest.split_first() {
        if rest.len() >= CFG_TEST.len() && rest[..CFG_TEST.len()] == CFG_TEST {
            rest = &rest[CFG_TEST.len() + item_length(&rest[CFG_TEST.len()..])..];
        } else {
            kept.push(first.clone());
            rest = behind;
        }
    }
    kept
}

fn item_length(tokens: &[String]) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "{" | "[" | "(" => depth += 1,
            "}" | "]" | ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && (token == ";" || token == "}") {
            return at + 1;
        }
    }
    tokens.len()
}

/// All paths of more than one part, and those of `use` and `extern crate`; trees are taken apart.
fn paths(tokens: &[String]) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let before = |back: usize| at.checked_sub(back).map_or("", |at| tokens[at].as_str());
        // Words behind which a path may begin with `::`.
        let keyword = matches!(&*tokens[at], "use" | "as" | "return" | "in" | "mut" | "dyn" | "impl" | "for" | "where");
        if !is_word(&tokens[at]) || keyword || (before(1) == "::" && before(2) == ">") {
            at += 1;
            continue;
        }
        let imported = before(1) == "use"
            || (before(1) == "::" && before(2) == "use")
            || (before(1) == "crate" && before(2) == "extern");
        let mut found = Vec::new();
        let (start, parsed) = (at, tree(tokens, at, &[], &mut found));
        found.retain(|path: &Vec<String>| path.len() > 1 || imported);
        paths.extend(found);
        at = parsed.max(start + 1);
    }
    paths
}

fn is_word(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Reads one path or tree that begins at `at`; gives the place behind it.
fn tree(tokens: &[String], mut at: usize, prefix: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut path = prefix.to_vec();
    let sign = |at: usize| tokens.get(at).map_or("", String::as_str);
    loop {
        match sign(at) {
            "{" => {
                at += 1;
                while !matches!(sign(at), "}" | "") {
                    at = if is_word(sign(at)) || matches!(sign(at), "{" | "*") {
                        tree(tokens, at, &path, found)
                    } else {
                        at + 1
                    };
                }
                return at + 1;
            }
            "*" => {
                found.push(path);
                return at + 1;
            }
            word if is_word(word) => path.push(word.to_owned()),
            _ => {
                found.push(path);
                return at;
            }
        }
        at += 1;
        if sign(at) != "::" {
            found.push(path);
            return at;
        }
        at += 1;
    }
}

/// The checker itself, on texts that are bad on purpose.
mod checker {
    use super::*;

    const PAGE: &str = "
## Who may know whom

| module | may name |
|---|---|
| `hub` | `store` (port), `wire` |
| `wire` | |
| `store` | `store/thread` |
| `store/thread` | `store` |
| `net` | `hub` |
| `lib` | |

| outside name | may be named by |
|---|---|
| `std::time` | `net`, `store/thread` |
| `std::fs` | |
| `mio` | `net` |

## Another section

| a | may not be read |
";
    const CARGO: &str = "[dependencies]\n# Sockets.\nmio = \"1\"\ntracing-subscriber = \"0.3\"\n\n[lints]\nwire = 1\n";

    fn violations(module: &str, text: &str) -> Vec<String> {
        let names = ["lib", "hub", "hub/outbox", "wire", "store", "store/disk", "store/thread", "net"];
        let mut sources: Sources = names.iter().map(|name| ((*name).to_owned(), String::new())).collect();
        sources.insert(module.to_owned(), text.to_owned());
        check(&Rules::read(PAGE, CARGO), &sources)
    }

    fn named(module: &str, text: &str) -> Vec<String> {
        let name = |line: String| line.split(' ').nth(2).unwrap_or_default().to_owned();
        violations(module, text).into_iter().map(name).collect()
    }

    #[test]
    fn what_is_allowed_passes() {
        assert!(violations("hub", "use crate::{store::Event, wire::{self, Kind}};").is_empty());
        assert!(
            violations("hub/outbox", "use super::Hub; use crate::store; fn f() { crate::wire::encode(); }").is_empty()
        );
        assert!(violations("net", "use std::time::Duration; use mio::{Events, Poll}; use crate::hub;").is_empty());
        assert!(violations("store/disk", "use super::Event; use crate::store::thread::Handle;").is_empty());
        assert!(violations("store", "mod disk; mod thread; pub use thread::open;").is_empty());
    }

    #[test]
    fn a_module_that_may_not_be_named_is_found() {
        assert_eq!(named("wire", "use crate::store::Event;"), ["store"]);
        assert_eq!(named("wire", "fn f() -> crate::store::Event { todo!() }"), ["store"]);
        assert_eq!(named("wire", "use crate::{codec, store::{Event, disk::Disk}};"), ["lib", "store", "store/disk"]);
        assert_eq!(named("hub/outbox", "use super::super::net::Loop;"), ["net"]);
        assert_eq!(named("net", "use roundtable::wire::Kind;"), ["wire"]);
    }

    #[test]
    fn a_port_lets_nobody_behind_it() {
        assert_eq!(named("hub", "use crate::store::disk::Disk;"), ["store/disk"]);
        assert_eq!(
            named("hub", "use crate::store::{Event, thread::{self, Handle}};"),
            ["store/thread", "store/thread"]
        );
    }

    #[test]
    fn an_outside_name_that_may_not_be_used_is_found() {
        assert_eq!(named("hub", "use std::time::Duration;"), ["std::time"]);
        assert_eq!(named("hub", "use core::time::Duration;"), ["std::time"]);
        assert_eq!(named("hub", "use ::mio::Poll;"), ["mio"]);
        assert_eq!(named("hub", "use mio;"), ["mio"]);
        assert_eq!(named("wire", "fn f() { let _ = std::fs::read(\"x\"); }"), ["std::fs"]);
        assert_eq!(named("wire", "use std::{collections::HashMap, fs, time::{Duration, Instant}};").len(), 3);
        assert_eq!(named("wire", "fn f() { Vec::<std::fs::File>::new(); }"), ["std::fs"]);
    }

    #[test]
    fn a_dependency_without_a_row_is_found() {
        assert_eq!(named("net", "use tracing_subscriber::fmt;"), ["tracing_subscriber"]);
    }

    #[test]
    fn a_module_without_a_row_is_found() {
        assert_eq!(violations("extra", ""), ["extra has no row in the table of modules"]);
    }

    #[test]
    fn comments_texts_and_tests_do_not_count() {
        assert!(violations("wire", "//! use crate::store;\n/* std::fs::read */ /// mio::Poll\n").is_empty());
        assert!(
            violations("wire", "const A: &str = \"std::fs::read\"; const B: &str = r#\"\"mio::Poll\"#;").is_empty()
        );
        assert!(violations("wire", "#[cfg(test)]\nmod tests { use std::fs::File; fn f() { if true {} } }").is_empty());
        assert!(
            violations("wire", "#[cfg(test)]\nuse std::fs::File;\nfn f<'a>(c: &'a char) -> bool { *c == '\"' }")
                .is_empty()
        );
        assert_eq!(named("wire", "#[cfg(test)]\nmod tests { }\nuse std::fs::File;"), ["std::fs"]);
        assert_eq!(named("wire", "const A: char = '\\'';\nuse std::fs::File;"), ["std::fs"]);
    }

    #[test]
    fn a_file_of_tests_does_not_count() {
        let mut sources: Sources = BTreeMap::new();
        sources.insert("wire".to_owned(), "#[cfg(test)]\nmod tests;\nmod push;".to_owned());
        sources.insert("wire/tests".to_owned(), "use std::fs::File;".to_owned());
        assert!(check(&Rules::read(PAGE, CARGO), &sources).is_empty());
        sources.insert("wire".to_owned(), "mod tests;".to_owned());
        assert_eq!(check(&Rules::read(PAGE, CARGO), &sources), ["wire/tests names std::fs (std::fs::File)"]);
    }
}
