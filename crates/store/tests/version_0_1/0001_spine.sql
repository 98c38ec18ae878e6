-- The spine: users and devices by user; everything about a chat by chat_id, hash-partitioned alike, so that a
-- commit touches one partition of each table and no statement of the message path joins across chats.

-- One row: facts about this store as a whole.
CREATE TABLE store (
    single     boolean PRIMARY KEY DEFAULT true CHECK (single),
    -- Changed by an operator after a restore or a failover with loss: devices' cursors belong to it.
    epoch      uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO store DEFAULT VALUES;

CREATE TABLE users (
    user_id      uuid PRIMARY KEY,
    external_id  text NOT NULL UNIQUE,
    display_name text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE devices (
    device_id    uuid PRIMARY KEY,
    user_id      uuid NOT NULL REFERENCES users,
    display_name text NOT NULL,
    platform     text NOT NULL,
    request_id   uuid NOT NULL,
    -- Becomes true when the user's chats know the device, in the same transaction; false again when it is revoked.
    active       boolean NOT NULL DEFAULT false,
    linked_at    timestamptz NOT NULL DEFAULT now(),
    revoked_at   timestamptz,
    -- When the user's chats no longer knew the device: a revocation that stopped before is finished later.
    unlinked_at  timestamptz,
    -- Refresh tokens are stored as SHA-256. The present one and its number, the one before it, and when the present
    -- one was made; see domain::refresh of the accounts crate.
    refresh_rotation      int8 NOT NULL DEFAULT 0,
    refresh_hash          bytea,
    refresh_previous_hash bytea,
    refresh_issued_at     timestamptz,
    UNIQUE (user_id, request_id)
);
CREATE INDEX devices_to_unlink ON devices (revoked_at) WHERE revoked_at IS NOT NULL AND unlinked_at IS NULL;

CREATE TABLE api_keys (
    key_id      uuid PRIMARY KEY,
    name        text NOT NULL,
    secret_hash bytea NOT NULL,
    scopes      text[] NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    revoked_at  timestamptz
);

CREATE TABLE chats (
    chat_id     uuid NOT NULL,
    kind        int2 NOT NULL,               -- tern.v1.ChatKind
    title       text NOT NULL DEFAULT '',
    created_by  uuid NOT NULL,
    -- Direct chats: the two people.
    user_low    uuid,
    user_high   uuid,
    -- Entries below it were trimmed.
    first_seq   int8 NOT NULL DEFAULT 1,
    -- The chat's data key, wrapped by the master key.
    wrapped_key bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (chat_id)
) PARTITION BY HASH (chat_id);

-- Narrow and hot: updated by each commit in place (HOT), so nothing that changes is indexed.
CREATE TABLE chat_heads (
    chat_id      uuid NOT NULL,
    head_seq     int8 NOT NULL,
    head_ordinal int8 NOT NULL,
    PRIMARY KEY (chat_id)
) PARTITION BY HASH (chat_id);

-- One row an interval of membership: from the entry that added the user to the one that removed them.
CREATE TABLE members (
    chat_id    uuid NOT NULL,
    user_id    uuid NOT NULL,
    joined_seq int8 NOT NULL,
    left_seq   int8,
    role       int2 NOT NULL,                -- tern.v1.Role
    -- The user's devices while the interval is open; as they were at its end afterwards.
    devices    uuid[] NOT NULL,
    read_seq   int8 NOT NULL DEFAULT 0,
    PRIMARY KEY (chat_id, user_id, joined_seq)
) PARTITION BY HASH (chat_id);
CREATE INDEX members_user ON members (user_id);

CREATE TABLE messages (
    chat_id       uuid NOT NULL,
    seq           int8 NOT NULL,
    ordinal       int8 NOT NULL,
    kind          int2 NOT NULL,             -- see chat::state::entry::EntryKind
    sender_user   uuid NOT NULL,             -- nil: the back end
    sender_device uuid NOT NULL,             -- nil: a back end
    request_id    uuid NOT NULL,
    -- Tells a repeated request from another one under the same request_id. 16 bytes of SHA-256.
    fingerprint   bytea NOT NULL,
    body          bytea NOT NULL,            -- sealed tern.v1.EntryContent
    sent_at       timestamptz NOT NULL,
    PRIMARY KEY (chat_id, seq),
    UNIQUE (chat_id, sender_user, request_id)
) PARTITION BY HASH (chat_id);

-- "Entries of the chat from from_seq on are not yet settled." One row a commit and chat, never updated, no key ever
-- used twice; deleted when settled.
CREATE TABLE unsettled (
    chat_id      uuid NOT NULL,
    from_seq     int8 NOT NULL,
    slot         int2 NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (chat_id, from_seq)
) PARTITION BY HASH (chat_id);
CREATE INDEX unsettled_slot ON unsettled (slot, committed_at);

-- "This device has not acknowledged this chat from from_seq on." What was not delivered.
CREATE TABLE inbox (
    chat_id     uuid NOT NULL,
    device_id   uuid NOT NULL,               -- or the user's id while they have no device
    user_id     uuid NOT NULL,
    from_seq    int8 NOT NULL,
    since       timestamptz NOT NULL DEFAULT now(),
    notified_at timestamptz,
    PRIMARY KEY (chat_id, device_id)
) PARTITION BY HASH (chat_id);
CREATE INDEX inbox_device ON inbox (device_id);

DO $$
DECLARE
    tab text;
    opts text;
BEGIN
    FOREACH tab IN ARRAY ARRAY['chats', 'chat_heads', 'members', 'messages', 'unsettled', 'inbox'] LOOP
        opts := CASE tab
            WHEN 'chat_heads' THEN ' WITH (fillfactor = 50)'
            WHEN 'unsettled' THEN
                ' WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0)'
            WHEN 'inbox' THEN ' WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02)'
            ELSE ''
        END;
        FOR i IN 0..15 LOOP
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS 16, REMAINDER %s)%s',
                           tab || '_' || lpad(i::text, 2, '0'), tab, i, opts);
        END LOOP;
    END LOOP;
END $$;
