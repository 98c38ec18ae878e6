-- What members may read of the time before they joined. It is a migration of its own, because whoever waits for the lock
-- on a parent may have locked no other one.

-- The first seq that the interval lets its member read; NULL: joined_seq. The stream and the inbox know joined_seq only.
SELECT tern.alter_table('members', 'ADD COLUMN IF NOT EXISTS history_seq int8');
