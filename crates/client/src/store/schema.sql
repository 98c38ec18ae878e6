-- The tables of a device besides its entries, which entries.sql has. Each device has a file of its own. An id is stored as its 16 bytes, a time as milliseconds since the Unix epoch.

-- The device's identity and tokens, the server's store epoch, and a mark that all chats were listed once. Other marks are
-- named where they are set.
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
    own INTEGER NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    -- An encoded tern.v1.GroupPolicy.
    policy BLOB NOT NULL DEFAULT x'',
    frozen INTEGER NOT NULL DEFAULT 0,
    -- An encoded tern.v1.Retention.
    retention BLOB NOT NULL DEFAULT x'',
    -- An encoded tern.v1.ChatSettings.
    settings BLOB NOT NULL DEFAULT x'',
    -- The seq in the person's own log of the entry that has the settings.
    settings_seq INTEGER NOT NULL DEFAULT 0,
    join_requests INTEGER NOT NULL DEFAULT 0,
    history_from INTEGER NOT NULL DEFAULT 0,
    mentions INTEGER NOT NULL DEFAULT 0,
    first_mention INTEGER NOT NULL DEFAULT 0,
    listed_mentions INTEGER NOT NULL DEFAULT 0,
    listed_first_mention INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

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
    reason TEXT,
    -- The time from which on the person may send a refused message again, if the server named one.
    retry_at INTEGER
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
