//! `tern admin`: the commands of operators. Results go to standard output, remarks to standard error.
//!
//! - [`keys`], [`epoch`]: work on the database itself
//! - [`users`], [`chat`], [`trace`], [`push`], [`cluster`]: call the service `tern.v1.Admin` through a gateway
//! - [`state`]: the state of a node; [`remote`]: the flags that name the platform; [`output`]: prints results as tables
//!   or JSON

mod chat;
mod cluster;
mod epoch;
mod keys;
pub(crate) mod output;
mod push;
pub(crate) mod remote;
pub(crate) mod state;
mod trace;
mod users;

use std::io::Write;

use clap::Subcommand;
use tern_identity::token;

pub use chat::ChatArgs;
pub use cluster::{ClusterArgs, MapArgs};
pub use epoch::EpochCommand;
pub use keys::KeysCommand;
pub use push::PushCommand;
pub use trace::TraceArgs;
pub use users::{OneArgs, UsersCommand};

/// Commands for operators
#[derive(Subcommand, Clone, Debug)]
pub enum AdminCommand {
    /// API keys of back ends
    #[command(subcommand)]
    Keys(Box<KeysCommand>),
    #[command(subcommand)]
    Epoch(Box<EpochCommand>),
    #[command(subcommand)]
    Users(Box<UsersCommand>),
    /// Print the devices of a user, revoked ones too
    Devices(Box<OneArgs>),
    /// Print the live sessions of a user
    Sessions(Box<OneArgs>),
    /// Print a chat with its members, head and owner
    Chat(Box<ChatArgs>),
    Trace(Box<TraceArgs>),
    #[command(subcommand)]
    Push(Box<PushCommand>),
    /// Print who owns how many slots, and which version of the map each node follows
    Map(Box<MapArgs>),
    /// Print every node with its version, addresses and level of load shedding
    Nodes(Box<ClusterArgs>),
    /// Print what waits: unsettled commits, inbox rows, commands at the shards
    Queues(Box<ClusterArgs>),
    /// Print a new key for access tokens: Ed25519, PKCS#8 PEM
    TokenKey,
}

/// Runs the command to its end.
pub async fn run(command: AdminCommand) -> anyhow::Result<()> {
    match command {
        AdminCommand::Keys(command) => keys::run(*command).await,
        AdminCommand::Epoch(command) => epoch::run(*command).await,
        AdminCommand::Users(command) => users::run(*command).await,
        AdminCommand::Devices(args) => users::devices(*args).await,
        AdminCommand::Sessions(args) => users::sessions(*args).await,
        AdminCommand::Chat(args) => chat::run(*args).await,
        AdminCommand::Trace(args) => trace::run(*args).await,
        AdminCommand::Push(command) => push::run(*command).await,
        AdminCommand::Map(args) => cluster::map(*args).await,
        AdminCommand::Nodes(args) => cluster::nodes(*args).await,
        AdminCommand::Queues(args) => cluster::queues(*args).await,
        AdminCommand::TokenKey => print(&token::generate_pem()?),
    }
}

/// Prints a result on standard output.
fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{}", text.trim_end())?;
    Ok(())
}

/// Prints a remark on standard error.
fn remark(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stderr().lock(), "{text}")?;
    Ok(())
}
