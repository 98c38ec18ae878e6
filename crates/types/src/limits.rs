//! What the platform accepts. Clients learn these from `Opened.limits`.

/// Bytes of a message's body: room for a long text or an MLS commit; anything larger is media.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// Bytes of a message's envelope: 64 mentions and every other field fit.
pub const MAX_ENVELOPE_BYTES: usize = 8 * 1024;
/// Mentioned users of a message.
pub const MAX_MENTIONS: usize = 64;
/// Media attached to a message: their tickets fit into an envelope beside 64 mentions.
pub const MAX_ATTACHMENTS: usize = 32;
/// Bytes of a part of an upload; the last one may be shorter. What fits into one part is one PUT.
pub const MEDIA_PART_BYTES: u64 = 16 << 20;
/// Bytes of one upload.
pub const MAX_MEDIA_BYTES: u64 = 2 << 30;
/// Bytes of one unary request: a body, its envelope and its address, or the ids of the largest list (1,000 contacts), many
/// times over. A gateway refuses more, so that no node's decoder meets it.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Bytes of one client frame: one largest message and its address, or many small ones.
pub const MAX_FRAME_BYTES: usize = 512 * 1024;
/// Items of one client frame.
pub const MAX_FRAME_ITEMS: usize = 256;
/// Events of one server frame.
pub const MAX_FRAME_EVENTS: usize = 64;
/// Members of a group: a marker for each offline device of each is still a small statement.
pub const MAX_GROUP_MEMBERS: usize = 1024;
/// Devices of a user.
pub const MAX_DEVICES: usize = 10;
/// Entries sent to a device ahead of its acknowledgements while it catches up.
pub const CATCH_UP_WINDOW: u32 = 256;
/// Sends of a stream without a result yet.
pub const MAX_SENDS_IN_FLIGHT: usize = 128;
/// Bytes of a title or a display name.
pub const MAX_NAME_BYTES: usize = 256;
/// For how long the same request_id gives the same result.
pub const DEDUPE_WINDOW_DAYS: u32 = 30;
/// Members of a group in which typing is told.
pub const MAX_TYPING_MEMBERS: usize = 64;
