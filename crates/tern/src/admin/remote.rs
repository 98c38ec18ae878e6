//! The flags that name a platform and an API key. They default to the files that `tern-dev dev` writes.

use std::path::PathBuf;

use anyhow::Context as _;
use tern_client::api::Api;
use tern_client::{BackEnd, Tls};

/// Flags of every command that calls a running platform.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Platform")]
pub struct Remote {
    /// Gateways as `https://host:port`, comma separated, tried in turn [default: those of `tern-dev dev`]
    #[arg(long = "server", env = "TERN_ADMIN_SERVER", value_delimiter = ',')]
    servers: Vec<String>,
    /// File with the certificate authority of the gateways (PEM) [default: that of `tern-dev dev`, or the system's
    /// roots]
    #[arg(long, env = "TERN_ADMIN_CA_FILE")]
    ca: Option<PathBuf>,
    /// API key with the scope admin; prefer the environment or a file to the command line
    #[arg(long, env = "TERN_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// File with that key [default: that of `tern-dev dev`]
    #[arg(long, env = "TERN_ADMIN_API_KEY_FILE")]
    api_key_file: Option<PathBuf>,
    /// Directory of `tern-dev dev`
    #[arg(long, env = "TERN_DEV_DIR", default_value = ".tern/dev")]
    dir: PathBuf,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

impl Remote {
    /// Returns a client of the platform's API with the operator's key. It connects with the first call.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be read, or if `--server` is given without an API key.
    pub fn api(&self) -> anyhow::Result<Api> {
        let back_end = BackEnd::new(&self.servers()?, &self.tls()?, &self.key()?)?;
        Ok(back_end.api().clone())
    }

    /// Returns the gateways of `--server`, or else those of `tern-dev dev`.
    fn servers(&self) -> anyhow::Result<Vec<String>> {
        if !self.servers.is_empty() {
            return Ok(self.servers.clone());
        }
        let file = self.dir.join("gateways");
        let text = std::fs::read_to_string(&file).with_context(|| {
            format!(
                "no --server given, and {} is not there: is `tern-dev dev` running?",
                file.display()
            )
        })?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        Ok(lines.map(str::to_owned).collect())
    }

    fn tls(&self) -> anyhow::Result<Tls> {
        let development = self.dir.join("ca.pem");
        let file = match &self.ca {
            Some(file) => file.clone(),
            None if self.servers.is_empty() && development.exists() => development,
            None => return Ok(Tls::System),
        };
        read(&file).map(Tls::Roots)
    }

    /// Returns the API key from the file or the flag, or else that of `tern-dev dev`.
    fn key(&self) -> anyhow::Result<String> {
        if let Some(file) = &self.api_key_file {
            return Ok(read(file)?.trim().to_owned());
        }
        if let Some(key) = &self.api_key {
            return Ok(key.clone());
        }
        // The key of `tern-dev dev` is only ever sent to `tern-dev dev`, not to a server that was named by hand.
        anyhow::ensure!(
            self.servers.is_empty(),
            "an API key with the scope admin is needed: --api-key-file, or TERN_API_KEY"
        );
        Ok(read(&self.dir.join("api-key"))?.trim().to_owned())
    }
}

fn read(file: &std::path::Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}
