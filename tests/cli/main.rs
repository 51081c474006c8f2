//! The real program, driven as people and scripts drive it. No sleeps: it waits for lines of output.

mod bench;
mod manual;
mod membership;
mod program;
mod scenario;
mod unwritable;
mod wrong_use;
