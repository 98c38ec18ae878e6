-- Uploads that have not ended: the file as it was, and what its upload is made of.
CREATE TABLE IF NOT EXISTS uploads (
    path TEXT PRIMARY KEY,
    length INTEGER NOT NULL,
    -- Nanoseconds since the epoch.
    modified INTEGER NOT NULL,
    request BLOB NOT NULL,
    key BLOB NOT NULL,
    -- 32 bytes each.
    parts BLOB NOT NULL,
    created_at INTEGER NOT NULL
) WITHOUT ROWID;
