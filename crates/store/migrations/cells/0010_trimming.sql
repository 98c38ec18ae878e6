-- What is to be trimmed when. The index is made after the column, so that no parent is locked while chats are read.
CREATE INDEX chats_trim ON chats (trim_at) WHERE trim_at IS NOT NULL;

-- "The content of message seq is to be erased at this time." The commit of the message writes it.
CREATE TABLE expiring (
    chat_id    uuid NOT NULL,
    seq        int8 NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (chat_id, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX expiring_due ON expiring (expires_at);

-- See 0001_chats.sql.
ALTER TABLE expiring ALTER COLUMN chat_id SET (n_distinct = -0.02);
