//! The vectors of the page as the beginning of the fuzzers' corpus (`fuzz/corpus`): what is specified is what mutations
//! start from. `src/fuzzing.rs` says how each target reads its input.

use std::path::PathBuf;

use roundtable::limits::HEADER_BYTES;
use roundtable::wire::Kind;

use crate::page;

/// Where each vector belongs, and as which bytes.
fn expected() -> Vec<(PathBuf, Vec<u8>)> {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut files = Vec::new();
    for vector in page::vectors(&page::text()) {
        let name = format!("vector-{}", vector.name.replace('/', "-"));
        let number = u16::from_be_bytes([vector.bytes[6], vector.bytes[7]]);
        let kind = Kind::ALL.iter().position(|kind| kind.number() == number).expect("a known kind");
        let kind = u8::try_from(kind).expect("fewer than 256 kinds");
        // The caps of a server's frames, nothing put right, no chunks.
        files.push((corpus.join("frames").join(&name), [&[2, 0], &vector.bytes[..]].concat()));
        files.push((corpus.join("bodies").join(&name), [&[kind, 0], &vector.bytes[HEADER_BYTES..]].concat()));
    }
    files
}

/// With `ROUNDTABLE_WRITE_CORPUS=1` they are written.
#[test]
fn every_vector_is_in_the_corpus_of_the_fuzzers() {
    for (path, bytes) in expected() {
        if std::env::var_os("ROUNDTABLE_WRITE_CORPUS").is_some() {
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            std::fs::write(&path, &bytes).expect("the corpus can be written");
        }
        let there = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(there, bytes, "{} is not the vector of the page", path.display());
    }
}
