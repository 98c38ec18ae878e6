//! `tern`: every part of the platform in one program.

use std::process::ExitCode;

use clap::Parser;

/// Many connections, small allocations: one arena a core, and memory goes back to the system within a second.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the name under which jemalloc looks for its settings")]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8; 55] = b"narenas_ratio:1,dirty_decay_ms:1000,muzzy_decay_ms:500\0";

#[tokio::main]
#[allow(clippy::print_stderr, reason = "how a program says why it failed")]
async fn main() -> ExitCode {
    match tern::Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // In one line, whatever RUST_BACKTRACE says: what failed and why, for people and for who reads logs.
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
