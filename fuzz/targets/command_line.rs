#![no_main]

#[allow(dead_code, reason = "the commands themselves are not run here")]
#[path = "../../src/cli/mod.rs"]
mod cli;

libfuzzer_sys::fuzz_target!(|data: &[u8]| cli::fuzzing::command_line(data));
