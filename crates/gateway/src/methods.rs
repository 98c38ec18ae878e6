//! The unary methods that clients may call, and the kind of node that answers each.

use std::collections::HashMap;
use std::time::Duration;

use prost::Message;
use prost_types::FileDescriptorSet;
use tern_gateway_core::session::settings::ANSWER_WITHIN;

/// The node that answers a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Any accounts node.
    Accounts,
    /// The chat node that owns the chat in field 1, or any chat node if the request names no chat.
    Chat,
    /// The chat node that owns the own log of the calling device's user or, if a back end calls, of the user in field 1;
    /// any chat node if that names no user.
    OwnLog,
    /// Any media node.
    Media,
    /// Any push node.
    Push,
    /// Any chat node: the request is not about one chat, or any node can answer it.
    AnyChat,
    /// The presence node that owns the user in field 1, or any presence node if the request names no user.
    PresenceOwner,
    /// This gateway, which asks the presence nodes.
    Presence,
}

/// One unary method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method {
    /// The path that clients call, such as `/tern.v1.Chats/SendMessage`.
    pub path: String,
    /// The path at the node that answers it.
    pub onward: String,
    /// The node that answers the method.
    pub target: Target,
    /// True if a call needs credentials. If not, the request itself carries what proves the caller.
    pub authenticated: bool,
    /// The time after which the client is told to call again, if the method has such a bound: a send has.
    pub answer_within: Option<Duration>,
}

const PACKAGE: &str = "tern.v1";
const INTERNAL: &str = "tern.internal.v1";
/// The method that sends a message.
const SEND: &str = "SendMessage";
/// The methods of Chats that are not about one chat.
const WITHOUT_CHAT: [&str; 4] = ["CreateGroup", "ListChats", "ListUndelivered", "ListUserMessages"];
/// The methods of Chats that are about the caller's own log. Their field 1 is the user whom a back end acts for.
const OF_OWN_LOG: [&str; 2] = ["SetChatSettings", "HideMessages"];
/// The service whose methods several roles share, each under an internal service name of its own.
const ADMIN: &str = "Admin";
/// The methods of Admin that accounts nodes answer.
const ACCOUNTS_ADMIN: [&str; 4] = ["ListUsers", "GetUser", "SuspendUser", "ResumeUser"];
/// The methods of Admin that any chat node answers.
const ANY_CHAT_ADMIN: [&str; 2] = ["GetQueues", "GetClusterMap"];
/// The method of Admin that any push node answers.
const PUSH_ADMIN: &str = "TestPush";

/// Returns all methods of the protos by path. `Err` if the descriptors do not decode.
pub fn all() -> Result<HashMap<String, Method>, prost::DecodeError> {
    let files = FileDescriptorSet::decode(tern_proto::DESCRIPTORS)?.file;
    let services = files
        .iter()
        .filter(|file| file.package() == PACKAGE)
        .flat_map(|file| &file.service);
    let methods = services.flat_map(|service| {
        service.method.iter().filter_map(|method| {
            let target = target(service.name(), method.name())?;
            let path = format!("/{PACKAGE}.{}/{}", service.name(), method.name());
            let authenticated = service.name() != "Auth";
            let answer_within = (method.name() == SEND).then_some(ANSWER_WITHIN);
            let onward = match service.name() {
                ADMIN => format!("/{INTERNAL}.{}/{}", admin_part(target), method.name()),
                _ => path.clone(),
            };
            Some((
                path.clone(),
                Method {
                    path,
                    onward,
                    target,
                    authenticated,
                    answer_within,
                },
            ))
        })
    });
    Ok(methods.collect())
}

/// The names of the services whose methods clients may call.
pub const SERVICES: [&str; 10] = [
    "tern.v1.Users",
    "tern.v1.Devices",
    "tern.v1.Auth",
    "tern.v1.Chats",
    "tern.v1.Groups",
    "tern.v1.Inbox",
    "tern.v1.PresenceQuery",
    "tern.v1.Media",
    "tern.v1.Push",
    "tern.v1.Admin",
];

/// Returns the node that answers a method. `None` if clients may not call it as a unary method.
fn target(service: &str, method: &str) -> Option<Target> {
    match service {
        "Users" | "Devices" | "Auth" => Some(Target::Accounts),
        "Media" => Some(Target::Media),
        "Push" => Some(Target::Push),
        "Chats" if WITHOUT_CHAT.contains(&method) => Some(Target::AnyChat),
        "Chats" if OF_OWN_LOG.contains(&method) => Some(Target::OwnLog),
        "Chats" | "Groups" | "Inbox" => Some(Target::Chat),
        ADMIN if ACCOUNTS_ADMIN.contains(&method) => Some(Target::Accounts),
        ADMIN if ANY_CHAT_ADMIN.contains(&method) => Some(Target::AnyChat),
        ADMIN if method == PUSH_ADMIN => Some(Target::Push),
        ADMIN if method == "ListSessions" => Some(Target::PresenceOwner),
        ADMIN => Some(Target::Chat),
        "PresenceQuery" => Some(Target::Presence),
        _ => None,
    }
}

