//! The `tern` binary: the roles of the platform and the commands of operators, in one program.

use std::process::ExitCode;

use clap::Parser;

/// jemalloc with the settings of `MALLOC_CONF`, for many connections with small allocations: one arena per core, and
/// memory that was freed goes back to the system about a second later.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// jemalloc's settings: a string that ends with NUL.
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
            // The error is one line even if RUST_BACKTRACE is set, so that people and log collectors can read it.
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
