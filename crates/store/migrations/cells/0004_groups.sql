-- How a group is run: its description, its policy (tern.v1.GroupPolicy), and whether the operator froze it. Direct chats
-- have the defaults, and may be frozen too.
SELECT tern.alter_table('chats', $$
    ADD COLUMN IF NOT EXISTS description text NOT NULL DEFAULT '',
    -- The lowest roles (tern.v1.Role) that may send, add members, and change what the group shows.
    ADD COLUMN IF NOT EXISTS send_role int2 NOT NULL DEFAULT 1,
    ADD COLUMN IF NOT EXISTS add_role int2 NOT NULL DEFAULT 2,
    ADD COLUMN IF NOT EXISTS edit_role int2 NOT NULL DEFAULT 2,
    ADD COLUMN IF NOT EXISTS slow_mode_s int4 NOT NULL DEFAULT 0,
    -- What new members may read of the time before. 0: nothing, -1: everything, else so many entries.
    ADD COLUMN IF NOT EXISTS joiner_history int4 NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS frozen boolean NOT NULL DEFAULT false
$$);
