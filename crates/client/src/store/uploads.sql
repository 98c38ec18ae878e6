-- The uploads that have not ended: the state of the file, and the plan from which its upload goes on.
CREATE TABLE IF NOT EXISTS uploads (
    -- A text, or the bytes of a path that is none.
    path TEXT PRIMARY KEY,
    length INTEGER NOT NULL,
    -- The time of the file's last change, in nanoseconds since the Unix epoch.
    modified INTEGER NOT NULL,
    request BLOB NOT NULL,
    key BLOB NOT NULL,
    -- The SHA-256 of each part of the ciphertext, 32 bytes each.
    parts BLOB NOT NULL,
    created_at INTEGER NOT NULL
) WITHOUT ROWID;
