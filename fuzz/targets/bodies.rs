#![no_main]

use roundtable::fuzzing::target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target("bodies").expect("a target")(data));
