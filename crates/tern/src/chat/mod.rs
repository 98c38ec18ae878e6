//! `tern chat`: a chat program for the terminal, on the same SDK that any other client is made with.
//!
//! ```text
//!  keyboard ─▶ tui or plain ─▶ desk ─▶ tern_client::Client
//!                    ▲           │
//!                    └─── view ◀─┘ (events, answers)
//! ```
//!
//! - [`files`]: sent and saved beside the conversation
//! - [`setup`]: which server, which user, which device
//! - [`command`]: what a line that somebody types means
//! - [`desk`]: carries it out, and keeps the view up to date
//! - [`view`]: chats, timelines and ticks as they are to be shown; pure
//! - [`words`]: what went wrong, as a person reads it
//! - [`tui`]: the full screen; [`plain`]: lines in, lines out

mod clock;
mod command;
mod desk;
mod files;
mod plain;
mod setup;
mod tui;
mod view;
mod words;

use std::io::IsTerminal;
use std::path::PathBuf;

use desk::Desk;

/// Chat in the terminal
///
/// Without further flags it talks to the platform that `tern dev` keeps up.
#[derive(clap::Args, Clone, Debug)]
pub struct ChatArgs {
    /// Who you are; made if there is no such user yet
    #[arg(long, env = "TERN_CHAT_USER")]
    pub user: String,
    /// How others see you [default: the user, with a capital]
    #[arg(long)]
    pub name: Option<String>,
    /// Name of this device, to have several
    #[arg(long)]
    pub device: Option<String>,
    /// Gateways, `https://host:port` each, tried in turn [default: those of `tern dev`]
    #[arg(long = "server", env = "TERN_CHAT_SERVER", value_delimiter = ',')]
    pub servers: Vec<String>,
    /// Certificate authority of the gateways (PEM) [default: that of `tern dev`, or those this machine trusts]
    #[arg(long, env = "TERN_CHAT_CA_FILE")]
    pub ca: Option<PathBuf>,
    /// API key that makes users and links devices [default: that of `tern dev`]
    #[arg(long, env = "TERN_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Where `tern dev` keeps its files
    #[arg(long, env = "TERN_DEV_DIR", default_value = ".tern/dev")]
    pub dir: PathBuf,
    /// Where this program keeps messages and tokens [default: beside --dir, `-chat` after its name]
    #[arg(long, env = "TERN_CHAT_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where files are saved [default: this machine's downloads]
    #[arg(long, env = "TERN_CHAT_DOWNLOADS")]
    pub downloads: Option<PathBuf>,
    /// Open the chat with this person
    #[arg(long)]
    pub to: Option<String>,
    /// Lines in, lines out: for scripts and simple terminals
    #[arg(long)]
    pub plain: bool,
    /// Forget this device and link a new one
    #[arg(long)]
    pub relink: bool,
}

/// Chats until the person leaves.
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
