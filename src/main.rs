//! The `roundtable` program: the server and its command line.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cli;

/// What the library allocates with is for those to say who embed it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::run()
}