/// Returns the internal service that serves an Admin method with this target.
fn admin_part(target: Target) -> &'static str {
    match target {
        Target::Accounts => "AccountsAdmin",
        Target::Chat | Target::OwnLog | Target::AnyChat => "ChatAdmin",
        Target::Push => "PushAdmin",
        // No method of Admin has the target Media.
        Target::PresenceOwner | Target::Presence | Target::Media => "PresenceAdmin",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unary_method_of_the_protos_has_a_target() {
        let methods = all().expect("descriptors");
        let target = |path: &str| {
            methods
                .get(path)
                .map(|method| (method.target, method.authenticated))
        };
        assert_eq!(
            target("/tern.v1.Auth/RefreshToken"),
            Some((Target::Accounts, false))
        );
        assert_eq!(target("/tern.v1.Chats/SendMessage"), Some((Target::Chat, true)));
        assert_eq!(
            target("/tern.v1.Chats/CreateGroup"),
            Some((Target::AnyChat, true))
        );
        // It may name a chat, and any node reads all cells.
        assert_eq!(
            target("/tern.v1.Chats/ListUndelivered"),
            Some((Target::AnyChat, true))
        );
        assert_eq!(target("/tern.v1.Groups/Freeze"), Some((Target::Chat, true)));
        assert_eq!(
            target("/tern.v1.Chats/SetChatSettings"),
            Some((Target::OwnLog, true))
        );
        assert_eq!(target("/tern.v1.Inbox/Fetch"), Some((Target::Chat, true)));
        assert_eq!(target("/tern.v1.Media/GetDownload"), Some((Target::Media, true)));
        assert_eq!(target("/tern.v1.Push/GetWebPushKey"), Some((Target::Push, true)));
        assert_eq!(
            target("/tern.v1.Devices/SetPushToken"),
            Some((Target::Accounts, true))
        );
        assert_eq!(target("/tern.v1.PushRelay/Forward"), None, "relays serve it");
        assert_eq!(target("/tern.v1.Messaging/Stream"), None);
        assert_eq!(target("/tern.internal.v1.AccountsNode/AuthenticateKey"), None);
        assert!(methods.len() > 20);
        let internal: Vec<_> = FileDescriptorSet::decode(tern_proto::DESCRIPTORS)
            .expect("descriptors")
            .file
            .iter()
            .filter(|file| file.package() == INTERNAL)
            .flat_map(|file| file.service.clone())
            .flat_map(|service| {
                let name = service.name().to_owned();
                let path = move |method: &str| format!("/{INTERNAL}.{name}/{method}");
                service.method.into_iter().map(move |method| path(method.name()))
            })
            .collect();
        for method in methods.values() {
            let known = method.onward == method.path || internal.contains(&method.onward);
            assert!(known, "{} does not exist", method.onward);
        }
        let onward = |method: &str| methods[&format!("/tern.v1.Admin/{method}")].onward.clone();
        assert_eq!(onward("GetUser"), "/tern.internal.v1.AccountsAdmin/GetUser");
        assert_eq!(onward("GetQueues"), "/tern.internal.v1.ChatAdmin/GetQueues");
        assert_eq!(
            onward("ListSessions"),
            "/tern.internal.v1.PresenceAdmin/ListSessions"
        );
        assert_eq!(onward("TestPush"), "/tern.internal.v1.PushAdmin/TestPush");
        for path in methods.keys() {
            assert!(
                SERVICES
                    .iter()
                    .any(|service| path.starts_with(&format!("/{service}/"))),
                "{path}"
            );
        }
    }

    /// A gateway assumes nothing else of requests: see [`crate::peek`].
    #[test]
    fn field_1_of_every_request_about_a_chat_or_an_own_log_is_its_id() {
        let files = FileDescriptorSet::decode(tern_proto::DESCRIPTORS)
            .expect("descriptors")
            .file;
        let messages: HashMap<String, _> = files
            .iter()
            .flat_map(|file| {
                file.message_type
                    .iter()
                    .map(|m| (format!(".{}.{}", file.package(), m.name()), m))
            })
            .collect();
        for service in files
            .iter()
            .filter(|file| file.package() == PACKAGE)
            .flat_map(|file| &file.service)
        {
            for method in &service.method {
                let name = match target(service.name(), method.name()) {
                    Some(Target::Chat) => "chat_id",
                    Some(Target::OwnLog) => "user_id",
                    _ => continue,
                };
                let first = messages[method.input_type()]
                    .field
                    .iter()
                    .find(|field| field.number() == 1);
                assert_eq!(
                    first.map(|field| field.name()),
                    Some(name),
                    "{}",
                    method.input_type()
                );
            }
        }
    }
}
