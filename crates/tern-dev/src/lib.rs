//! The `tern-dev` program, for developers of Tern and of its clients: one module per command, and the table that clap
//! parses them from. The platform's own processes are those of the program `tern`.
//!
//! - [`dev`]: the whole platform on this machine
//! - [`messenger`]: `tern-dev chat`, a messenger in the terminal
//! - [`demo`]: conversations played on a platform that the demo starts for itself
//! - [`bench`]: load tests, which report the platform's throughput, latency and cost
//! - [`model`]: computes from such reports what more users take, and where the design has its limits
//! - [`s3`]: the object store of platforms on this machine
//! - [`pushes`]: says what the push services of a platform on this machine take
//! - [`programs`]: finds the program `tern`

mod bench;
mod demo;
mod dev;
mod messenger;
mod model;
mod programs;
mod pushes;
mod s3;

use clap::{Parser, Subcommand};

/// Run, try and measure the messaging platform Tern on this machine
#[derive(Parser, Debug)]
#[command(name = "tern-dev", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    Dev(dev::DevArgs),
    Chat(messenger::ChatArgs),
    Demo(demo::DemoArgs),
    Bench(Box<bench::BenchArgs>),
    Model(Box<model::ModelArgs>),
    #[command(hide = true)]
    S3(s3::S3Args),
}

impl Cli {
    /// Runs the command until it ends. Returns `Err` with the reason if it failed; `main` prints it.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Dev(args) => Box::pin(dev::run(args)).await,
            Command::Chat(args) => Box::pin(messenger::run(args)).await,
            Command::Demo(args) => Box::pin(demo::run(args)).await,
            Command::Bench(args) => Box::pin(bench::run(*args)).await,
            Command::Model(args) => model::run(&args),
            Command::S3(args) => s3::run(&args).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_of_all_commands_fit_together() {
        Cli::command().debug_assert();
    }
}
