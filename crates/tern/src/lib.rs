//! The `tern` program: a table of its commands.
//!
//! - [`serve`]: a node with one or several roles
//! - [`migrate`], [`admin`]: for operators

pub mod admin;
pub mod migrate;
pub mod serve;

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
    Migrate(Box<migrate::MigrateArgs>),
    #[command(subcommand)]
    Admin(admin::AdminCommand),
}

impl Cli {
    /// Runs the command to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(args) => Box::pin(serve::run(*args)).await,
            Command::Migrate(args) => migrate::run(&args).await,
            Command::Admin(command) => admin::run(command).await,
        }
    }
}
