-- The entries of all logs. Rows of this table move when SQLite balances its pages, and what they leave behind is not
-- overwritten. So nothing that may have to be erased is in it.
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
    -- The id of the entry's content. NULL: the content was erased.
    content INTEGER,
    -- Why the content was erased. 0: it was not. 1: the message was deleted for everyone. 2: it has disappeared, or the
    -- server did not keep it. 3: the person has deleted the message for themselves.
    gone INTEGER NOT NULL DEFAULT 0,
    -- The number of the tern.v1.MessageKind that the entry is, or was before its content was erased. 0 means that it is
    -- no message, or of a kind that this version does not know.
    kind INTEGER NOT NULL DEFAULT 0,
    -- The seq of the message that the entry edits, deletes, reacts to or pins.
    target INTEGER,
    -- The seq of the message with which the message's thread begins.
    thread INTEGER,
    -- 1 if the message has attachments.
    attached INTEGER NOT NULL DEFAULT 0,
    -- 1 if the message mentions the device's person.
    mention INTEGER NOT NULL DEFAULT 0,
    -- The time at which the content is to be erased, by the server's clock.
    expires_at INTEGER,
    -- The id of the message's text in the index of the search, if it has one there.
    text INTEGER,
    UNIQUE (chat, seq)
);

CREATE INDEX entries_about ON entries (chat, target) WHERE target NOT NULL;
CREATE INDEX entries_thread ON entries (chat, thread) WHERE thread NOT NULL;
CREATE INDEX entries_due ON entries (expires_at) WHERE expires_at NOT NULL;

-- The contents of entries. A content that is to be erased is overwritten with zeros of the same length, and its row stays:
-- no row changes its size or is deleted, and each is added behind the last one, so SQLite has no reason to move one.
CREATE TABLE contents (
    id INTEGER PRIMARY KEY,
    -- An encoded tern.v1.EntryContent, as it came.
    bytes BLOB NOT NULL
);

-- The messages that the person has deleted for themselves, also those whose entries this device does not have.
CREATE TABLE hidden (
    chat BLOB NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (chat, seq)
) WITHOUT ROWID;

-- The entries of which an earlier version of this program has lost a part. They are read from the server again.
CREATE TABLE lost (
    chat BLOB NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (chat, seq)
) WITHOUT ROWID;
