-- The tables of a store of version 3, the last one that kept the contents in the rows of the entries. An id is stored as
-- its 16 bytes, a time as milliseconds since the Unix epoch.

-- The device's identity and tokens, the server's store epoch, and a mark that all chats were listed once.
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE chats (
    chat BLOB PRIMARY KEY,
    kind INTEGER NOT NULL,
    title TEXT NOT NULL,
    peer BLOB,
    member_count INTEGER NOT NULL,
    role INTEGER NOT NULL,
    head INTEGER NOT NULL,
    active_at INTEGER NOT NULL,
    read INTEGER NOT NULL,
    unread INTEGER NOT NULL,
    is_left INTEGER NOT NULL,
    -- Every entry up to this seq has come. NULL means that the seq at which to begin is not known.
    cursor INTEGER,
    known INTEGER NOT NULL,
    confirmed_read INTEGER NOT NULL,
    listed_head INTEGER NOT NULL,
    listed_unread INTEGER NOT NULL,
    own INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE entries (
    chat BLOB NOT NULL,
    seq INTEGER NOT NULL,
    sent_at INTEGER NOT NULL,
    sender BLOB,
    device BLOB,
    request BLOB,
    ordinal INTEGER NOT NULL,
    -- 1 if the entry counts as unread for somebody who has not read it.
    counts INTEGER NOT NULL,
    -- An encoded tern.v1.EntryContent. The content of a deleted message, of its edits and of the reactions to it is an
    -- Erased.
    content BLOB NOT NULL,
    -- The number of the tern.v1.MessageKind that the entry is, or was before its content was erased. 0 means that it is
    -- no message, or of a kind that this version does not know.
    kind INTEGER NOT NULL DEFAULT 0,
    -- The seq of the message that the entry edits, deletes, reacts to or pins.
    target INTEGER,
    -- The id of the message's text in the index of the search, if it has one there.
    text INTEGER,
    UNIQUE (chat, seq)
);

CREATE INDEX entries_about ON entries (chat, target) WHERE target NOT NULL;

-- Own messages in the order of writing. A row is deleted when this device has the message's entry.
CREATE TABLE outbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    request BLOB NOT NULL UNIQUE,
    chat BLOB NOT NULL,
    -- The other person, if the message is addressed to that person and not to the chat.
    peer BLOB,
    -- An encoded tern.v1.Envelope.
    envelope BLOB NOT NULL,
    body BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    -- 0 means queued, 1 sent (with seq and sent_at), 2 failed (with code and reason).
    state INTEGER NOT NULL DEFAULT 0,
    seq INTEGER,
    sent_at INTEGER,
    code INTEGER,
    reason TEXT
);

CREATE TABLE receipts (
    chat BLOB NOT NULL,
    user BLOB NOT NULL,
    delivered INTEGER NOT NULL,
    read INTEGER NOT NULL,
    PRIMARY KEY (chat, user)
) WITHOUT ROWID;

-- The display names of people, as the server told them last.
CREATE TABLE names (
    user BLOB PRIMARY KEY,
    name TEXT NOT NULL
) WITHOUT ROWID;
