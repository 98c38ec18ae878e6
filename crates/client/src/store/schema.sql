-- One file a device. Ids are their 16 bytes, times milliseconds since the epoch.

-- Tokens, the server's store epoch, whether all chats were listed.
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
    -- Everything up to here is stored. NULL: not known where to begin.
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
    -- Whether it counts as unread.
    counts INTEGER NOT NULL,
    -- Encoded tern.v1.EntryContent.
    content BLOB NOT NULL,
    UNIQUE (chat, seq)
);

-- In the order of writing. A row goes when the message's entry is in the log here.
CREATE TABLE outbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    request BLOB NOT NULL UNIQUE,
    chat BLOB NOT NULL,
    -- Addressed by the other person, not by the chat.
    peer BLOB,
    -- Encoded tern.v1.Envelope.
    envelope BLOB NOT NULL,
    body BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    -- 0 queued, 1 sent (seq, sent_at), 2 failed (code, reason)
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

-- Names of people, as last heard.
CREATE TABLE names (
    user BLOB PRIMARY KEY,
    name TEXT NOT NULL
) WITHOUT ROWID;
