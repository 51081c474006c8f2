//! The corpus, handed to the bodies in the normal test run, on stable and without a fuzzer.

use std::path::{Path, PathBuf};

use super::{TARGETS, target};

fn directory(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// The inputs of a target, in the order of their names.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(directory(target)) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let name = |file: &Path| file.file_name().expect("a name").to_string_lossy().into_owned();
    files.iter().map(|file| (name(file), std::fs::read(file).expect("readable"))).collect()
}

fn holds(name: &str) {
    let body = target(name).expect("a target");
    let inputs = inputs(name);
    assert!(!inputs.is_empty(), "{name} has a corpus");
    for (file, bytes) in inputs {
        let outcome = std::panic::catch_unwind(|| body(&bytes));
        assert!(outcome.is_ok(), "fuzz/corpus/{name}/{file} fails; the panic is above");
    }
}

#[test]
fn bodies_read_back_over_the_corpus() {
    holds("bodies");
}

#[test]
fn configurations_are_refused_or_within_limits_over_the_corpus() {
    holds("configuration");
}

#[test]
fn streams_give_the_same_frames_however_they_are_cut_over_the_corpus() {
    holds("frames");
}

#[test]
fn the_hub_keeps_its_books_and_promises_over_the_corpus() {
    holds("hub");
}

#[test]
fn recovery_refuses_or_accepts_what_was_written_over_the_corpus() {
    holds("journal");
}

#[test]
fn records_on_disk_have_one_form_over_the_corpus() {
    holds("records");
}

#[test]
fn the_client_keeps_its_promises_whatever_a_server_says_over_the_corpus() {
    holds("session");
}

#[test]
fn tokens_are_judged_by_their_claims_over_the_corpus() {
    holds("tokens");
}

/// A new target without a line above would never be run here.
#[test]
fn every_target_has_a_test_and_a_corpus_within_bounds() {
    let text = include_str!("corpus.rs");
    let mut bytes = 0;
    for (name, _) in TARGETS {
        assert!(text.contains(&format!("holds(\"{name}\")")), "{name} has a test");
    }
    for entry in std::fs::read_dir(directory("..").join("corpus")).expect("fuzz/corpus") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(name == "command_line" || target(&name).is_some(), "{name} is no target");
        bytes += inputs(&name).iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    }
    assert!(bytes < 2 << 20, "the corpus takes {bytes} bytes");
}

/// A fuzzer without coverage, for machines without one: `ROUNDTABLE_FUZZ=rounds cargo test --release --lib mutated`.
#[test]
fn mutated_inputs_hold_too() {
    let rounds: u64 = std::env::var("ROUNDTABLE_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    let mut dice = Dice(7);
    for (name, body) in TARGETS {
        let inputs = inputs(name);
        for round in 0..rounds {
            let (_, input) = &inputs[dice.below(inputs.len())];
            let (_, other) = &inputs[dice.below(inputs.len())];
            let bytes = mutated(input, other, &mut dice);
            let outcome = std::panic::catch_unwind(|| body(&bytes));
            assert!(outcome.is_ok(), "{name}, round {round}: {}", hex(&bytes));
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn mutated(input: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len() + 1);
        match dice.below(5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            1 if at < bytes.len() => bytes[at] = u8::try_from(dice.below(256)).expect("a byte"),
            2 => bytes.insert(at, u8::try_from(dice.below(256)).expect("a byte")),
            3 => bytes.truncate(at),
            _ => {
                let from = dice.below(other.len() + 1);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}

/// Small numbers in a fixed order.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % bound
    }
}
