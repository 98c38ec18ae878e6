-- An inbox row that stays is a push that is due: the settle that writes the row says so, and the row's end ends the push.
-- One row has one push at most.

-- When the push is due, is tried again, or is claimed until; NULL: none is.
SELECT tern.alter_table('inbox', 'ADD COLUMN IF NOT EXISTS push_at timestamptz');
-- When it first became due.
SELECT tern.alter_table('inbox', 'ADD COLUMN IF NOT EXISTS push_since timestamptz');
-- How often it was tried in vain. While a worker has claimed the row it is -1 less that number.
SELECT tern.alter_table('inbox', 'ADD COLUMN IF NOT EXISTS push_tries int2 NOT NULL DEFAULT 0');
-- When a push of the row was last sent, or was found to have nobody to go to. notified_at says when one was last shown.
SELECT tern.alter_table('inbox', 'ADD COLUMN IF NOT EXISTS pushed_at timestamptz');
