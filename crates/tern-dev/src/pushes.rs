//! Says what the push services of a platform on this machine take.

use prost::Message as _;
use tern_local::PushServers;
use tern_local::push::{Provider, Received, Record};
use tern_proto::v1;

/// The number of characters of a token that are shown.
const TOKEN_CHARACTERS: usize = 12;

/// Says a line for each push that a service takes, and never returns.
pub async fn follow(servers: &PushServers, say: impl Fn(&str)) {
    let [apns, fcm, web_push] = servers.records();
    tokio::join!(each(apns, &say), each(fcm, &say), each(web_push, &say));
}

async fn each(record: &Record, say: &impl Fn(&str)) {
    let mut seen = 0;
    loop {
        record.grown(seen).await;
        for push in record.after(seen) {
            say(&describe(&push));
            seen += 1;
        }
    }
}

/// Returns what a push announces, if the service can read it: only a Web Push, whose subscriptions the service has made.
pub fn announced(push: &Received) -> Option<v1::Notification> {
    match push.provider {
        Provider::WebPush => v1::Notification::decode(push.notification()?.as_slice()).ok(),
        Provider::Apns | Provider::Fcm => None,
    }
}

/// Describes a push in one line.
pub fn describe(push: &Received) -> String {
    let does = match (push.withdraws(), push.alerts()) {
        (true, _) => "removes a notification",
        (false, true) => "shows a notification",
        (false, false) => "shows nothing",
    };
    let badge = push
        .badge()
        .map_or_else(String::new, |badge| format!(", badge {badge}"));
    let says = match (announced(push), push.notification()) {
        (Some(notification), _) => format!(": {}", in_words(&notification)),
        (None, Some(sealed)) => format!(", {} sealed bytes", sealed.len()),
        (None, None) => String::new(),
    };
    let token: String = push.token.chars().take(TOKEN_CHARACTERS).collect();
    let provider = push.provider.as_str();
    format!("push {provider} {token}… {does}{badge}{says}")
}

/// Describes a notification as an app may show it.
fn in_words(notification: &v1::Notification) -> String {
    let sender = match notification.sender_name.as_str() {
        "" => "the server",
        name => name,
    };
    match notification.chat_title.as_str() {
        "" => sender.to_owned(),
        title => format!("{sender} in {title}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_names_sender_and_group() {
        let cases = [
            ("Alice", "", "Alice"),
            ("Alice", "Terns", "Alice in Terns"),
            ("", "Terns", "the server in Terns"),
        ];
        for (sender, title, expected) in cases {
            let notification = v1::Notification {
                sender_name: sender.to_owned(),
                chat_title: title.to_owned(),
                ..Default::default()
            };
            assert_eq!(in_words(&notification), expected);
        }
    }
}
