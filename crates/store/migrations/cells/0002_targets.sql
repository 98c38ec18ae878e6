-- These tables have what entries do to messages that are in the log already, the threads that messages are in, and
-- whom they mention. The commit of an entry writes its rows here. An ordinary message has none.

-- "Entry seq is about the entry target_seq, or, if it is a message, in the thread that begins there."
CREATE TABLE entry_targets (
    chat_id    uuid NOT NULL,
    seq        int8 NOT NULL,
    target_seq int8 NOT NULL,
    kind       int2 NOT NULL,                -- as in messages
    PRIMARY KEY (chat_id, seq)
);
CREATE INDEX entry_targets_target ON entry_targets (chat_id, target_seq, kind, seq);

-- What was done to a message so far. Each is the seq of the entry that did it, or 0.
CREATE TABLE message_state (
    chat_id     uuid NOT NULL,
    seq         int8 NOT NULL,
    edited_seq  int8 NOT NULL DEFAULT 0,     -- the last edit
    deleted_seq int8 NOT NULL DEFAULT 0,
    pinned_seq  int8 NOT NULL DEFAULT 0,     -- negative: it was pinned, and this entry ended that
    replies     int4 NOT NULL DEFAULT 0,     -- messages in the thread that begins here
    PRIMARY KEY (chat_id, seq)
) WITH (fillfactor = 80);
CREATE INDEX message_state_pinned ON message_state (chat_id, seq) WHERE pinned_seq > 0;

-- "This user has reacted to this message in this way." The body of entry seq says how.
CREATE TABLE reactions (
    chat_id    uuid NOT NULL,
    target_seq int8 NOT NULL,
    user_id    uuid NOT NULL,
    -- Equal for equal bodies: 16 bytes of a SHA-256 of the chat's data key and the body.
    key        bytea NOT NULL,
    seq        int8 NOT NULL,
    PRIMARY KEY (chat_id, target_seq, user_id, key)
);

-- "Message seq mentions this user." The read mark in members says which of them are unread.
CREATE TABLE mentions (
    chat_id uuid NOT NULL,
    user_id uuid NOT NULL,
    seq     int8 NOT NULL,
    PRIMARY KEY (chat_id, user_id, seq)
);
CREATE INDEX mentions_message ON mentions (chat_id, seq);

-- See 0001_chats.sql.
ALTER TABLE entry_targets ALTER COLUMN chat_id SET (n_distinct = -0.02);
ALTER TABLE message_state ALTER COLUMN chat_id SET (n_distinct = -0.02);
ALTER TABLE reactions ALTER COLUMN chat_id SET (n_distinct = -0.02);
ALTER TABLE mentions ALTER COLUMN chat_id SET (n_distinct = -0.02);
