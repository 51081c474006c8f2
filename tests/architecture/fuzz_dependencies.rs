//! The fuzz target of the command line compiles `src/cli` into itself, apart from the crate and from every gate: what the
//! command line names has to be among its dependencies, as the crate has it.

use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn the_fuzz_crate_has_every_dependency_of_the_command_line_as_the_crate_has_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(root.join(name)).expect("it is there");
    let (ours, fuzz) = (dependencies(&read("Cargo.toml")), dependencies(&read("fuzz/Cargo.toml")));
    let sources = super::read_sources(&root.join("src"));
    let cli: Vec<&String> =
        sources.iter().filter(|(module, _)| module.starts_with("cli")).map(|(_, text)| text).collect();
    let is_named = |name: &str| {
        let path = format!("{}::", name.replace('-', "_"));
        // `string::` does not name `ring`.
        let names = |text: &&String| {
            text.match_indices(&path)
                .any(|(at, _)| !text[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_'))
        };
        cli.iter().any(names)
    };
    let named: Vec<_> = ours.iter().filter(|(name, _)| is_named(name)).collect();
    assert!(named.len() > 5, "the command line names some: {named:?}");
    for (name, line) in named {
        assert_eq!(fuzz.get(name), Some(line), "fuzz/Cargo.toml: {name}");
    }
}

/// The lines of `[dependencies]`, by name.
fn dependencies(manifest: &str) -> BTreeMap<String, String> {
    let lines = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    let lines = lines.take_while(|line| !line.starts_with('[')).filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(" = ")).map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect()
}
