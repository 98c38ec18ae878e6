-- It is made after the column, so that no parent is locked while the inbox is read.
CREATE INDEX inbox_push ON inbox (push_at) WHERE push_at IS NOT NULL;

-- The push hint of an entry, where it is not the one that entries of its kind have by themselves: tern.v1.PushHint.
CREATE TABLE push_hints (
    chat_id uuid NOT NULL,
    seq     int8 NOT NULL,
    hint    int2 NOT NULL,
    PRIMARY KEY (chat_id, seq)
);

-- See 0001_chats.sql.
ALTER TABLE push_hints ALTER COLUMN chat_id SET (n_distinct = -0.02);
