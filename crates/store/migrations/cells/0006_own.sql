-- What users' own logs say of their chats. A row is in the cell of the own log (chat_id), whatever the cell of the chat
-- that it is about. The entry of the own log and the row are written in one transaction.

-- How the user keeps the chat of_chat. A row stays when everything in it has its default again, so that seq says when.
CREATE TABLE chat_settings (
    chat_id       uuid NOT NULL,             -- the user's own log
    of_chat       uuid NOT NULL,
    muted_until   int8 NOT NULL DEFAULT 0,   -- milliseconds since 1970; 0: not muted
    archived      boolean NOT NULL DEFAULT false,
    pinned_at     int8 NOT NULL DEFAULT 0,   -- milliseconds since 1970; 0: not pinned
    marked_unread boolean NOT NULL DEFAULT false,
    -- The user's read mark in of_chat when it was marked unread: it is so no longer when the mark has risen.
    marked_at     int8 NOT NULL DEFAULT 0,
    draft         bytea,                     -- sealed with the own log's data key; NULL: none
    seq           int8 NOT NULL,             -- the entry of the own log that changed the row last
    PRIMARY KEY (chat_id, of_chat)
);
CREATE INDEX chat_settings_pinned ON chat_settings (chat_id, pinned_at) WHERE pinned_at > 0;
CREATE INDEX chat_settings_archived ON chat_settings (chat_id, of_chat) WHERE archived;
CREATE INDEX chat_settings_changed ON chat_settings (chat_id, seq);

-- "The user has hidden entry seq of the chat of_chat from themselves."
CREATE TABLE hidden_messages (
    chat_id uuid NOT NULL,                   -- the user's own log
    of_chat uuid NOT NULL,
    seq     int8 NOT NULL,
    PRIMARY KEY (chat_id, of_chat, seq)
);

-- See 0001_chats.sql.
ALTER TABLE chat_settings ALTER COLUMN chat_id SET (n_distinct = -0.02);
ALTER TABLE hidden_messages ALTER COLUMN chat_id SET (n_distinct = -0.02);
