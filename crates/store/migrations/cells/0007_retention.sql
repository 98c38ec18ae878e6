-- How long the contents of messages are kept, and which messages disappear. The columns have defaults, because the
-- version before makes chats without them.
SELECT tern.alter_table('chats', 'ADD COLUMN IF NOT EXISTS retention_mode int2 NOT NULL DEFAULT 0');
SELECT tern.alter_table('chats', 'ADD COLUMN IF NOT EXISTS keep_s int4 NOT NULL DEFAULT 0');
SELECT tern.alter_table('chats', 'ADD COLUMN IF NOT EXISTS disappear_after_s int4 NOT NULL DEFAULT 0');
SELECT tern.alter_table('chats', 'ADD COLUMN IF NOT EXISTS trim_at timestamptz');
SELECT tern.alter_table('chats', 'ADD COLUMN IF NOT EXISTS trimmed_seq int8 NOT NULL DEFAULT 0');
SELECT tern.alter_table('chats', 'ADD COLUMN IF NOT EXISTS first_ordinal int8 NOT NULL DEFAULT 0');
SELECT tern.alter_table('message_state', 'ADD COLUMN IF NOT EXISTS disappeared boolean NOT NULL DEFAULT false');

-- In chats, retention_mode is tern.v1.RetentionMode; keep_s and disappear_after_s are the fields of tern.v1.Retention;
-- trim_at is the time at which the chat is trimmed next, NULL: never; trimmed_seq is the seq up to which the contents
-- that are not kept have been erased; and first_ordinal is the ordinal of the entry before first_seq. In message_state,
-- disappeared is true once the time of a message to disappear has come.
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
