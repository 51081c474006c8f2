//! Documents that name a test which holds a claim name one that exists.

use std::collections::BTreeSet;
use std::path::Path;

/// The documents whose claims name tests.
const PAGES: [&str; 5] =
    ["docs/durability.md", "docs/operations.md", "docs/protocol.md", "docs/security.md", "docs/decisions.md"];
/// A name of a test is a sentence: it has so many words at least, and nothing else in these pages has.
const WORDS_MIN: usize = 5;

#[test]
fn each_test_that_a_document_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for directory in ["src", "tests"] {
        super::find_files(&root.join(directory), &mut sources);
    }
    let texts = sources.iter().map(|file| std::fs::read_to_string(file).expect("readable"));
    let tests: BTreeSet<String> = texts.flat_map(|text| tests_in(&text)).collect();
    assert!(tests.len() > 500, "the tests were found: {}", tests.len());
    let mut named = 0;
    for page in PAGES {
        let Ok(text) = std::fs::read_to_string(root.join(page)) else { continue };
        for name in names_in(&text) {
            named += 1;
            assert!(tests.contains(&name), "{page} names `{name}`, and there is no such test");
        }
        for path in paths_in(&text) {
            assert!(root.join(&path).exists(), "{page} names `{path}`, and there is no such file");
        }
    }
    assert!(named > 80, "the names were found: {named}");
}

/// What stands between back quotes, one after the other; blocks of code are left out.
fn quoted(page: &str) -> impl Iterator<Item = &str> {
    page.split("```").step_by(2).flat_map(|text| text.split('`').skip(1).step_by(2))
}

fn names_in(page: &str) -> Vec<String> {
    let is_name = |text: &&str| {
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        text.bytes().all(is_word) && text.split('_').filter(|word| !word.is_empty()).count() >= WORDS_MIN
    };
    quoted(page).filter(is_name).map(str::to_owned).collect()
}

fn paths_in(page: &str) -> Vec<String> {
    let is_path = |text: &&str| {
        let is_source = Path::new(text).extension().is_some_and(|extension| extension == "rs");
        ["src/", "tests/"].iter().any(|start| text.starts_with(start)) && is_source && !text.contains(' ')
    };
    quoted(page).filter(is_path).filter(|path| !path.contains(['{', '*'])).map(str::to_owned).collect()
}

/// The names of the functions under `#[test]`, whatever stands between the two.
fn tests_in(source: &str) -> Vec<String> {
    let behind = source.split("#[test]").skip(1);
    let names = behind.filter_map(|text| text.split_once("fn ")?.1.split_once('('));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

#[test]
fn a_name_that_is_none_is_seen() {
    let page = "As `a_test_that_is_not_there` says, and `two_words`, not `fn(x)`:\n```\n`not_in_a_block_of_code`\n```\n`src/nowhere.rs`";
    assert_eq!(names_in(page), ["a_test_that_is_not_there"]);
    assert_eq!(paths_in(page), ["src/nowhere.rs"]);
    let source = "#[test]\n#[ignore = \"slow\"]\nfn a_slow_one() {}\nfn helper() {}\n#[test]\nfn another(\n x: u8) {}";
    assert_eq!(tests_in(source), ["a_slow_one", "another"]);
}
