//! prop as a process: its command line, its start and its end, and what it does when things around
//! it fail.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test and its helpers fail by panicking"
)]

#[path = "../api/harness.rs"]
mod harness;
mod load;
mod process;
mod wire;

mod application_role;
mod callers;
mod clocks;
mod command_line;
mod disk;
mod exhaustion;
mod faults;
mod first_start;
mod keep_alive;
mod logs;
mod measures;
mod migrating;
mod overload;
mod pgbouncer;
mod secrets;
mod shutdown;
mod start;
