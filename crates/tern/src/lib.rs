//! The `tern` program: one module per command, and the table that clap parses them from. It is all that a production
//! image has; what developers run is in `tern-dev`.
//!
//! - [`serve`]: a node with one or several roles
//! - [`canary`]: two synthetic users that exchange messages all the time and measure how that goes
//! - [`push`]: the relay, which forwards the pushes of other companies' platforms
//! - [`migrate`]: brings the database's schema up to date
//! - [`admin`]: the commands of operators; [`top`]: the state of the cluster on a screen

mod admin;
mod canary;
mod migrate;
mod push;
mod serve;
mod top;

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
    Canary(Box<canary::CanaryArgs>),
    #[command(subcommand)]
    Push(push::PushCommand),
    Migrate(Box<migrate::MigrateArgs>),
    #[command(subcommand)]
    Admin(admin::AdminCommand),
    Top(Box<top::TopArgs>),
}

impl Cli {
    /// Runs the command until it ends. Returns `Err` with the reason if it failed; `main` prints it.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(args) => Box::pin(serve::run(*args)).await,
            Command::Canary(args) => Box::pin(canary::run(*args)).await,
            Command::Push(command) => push::run(command).await,
            Command::Migrate(args) => migrate::run(&args).await,
            Command::Admin(command) => admin::run(command).await,
            Command::Top(args) => Box::pin(top::run(*args)).await,
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
