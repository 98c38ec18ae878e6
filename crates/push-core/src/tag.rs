//! The names of chats for devices.

use std::fmt;

/// The name under which a device's notifications of a chat are shown, replaced and withdrawn: 22 characters of
/// base64url. Nobody but the device and the platform can tell from it which chat it is, because a device's id is random
/// and known to no provider.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tag(pub String);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
