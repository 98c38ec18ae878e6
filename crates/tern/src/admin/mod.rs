//! `tern admin`: what operators do by hand. Results go to standard output, remarks to standard error.

mod keys;

use std::io::Write;

use clap::Subcommand;
use tern_node::token;

pub use keys::KeysCommand;

/// What operators do by hand
#[derive(Subcommand, Clone, Debug)]
pub enum AdminCommand {
    /// API keys of back ends
    #[command(subcommand)]
    Keys(Box<KeysCommand>),
    /// Print a new key for access tokens: Ed25519, PKCS#8 PEM
    TokenKey,
}

/// Runs the command to its end.
pub async fn run(command: AdminCommand) -> anyhow::Result<()> {
    match command {
        AdminCommand::Keys(command) => keys::run(*command).await,
        AdminCommand::TokenKey => print(&token::generate_pem()?),
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{}", text.trim_end())?;
    Ok(())
}

fn remark(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stderr().lock(), "{text}")?;
    Ok(())
}
