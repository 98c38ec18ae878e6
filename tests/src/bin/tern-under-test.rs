//! The `tern` program, built together with the tests that start it.

use clap::Parser as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tern::Cli::parse().run().await
}
