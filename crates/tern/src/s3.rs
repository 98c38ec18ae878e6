//! `tern s3`: an S3 server for development, started by whoever needs one. Not for production.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Keep objects in a directory and serve them by S3, for development
#[derive(clap::Args, Clone, Debug)]
pub struct S3Args {
    /// Where the objects are
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    access_key: String,
    #[arg(long, env = "TERN_S3_SECRET_KEY", hide_env_values = true)]
    secret_key: String,
}

/// Serves until the process ends.
pub async fn run(args: &S3Args) -> anyhow::Result<()> {
    tern_local::s3::server::run(&args.dir, args.listen, &args.access_key, &args.secret_key).await
}
