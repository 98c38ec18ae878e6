//! `tern-dev chat`: a chat program for the terminal. It uses the SDK like any other client.
//!
//! ```text
//!  keyboard ─▶ tui or plain ─▶ desk ─▶ tern_client::Client
//!                    ▲           │
//!                    └─── view ◀─┘ (events, answers)
//! ```
//!
//! - [`files`]: uploads and downloads, which run beside the conversation; [`transfer`]: their progress
//! - [`setup`]: finds the server, the user and the device
//! - [`command`]: parses a typed line
//! - [`desk`]: carries out commands and keeps the view up to date
//! - [`view`]: chats, timelines and ticks as they are shown; pure code
//! - [`words`]: words errors for people; [`clock`]: formats times for people
//! - [`tui`]: the full screen; [`plain`]: reads lines and prints lines

mod clock;
mod command;
mod desk;
mod files;
mod plain;
mod setup;
mod transfer;
mod tui;
mod view;
mod words;

use std::io::IsTerminal;
use std::path::PathBuf;

use desk::Desk;

/// Chat in the terminal
///
/// Without further flags it connects to the platform that `tern-dev dev` keeps up.
#[derive(clap::Args, Clone, Debug)]
pub struct ChatArgs {
    /// Name you log in with; the user is created if there is none of this name
    #[arg(long, env = "TERN_CHAT_USER")]
    pub user: String,
    /// Name that others see [default: the user's, capitalised]
    #[arg(long)]
    pub name: Option<String>,
    /// Name of this device, if the user has several
    #[arg(long)]
    pub device: Option<String>,
    /// Gateways as `https://host:port`, comma separated, tried in turn [default: those of `tern-dev dev`]
    #[arg(long = "server", env = "TERN_CHAT_SERVER", value_delimiter = ',')]
    pub servers: Vec<String>,
    /// File with the certificate authority of the gateways (PEM) [default: that of `tern-dev dev`, or the system's
    /// roots]
    #[arg(long, env = "TERN_CHAT_CA_FILE")]
    pub ca: Option<PathBuf>,
    /// API key that creates users and links devices [default: that of `tern-dev dev`]
    #[arg(long, env = "TERN_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Directory of `tern-dev dev`
    #[arg(long, env = "TERN_DEV_DIR", default_value = ".tern/dev")]
    pub dir: PathBuf,
    /// Directory for this program's messages and tokens [default: the name of --dir with `-chat` appended]
    #[arg(long, env = "TERN_CHAT_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Directory for saved files [default: this machine's downloads]
    #[arg(long, env = "TERN_CHAT_DOWNLOADS")]
    pub downloads: Option<PathBuf>,
    /// Open the chat with this person
    #[arg(long)]
    pub to: Option<String>,
    /// Read lines and print lines, for scripts and simple terminals
    #[arg(long)]
    pub plain: bool,
    /// Forget this device and link a new one
    #[arg(long)]
    pub relink: bool,
}

/// Chats until the user leaves or the client ends.
///
/// # Errors
///
/// Returns an error if the device cannot be set up or its store cannot be opened, or with the reason why the server
/// ended the client.
pub async fn run(args: ChatArgs) -> anyhow::Result<()> {
    let device = setup::device(&args).await;
    let device = device.map_err(|error| anyhow::anyhow!(words::fault(&error)))?;
    let store = device.store.clone();
    let (desk, events) = Desk::start(device).await?;
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let reason = if args.plain || !terminal {
        plain::run(desk, events, args.to).await?
    } else {
        tui::run(desk, events, args.to).await?
    };
    setup::farewell(&reason, &store)
}
