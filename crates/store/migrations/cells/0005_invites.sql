-- These tables have the invite links of groups, and the requests to join one. What adds a row deletes those that have
-- ended, so both are bounded for each chat.

-- A link. It is in force until it is revoked, has expired or is used up. Its token is not here: it follows from the id
-- and the chat's data key.
CREATE TABLE invites (
    chat_id        uuid NOT NULL,
    invite_id      uuid NOT NULL,
    created_by     uuid NOT NULL,            -- nil: the back end
    created_at     timestamptz NOT NULL,
    expires_at     timestamptz,              -- NULL: never
    max_uses       int4 NOT NULL,            -- 0: any number
    uses           int4 NOT NULL DEFAULT 0,
    needs_approval boolean NOT NULL,
    revoked_at     timestamptz,
    PRIMARY KEY (chat_id, invite_id)
);

-- "This user asks to join, by this link." The row stays for a while after they were refused.
CREATE TABLE join_requests (
    chat_id      uuid NOT NULL,
    user_id      uuid NOT NULL,
    invite_id    uuid NOT NULL,
    requested_at timestamptz NOT NULL,
    refused_at   timestamptz,                -- NULL: the request waits for an answer
    PRIMARY KEY (chat_id, user_id)
);

-- See 0001_chats.sql.
ALTER TABLE invites ALTER COLUMN chat_id SET (n_distinct = -0.02);
ALTER TABLE join_requests ALTER COLUMN chat_id SET (n_distinct = -0.02);
