-- Which messages have disappeared: the time of the message to disappear has come. It is a migration of its own, because
-- whoever waits for the lock on a parent may have locked no other one.
SELECT tern.alter_table('message_state', 'ADD COLUMN IF NOT EXISTS disappeared boolean NOT NULL DEFAULT false');
