//! The flags of the accounts role.

use std::path::PathBuf;
use std::time::Duration;

use tern_cluster::config::seconds;
pub use tern_identity::token::MAX_ACCESS_TOKEN_TTL;
use tern_store::postgres::PostgresArgs;

/// The settings of an accounts node.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Where the store is, and how it is used.
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// File with the Ed25519 private key (PKCS#8 PEM) that access tokens are signed with; the same on every accounts
    /// node
    #[arg(long, env = "TERN_TOKEN_KEY_FILE")]
    pub token_key_file: Option<PathBuf>,
    /// Seconds that an access token is valid, at most 3600
    #[arg(long, env = "TERN_ACCOUNTS_ACCESS_TOKEN_TTL", default_value = "3600", value_parser = token_ttl)]
    pub accounts_access_token_ttl: Duration,
    /// New strangers that one user may watch a day: people who share their presence with everyone, and neither have
    /// the watcher among their contacts nor have written to them
    #[arg(long, env = "TERN_MAX_NEW_STRANGERS_A_DAY", default_value = "200", value_parser = clap::value_parser!(u32).range(..=100_000))]
    pub max_new_strangers_a_day: u32,
}

fn token_ttl(text: &str) -> Result<Duration, String> {
    let ttl = seconds(text)?;
    if !(Duration::from_secs(1)..=MAX_ACCESS_TOKEN_TTL).contains(&ttl) {
        return Err(format!("must be 1 to {} seconds", MAX_ACCESS_TOKEN_TTL.as_secs()));
    }
    Ok(ttl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lives_from_a_second_to_an_hour() {
        assert_eq!(token_ttl("60"), Ok(Duration::from_secs(60)));
        assert_eq!(token_ttl("3600"), Ok(MAX_ACCESS_TOKEN_TTL));
        for bad in ["0", "3601", "-1", "1h", ""] {
            assert!(token_ttl(bad).is_err(), "{bad}");
        }
    }
}
