//! Finds the programs that the processes of a platform on this machine run.

use std::path::{Path, PathBuf};

use tern_local::Platform;
use tern_local::platform::Builder;

/// Which programs a platform on this machine runs.
#[derive(clap::Args, Clone, Debug)]
pub struct Programs {
    /// The program `tern`, which runs the nodes [default: the one beside this program]
    #[arg(long, env = "TERN_PROGRAM", global = true)]
    tern: Option<PathBuf>,
}

impl Programs {
    /// Returns a builder for a platform that keeps its files in `dir`. Fails if the program `tern` is missing; the
    /// error says how to build it.
    pub fn platform(&self, dir: &Path) -> anyhow::Result<Builder> {
        let own = std::env::current_exe()?;
        let tern = self.tern.clone().unwrap_or_else(|| own.with_file_name("tern"));
        anyhow::ensure!(
            tern.is_file(),
            "{} is missing: `cargo build --bin tern` makes it, or --tern says where it is",
            tern.display()
        );
        Ok(Platform::builder(&tern, dir).s3_program(&own))
    }
}
