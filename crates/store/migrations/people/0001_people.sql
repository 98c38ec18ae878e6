-- People and whatever belongs to a person: users, devices, tokens, contacts, presence, media. This file also runs on
-- tables that were moved here from version 0.1, and then finds everything there.

CREATE TABLE IF NOT EXISTS users (
    user_id           uuid PRIMARY KEY,
    external_id       text NOT NULL UNIQUE,
    display_name      text NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    presence_audience int2 NOT NULL DEFAULT 2,           -- tern.v1.Audience; 2: contacts
    read_receipts_off boolean NOT NULL DEFAULT false,
    -- When the operator began to keep the user out; NULL: not.
    suspended_at      timestamptz
);
CREATE INDEX IF NOT EXISTS users_suspended ON users (suspended_at) WHERE suspended_at IS NOT NULL;

CREATE TABLE IF NOT EXISTS devices (
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
CREATE INDEX IF NOT EXISTS devices_to_unlink ON devices (revoked_at) WHERE revoked_at IS NOT NULL AND unlinked_at IS NULL;
-- Gateways ask which devices were revoked within an access token's lifetime.
CREATE INDEX IF NOT EXISTS devices_revoked ON devices (revoked_at) WHERE revoked_at IS NOT NULL;

CREATE TABLE IF NOT EXISTS api_keys (
    key_id      uuid PRIMARY KEY,
    name        text NOT NULL,
    secret_hash bytea NOT NULL,
    scopes      text[] NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    revoked_at  timestamptz
);

CREATE TABLE IF NOT EXISTS blocks (
    user_id    uuid NOT NULL REFERENCES users,
    blocked_id uuid NOT NULL REFERENCES users,
    blocked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, blocked_id)
);

CREATE TABLE IF NOT EXISTS contacts (
    user_id    uuid NOT NULL REFERENCES users,
    contact_id uuid NOT NULL REFERENCES users,
    PRIMARY KEY (user_id, contact_id)
);

-- Strangers that a user watched within the last day: their number is limited.
CREATE TABLE IF NOT EXISTS watched_strangers (
    user_id    uuid NOT NULL REFERENCES users,
    watched_id uuid NOT NULL REFERENCES users,
    watched_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, watched_id)
);

-- Strangers that a user wrote to or added to a group within the last day, from a device: their number is limited.
CREATE TABLE IF NOT EXISTS met_strangers (
    user_id uuid NOT NULL REFERENCES users,
    met_id  uuid NOT NULL REFERENCES users,
    met_at  timestamptz NOT NULL,
    PRIMARY KEY (user_id, met_id)
);

-- At most one write in five minutes a user. Nothing that changes is indexed: HOT updates.
CREATE TABLE IF NOT EXISTS last_seen (
    user_id    uuid PRIMARY KEY,
    at         timestamptz NOT NULL
) WITH (fillfactor = 70);

-- One row an object of the object store. Two of the same content and type are never both `canonical`.
CREATE TABLE IF NOT EXISTS media (
    media_id     uuid PRIMARY KEY,
    -- SHA-256 of the bytes if they are one part; of several parts the SHA-256 of their SHA-256s.
    content_id   bytea NOT NULL,
    length       int8 NOT NULL,
    content_type text NOT NULL,
    object_key   text NOT NULL UNIQUE,
    -- Uploads of the same content become this one.
    canonical    boolean NOT NULL DEFAULT true,
    created_at   timestamptz NOT NULL,
    -- When its last ticket was given.
    ticketed_at  timestamptz NOT NULL,
    -- The collector has marked it: no more tickets, and after one more look for references it is deleted.
    condemned_at timestamptz
);
CREATE UNIQUE INDEX IF NOT EXISTS media_content ON media (content_id, length, content_type) WHERE canonical;
CREATE INDEX IF NOT EXISTS media_ticketed ON media (ticketed_at) WHERE condemned_at IS NULL;
CREATE INDEX IF NOT EXISTS media_condemned ON media (condemned_at) WHERE condemned_at IS NOT NULL;

-- Who uploaded it: they have had the bytes.
CREATE TABLE IF NOT EXISTS media_uploaders (
    media_id uuid NOT NULL REFERENCES media ON DELETE CASCADE,
    user_id  uuid NOT NULL,
    PRIMARY KEY (media_id, user_id)
);

-- Uploads under way, and those that ended, as long as their request_id counts.
CREATE TABLE IF NOT EXISTS uploads (
    upload_id    uuid PRIMARY KEY,
    user_id      uuid NOT NULL,
    request_id   uuid NOT NULL,
    length       int8 NOT NULL,
    content_type text NOT NULL,
    -- 32 bytes each, in order.
    part_sha256s bytea NOT NULL,
    object_key   text NOT NULL UNIQUE,
    -- The store's name of a multipart upload, once it has one.
    multipart_id text,
    state        int2 NOT NULL,              -- see media::domain::upload::State
    -- Where it is done: what it became. No foreign key: the media may be collected before the upload is forgotten.
    media_id     uuid,
    created_at   timestamptz NOT NULL,
    -- Until then somebody may hold a URL that writes.
    urls_end_at  timestamptz NOT NULL,
    UNIQUE (user_id, request_id)
);
CREATE INDEX IF NOT EXISTS uploads_by_state ON uploads (state, urls_end_at);

-- One row a user and day (UTC): the bytes and the number of uploads that the user began on it.
CREATE TABLE IF NOT EXISTS media_usage (
    user_id uuid NOT NULL,
    day     date NOT NULL,
    bytes   int8 NOT NULL,
    uploads int4 NOT NULL,
    PRIMARY KEY (user_id, day)
);
CREATE INDEX IF NOT EXISTS media_usage_day ON media_usage (day);

CREATE TABLE IF NOT EXISTS user_pictures (
    user_id  uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    media_id uuid NOT NULL
);
CREATE INDEX IF NOT EXISTS user_pictures_media ON user_pictures (media_id);
