//! The largest sizes and counts that the platform accepts. `Opened.limits` tells them to clients.

use std::ops::RangeInclusive;

/// The largest body of a message in bytes: room for a long text or an MLS commit. Anything larger is sent as media.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// The largest envelope of a message in bytes. 64 mentions fit beside every other field.
pub const MAX_ENVELOPE_BYTES: usize = 8 * 1024;
/// The most users that a message may mention.
pub const MAX_MENTIONS: usize = 64;
/// The most media attached to a message: their tickets fit into an envelope beside 64 mentions.
pub const MAX_ATTACHMENTS: usize = 32;
/// The size of a part of an upload in bytes; the last part may be shorter. A file that fits into one part is uploaded
/// by one PUT.
pub const MEDIA_PART_BYTES: u64 = 16 << 20;
/// The largest upload in bytes.
pub const MAX_MEDIA_BYTES: u64 = 2 << 30;
/// The largest unary request in bytes: many times a body with its envelope and address, or the ids of the longest
/// list (1,000 contacts). A gateway refuses larger ones, so that no node's decoder meets them.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;
/// The largest client frame in bytes: the largest message with its address, or many small ones.
pub const MAX_FRAME_BYTES: usize = 512 * 1024;
/// The most items in one client frame.
pub const MAX_FRAME_ITEMS: usize = 256;
/// The most events in one server frame.
pub const MAX_FRAME_EVENTS: usize = 64;
/// The most members of a group. Its largest settle, an inbox row for each offline device of each member, is still a
/// small statement.
pub const MAX_GROUP_MEMBERS: usize = 1024;
/// The most devices of a user.
pub const MAX_DEVICES: usize = 10;
/// The most entries that are sent to a device that catches up before it has acknowledged the first of them.
pub const CATCH_UP_WINDOW: u32 = 256;
/// The most sends of one stream that have no result yet.
pub const MAX_SENDS_IN_FLIGHT: usize = 128;
/// The longest title or display name in UTF-8 bytes.
pub const MAX_NAME_BYTES: usize = 256;
/// The longest description of a group in UTF-8 bytes. A group's state in memory has it, so it is a few paragraphs.
pub const MAX_DESCRIPTION_BYTES: usize = 2048;
/// The longest reaction in bytes.
pub const MAX_REACTION_BYTES: usize = 64;
/// The most edits of one message, and the most reactions of one person to one message, with those taken back. A person
/// needs a few. All of them are erased with the message.
pub const MAX_ACTS_PER_PERSON: u32 = 100;
/// The number of days for which the same request_id gives the same result (rule 5).
pub const DEDUPE_WINDOW_DAYS: u32 = 30;
/// The largest group, in members, in which typing is passed on.
pub const MAX_TYPING_MEMBERS: usize = 64;
/// The times in seconds for which a chat may keep messages: an hour to ten years.
pub const KEEP_S: RangeInclusive<u32> = 3_600..=315_360_000;
/// The times in seconds after which the messages of a chat may disappear: five seconds to a year.
pub const DISAPPEAR_S: RangeInclusive<u32> = 5..=31_536_000;
