//! The `tern` program: one module per command, and the table that clap parses them from.
//!
//! - [`serve`]: a node with one or several roles
//! - [`dev`]: the whole platform on this machine, for development
//! - [`chat`]: a terminal client
//! - [`demo`]: conversations played on a platform that the demo starts for itself
//! - [`bench`]: load tests; they report the platform's throughput, latency and cost
//! - [`canary`]: two synthetic users that exchange messages all the time and measure how that goes
//! - [`migrate`], [`admin`], [`top`]: for operators
//! - [`s3`]: the development object store that [`dev`] starts

pub mod admin;
pub mod bench;
pub mod canary;
pub mod chat;
pub mod demo;
pub mod dev;
pub mod migrate;
pub mod s3;
pub mod serve;
pub mod top;

use clap::{Parser, Subcommand};

/// A messaging platform that you run yourself
#[derive(Parser, Debug)]
#[command(name = "tern", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    Serve(Box<serve::ServeArgs>),
    Dev(dev::DevArgs),
    Chat(chat::ChatArgs),
    Demo(demo::DemoArgs),
    Bench(Box<bench::BenchArgs>),
    Canary(Box<canary::CanaryArgs>),
    Migrate(Box<migrate::MigrateArgs>),
    #[command(subcommand)]
    Admin(admin::AdminCommand),
    Top(Box<top::TopArgs>),
    #[command(hide = true)]
    S3(s3::S3Args),
}

impl Cli {
    /// Runs the command until it ends. Returns `Err` with the reason if it failed; `main` prints it.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(args) => Box::pin(serve::run(*args)).await,
            Command::Dev(args) => Box::pin(dev::run(args)).await,
            Command::Chat(args) => Box::pin(chat::run(args)).await,
            Command::Demo(args) => Box::pin(demo::run(args)).await,
            Command::Bench(args) => Box::pin(bench::run(*args)).await,
            Command::Canary(args) => Box::pin(canary::run(*args)).await,
            Command::Migrate(args) => migrate::run(&args).await,
            Command::Admin(command) => admin::run(command).await,
            Command::Top(args) => Box::pin(top::run(*args)).await,
            Command::S3(args) => s3::run(&args).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_of_all_roles_fit_on_one_command() {
        Cli::command().debug_assert();
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        for arg in serve.get_arguments().filter(|arg| arg.get_long().is_some()) {
            let env = arg.get_env().and_then(|env| env.to_str()).unwrap_or_default();
            let flag = arg
                .get_long()
                .unwrap_or_default()
                .replace('-', "_")
                .to_uppercase();
            assert_eq!(
                env,
                format!("TERN_{flag}"),
                "each flag has a variable of its name"
            );
            assert!(arg.get_help().is_some(), "{flag} is explained");
        }
    }
}
