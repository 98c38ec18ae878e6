-- How long the contents of messages are kept. The columns have defaults, because the version before makes chats without
-- them. retention_mode is tern.v1.RetentionMode; keep_s and disappear_after_s are the fields of tern.v1.Retention;
-- trim_at is the time at which the chat is trimmed next, NULL: never; trimmed_seq is the seq up to which the contents
-- that are not kept have been erased; and first_ordinal is the ordinal of the entry before first_seq.
SELECT tern.alter_table('chats', 'ADD COLUMN IF NOT EXISTS retention_mode int2 NOT NULL DEFAULT 0');
SELECT tern.alter_table('chats', 'ADD COLUMN IF NOT EXISTS keep_s int4 NOT NULL DEFAULT 0');
SELECT tern.alter_table('chats', 'ADD COLUMN IF NOT EXISTS disappear_after_s int4 NOT NULL DEFAULT 0');
SELECT tern.alter_table('chats', 'ADD COLUMN IF NOT EXISTS trim_at timestamptz');
SELECT tern.alter_table('chats', 'ADD COLUMN IF NOT EXISTS trimmed_seq int8 NOT NULL DEFAULT 0');
SELECT tern.alter_table('chats', 'ADD COLUMN IF NOT EXISTS first_ordinal int8 NOT NULL DEFAULT 0');
