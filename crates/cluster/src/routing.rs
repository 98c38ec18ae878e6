//! The metadata by which calls find the owner of a chat or of a user: the caller sends the version of its map, and a node
//! that is not the owner answers the version of its own, so that the caller waits for that map and routes the call again.

use tonic::Status;

/// The metadata key under which a call tells a node the version of the caller's map.
pub const MAP_VERSION: &str = "tern-map-version";
/// The metadata key of an error under which a node that does not own the chat or the user answers the version of its map.
pub const NOT_OWNER: &str = "tern-not-owner";
/// The metadata key of the same error under which the node names the chat, if it knows it.
pub const CHAT: &str = "tern-chat";

/// Returns the version of the map by which a node says that it is not the owner, or `None` if it does not say so.
pub fn not_owner(status: &Status) -> Option<i64> {
    status.metadata().get(NOT_OWNER)?.to_str().ok()?.parse().ok()
}
