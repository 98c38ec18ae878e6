//! The flags of the media role.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tern_cluster::config::seconds;
use tern_identity::ticket::TicketArgs;
use tern_store::postgres::PostgresArgs;

/// The longest time for which a URL may be valid. A URL is meant for one transfer by one client.
const MAX_URL_TTL: Duration = Duration::from_secs(3600);

/// The settings of a media node.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Where the store is, and how it is used.
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// The key with which tickets are made and checked.
    #[command(flatten)]
    pub tickets: TicketArgs,
    /// Where the object store is.
    #[command(flatten)]
    pub s3: S3Args,
    /// The content delivery network before the object store, if there is one.
    #[command(flatten)]
    pub cdn: CdnArgs,
    /// Seconds that a URL for an upload or a download is valid, at most 3600
    #[arg(long, env = "TERN_MEDIA_URL_TTL", default_value = "900", value_parser = url_ttl)]
    pub media_url_ttl: Duration,
    /// Bytes that a user may begin to upload on a day (UTC)
    #[arg(long, env = "TERN_MEDIA_DAILY_BYTES", default_value_t = 20 << 30)]
    pub media_daily_bytes: u64,
    /// Uploads that a user may begin on a day (UTC)
    #[arg(long, env = "TERN_MEDIA_DAILY_UPLOADS", default_value_t = 2000)]
    pub media_daily_uploads: u32,
    /// Seconds between two looks for media that nothing refers to
    #[arg(long, env = "TERN_MEDIA_COLLECT_INTERVAL", default_value = "300", value_parser = seconds)]
    pub media_collect_interval: Duration,
}

/// The flags that say where the object store is.
#[derive(clap::Args, Clone, Debug)]
pub struct S3Args {
    /// URL of the S3 API as media nodes reach it; left out: that of AWS for the region
    #[arg(long, env = "TERN_MEDIA_S3_ENDPOINT")]
    pub media_s3_endpoint: Option<String>,
    /// URL of the S3 API as clients reach it; left out: the one that media nodes use
    #[arg(long, env = "TERN_MEDIA_S3_PUBLIC_ENDPOINT")]
    pub media_s3_public_endpoint: Option<String>,
    /// The store's region
    #[arg(long, env = "TERN_MEDIA_S3_REGION", default_value = "us-east-1")]
    pub media_s3_region: String,
    /// The bucket, which nothing else uses
    #[arg(long, env = "TERN_MEDIA_S3_BUCKET", default_value = "tern-media")]
    pub media_s3_bucket: String,
    /// Access key of an identity that may put, get, list and delete in the bucket
    #[arg(long, env = "TERN_MEDIA_S3_ACCESS_KEY_ID", default_value = "")]
    pub media_s3_access_key_id: String,
    /// Secret key of that identity
    #[arg(
        long,
        env = "TERN_MEDIA_S3_SECRET_ACCESS_KEY",
        hide_env_values = true,
        default_value = ""
    )]
    pub media_s3_secret_access_key: Secret,
    /// Put the bucket into the path, not into the host's name, as servers other than AWS want it
    #[arg(long, env = "TERN_MEDIA_S3_PATH_STYLE")]
    pub media_s3_path_style: bool,
    /// Make the bucket if it is missing, for development
    #[arg(long, env = "TERN_MEDIA_S3_CREATE_BUCKET")]
    pub media_s3_create_bucket: bool,
}

/// The flags for a delivery network in front of the object store, which serves downloads.
#[derive(clap::Args, Clone, Debug)]
pub struct CdnArgs {
    /// Base URL of a delivery network that reads from the bucket; left out: downloads go to the store
    #[arg(long, env = "TERN_MEDIA_CDN_URL", requires = "media_cdn_key_file")]
    pub media_cdn_url: Option<String>,
    /// File with the key by which the delivery network checks signed paths, 64 hexadecimal digits
    #[arg(long, env = "TERN_MEDIA_CDN_KEY_FILE")]
    pub media_cdn_key_file: Option<PathBuf>,
}

/// A value that logs do not show.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

fn url_ttl(text: &str) -> Result<Duration, String> {
    let ttl = seconds(text)?;
    if !(Duration::from_secs(1)..=MAX_URL_TTL).contains(&ttl) {
        return Err(format!("must be 1 to {} seconds", MAX_URL_TTL.as_secs()));
    }
    Ok(ttl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_lives_from_a_second_to_an_hour() {
        assert_eq!(url_ttl("900"), Ok(Duration::from_secs(900)));
        for bad in ["0", "0.5", "3601", "-1", "15m", ""] {
            assert!(url_ttl(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secret_does_not_show_in_debug() {
        assert!(!format!("{:?}", Secret("hidden".to_owned())).contains("hidden"));
    }
}
