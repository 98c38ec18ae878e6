-- Media: what the object store holds, who put it there, and which messages refer to it.

-- One row an object. Two of the same content and type are never both `canonical`.
CREATE TABLE media (
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
CREATE UNIQUE INDEX media_content ON media (content_id, length, content_type) WHERE canonical;
CREATE INDEX media_ticketed ON media (ticketed_at) WHERE condemned_at IS NULL;
CREATE INDEX media_condemned ON media (condemned_at) WHERE condemned_at IS NOT NULL;

-- Who uploaded it: they have had the bytes.
CREATE TABLE media_uploaders (
    media_id uuid NOT NULL REFERENCES media ON DELETE CASCADE,
    user_id  uuid NOT NULL,
    PRIMARY KEY (media_id, user_id)
);

-- Uploads under way, and those that ended, as long as their request_id counts.
CREATE TABLE uploads (
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
CREATE INDEX uploads_by_state ON uploads (state, urls_end_at);

-- What a user has begun to upload on a day (UTC).
CREATE TABLE media_usage (
    user_id uuid NOT NULL,
    day     date NOT NULL,
    bytes   int8 NOT NULL,
    uploads int4 NOT NULL,
    PRIMARY KEY (user_id, day)
);
CREATE INDEX media_usage_day ON media_usage (day);

-- "Entry seq of the chat refers to this media." Written by the commit of the entry.
CREATE TABLE media_refs (
    chat_id  uuid NOT NULL,
    media_id uuid NOT NULL,
    seq      int8 NOT NULL,
    PRIMARY KEY (chat_id, media_id, seq)
) PARTITION BY HASH (chat_id);
CREATE INDEX media_refs_media ON media_refs (media_id);

DO $$
BEGIN
    FOR i IN 0..15 LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF media_refs FOR VALUES WITH (MODULUS 16, REMAINDER %s)',
                       'media_refs_' || lpad(i::text, 2, '0'), i);
    END LOOP;
END $$;
