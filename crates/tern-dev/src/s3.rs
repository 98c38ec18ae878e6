//! `tern-dev s3`: an S3 server for development, started by `tern-dev dev` and by tests. It is not for production.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Serve a directory's objects by the S3 protocol, for development
#[derive(clap::Args, Clone, Debug)]
pub struct S3Args {
    /// Directory of the objects
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    access_key: String,
    #[arg(long, env = "TERN_S3_SECRET_KEY", hide_env_values = true)]
    secret_key: String,
}

/// Serves until the process ends. Fails if it cannot listen or cannot make the directory.
pub async fn run(args: &S3Args) -> anyhow::Result<()> {
    tern_local::s3::server::run(&args.dir, args.listen, &args.access_key, &args.secret_key).await
}
