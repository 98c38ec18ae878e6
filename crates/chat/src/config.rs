//! Defines the flags of the chat role.

use std::path::PathBuf;
use std::time::Duration;

use tern_chat_core::retention::Mode;
use tern_chat_core::target::Windows;
use tern_identity::ticket::TicketArgs;
use tern_store::postgres::PostgresArgs;
use tern_types::limits::KEEP_S;

/// Settings of a chat node.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// Where the store is, and how it is used.
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// The key of media tickets. Without it, messages with attachments are refused.
    #[command(flatten)]
    pub tickets: TicketArgs,
    /// File with the master key that wraps the chats' data keys: 64 hexadecimal digits. The same on every chat node
    #[arg(long, env = "TERN_CHAT_MASTER_KEY_FILE")]
    pub chat_master_key_file: Option<PathBuf>,
    /// New strangers that one user's devices may write to, or add to groups, in a day: people who neither have the
    /// user among their contacts nor have written to them
    #[arg(long, env = "TERN_CHAT_NEW_STRANGERS_A_DAY", default_value = "200", value_parser = clap::value_parser!(u32).range(..=100_000))]
    pub chat_new_strangers_a_day: u32,
    /// Seconds for which a message may be edited after it was sent
    #[arg(long, env = "TERN_CHAT_EDIT_WINDOW", default_value = "900")]
    pub chat_edit_window: u32,
    /// Seconds for which its sender may delete a message for everyone. Admins and owners of a group may at any time
    #[arg(long, env = "TERN_CHAT_DELETE_WINDOW", default_value = "172800")]
    pub chat_delete_window: u32,
    /// How long chats keep messages whose members chose nothing: forever, until-delivered, or a time in seconds (3600
    /// to 315360000) or days, such as 30d. The same on every chat node
    #[arg(long, env = "TERN_CHAT_RETENTION", default_value = "forever", value_parser = retention)]
    pub chat_retention: Mode,
}

/// Reads how long chats keep messages.
fn retention(text: &str) -> Result<Mode, String> {
    match text {
        "forever" => return Ok(Mode::Forever),
        "until-delivered" => return Ok(Mode::UntilDelivered),
        _ => {}
    }
    let seconds = match text.strip_suffix('d') {
        Some(days) => days.parse().ok().and_then(|days: u32| days.checked_mul(86_400)),
        None => text.parse().ok(),
    };
    seconds
        .filter(|seconds| KEEP_S.contains(seconds))
        .map(Mode::ForTime)
        .ok_or_else(|| "is none of: forever, until-delivered, a time of an hour to ten years".to_owned())
}

impl Config {
    /// Returns for how long messages may be edited and deleted.
    pub(crate) fn windows(&self) -> Windows {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        Windows {
            edit: seconds(self.chat_edit_window),
            delete: seconds(self.chat_delete_window),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_for_which_chats_keep_messages_is_read_in_seconds_or_days() {
        let cases = [
            ("forever", Some(Mode::Forever)),
            ("until-delivered", Some(Mode::UntilDelivered)),
            ("3600", Some(Mode::ForTime(3_600))),
            ("30d", Some(Mode::ForTime(2_592_000))),
            ("3650d", Some(Mode::ForTime(315_360_000))),
        ];
        for (text, expected) in cases {
            assert_eq!(retention(text).ok(), expected, "{text}");
        }
        for text in [
            "",
            "d",
            "3599",
            "3651d",
            "4294967295d",
            "-1",
            "30 d",
            "Forever",
            "1h",
        ] {
            assert!(retention(text).is_err(), "{text}");
        }
    }
}
