//! The programs `tern` and `tern-dev` in one program, which is built together with the tests that start it.

use clap::{CommandFactory as _, FromArgMatches as _};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dev = tern_dev::Cli::command();
    let asked = std::env::args().nth(1).unwrap_or_default();
    if dev.find_subcommand(&asked).is_some() {
        return tern_dev::Cli::from_arg_matches(&dev.get_matches())?.run().await;
    }
    tern::Cli::from_arg_matches(&tern::Cli::command().get_matches())?
        .run()
        .await
}
