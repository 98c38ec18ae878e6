-- Users whom the operator keeps out for now.

ALTER TABLE users ADD COLUMN suspended_at timestamptz;
CREATE INDEX users_suspended ON users (suspended_at) WHERE suspended_at IS NOT NULL;
