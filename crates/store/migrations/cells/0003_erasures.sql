-- What bounds the work of a deletion: how much each person may do to a message, and how much of that is erased at once.

-- How often each person did something to a message. The commit of an edit or a reaction counts it here.
CREATE TABLE act_counts (
    chat_id    uuid NOT NULL,
    target_seq int8 NOT NULL,
    user_id    uuid NOT NULL,
    kind       int2 NOT NULL,                -- as in messages: edits, or reactions with those that are taken back
    acts       int4 NOT NULL,
    PRIMARY KEY (chat_id, target_seq, user_id, kind)
) WITH (fillfactor = 80);

-- "The message target_seq is deleted, and what was done to it is erased up to the entry after_seq." A row is there
-- while the rest is being erased.
CREATE TABLE erasures (
    chat_id    uuid NOT NULL,
    target_seq int8 NOT NULL,
    after_seq  int8 NOT NULL,
    since      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (chat_id, target_seq)
);
CREATE INDEX erasures_since ON erasures (since);

-- See 0001_chats.sql.
ALTER TABLE act_counts ALTER COLUMN chat_id SET (n_distinct = -0.02);
