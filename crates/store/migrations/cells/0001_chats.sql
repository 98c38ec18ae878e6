-- Everything about the chats of one cell. It runs once in the schema of each cell. A statement of the message path
-- touches these tables of one cell and no others.

CREATE TABLE chats (
    chat_id     uuid PRIMARY KEY,
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
    picture     uuid
);
CREATE INDEX chats_picture ON chats (picture) WHERE picture IS NOT NULL;

-- Narrow and hot: updated by each commit in place (HOT), so nothing that changes is indexed.
CREATE TABLE chat_heads (
    chat_id      uuid PRIMARY KEY,
    head_seq     int8 NOT NULL,
    head_ordinal int8 NOT NULL
) WITH (fillfactor = 50);

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
    -- True if the user's last mark in the chat came with read receipts turned off: others are not told of read_seq.
    read_receipts_off boolean NOT NULL DEFAULT false,
    -- The number of the member's own messages after their read mark. They count as unread for others, not for the
    -- member.
    own_unread int4 NOT NULL DEFAULT 0,
    PRIMARY KEY (chat_id, user_id, joined_seq)
);
CREATE INDEX members_user ON members (user_id);

CREATE TABLE messages (
    chat_id       uuid NOT NULL,
    seq           int8 NOT NULL,
    ordinal       int8 NOT NULL,
    kind          int2 NOT NULL,             -- see chat_core::entry::EntryKind
    sender_user   uuid NOT NULL,             -- nil: the back end
    sender_device uuid NOT NULL,             -- nil: a back end
    request_id    uuid NOT NULL,
    -- Tells a repeated request from another one under the same request_id. 16 bytes of SHA-256.
    fingerprint   bytea NOT NULL,
    body          bytea NOT NULL,            -- sealed tern.v1.EntryContent
    sent_at       timestamptz NOT NULL,
    PRIMARY KEY (chat_id, seq),
    UNIQUE (chat_id, sender_user, request_id)
);

-- "Entries of the chat from from_seq on are not yet settled." One row a commit and chat, never updated, no key ever
-- used twice; deleted when settled.
CREATE TABLE unsettled (
    chat_id      uuid NOT NULL,
    from_seq     int8 NOT NULL,
    slot         int2 NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (chat_id, from_seq)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
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
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX inbox_device ON inbox (device_id);

-- "Entry seq of the chat refers to this media." Written by the commit of the entry.
CREATE TABLE media_refs (
    chat_id  uuid NOT NULL,
    media_id uuid NOT NULL,
    seq      int8 NOT NULL,
    PRIMARY KEY (chat_id, media_id, seq)
);
CREATE INDEX media_refs_media ON media_refs (media_id);
CREATE INDEX media_refs_entry ON media_refs (chat_id, seq);

-- These settings tell the planner what to expect, whatever ANALYZE counts. Where most chats have one message (a platform's
-- first days) or most people are in one chat, the planner takes a key's first column to be as good as the whole key. A
-- statement about one row then reads the longest chat, or all chats of the busiest user. With these settings it expects
-- at least fifty rows for each value, in a table of any size.
ALTER TABLE messages ALTER COLUMN chat_id SET (n_distinct = -0.02);
ALTER TABLE members ALTER COLUMN user_id SET (n_distinct = -0.02);
ALTER TABLE inbox ALTER COLUMN device_id SET (n_distinct = -0.02);

-- Whoever deletes an entry, or blanks its body, ends what it refers to in the same transaction. The functions find their
-- cell's tables whatever the search_path of the caller is.
CREATE FUNCTION release_entry() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM media_refs WHERE chat_id = OLD.chat_id AND seq = OLD.seq;
    RETURN NULL;
END $$;
CREATE TRIGGER messages_deleted AFTER DELETE ON messages FOR EACH ROW EXECUTE FUNCTION release_entry();
CREATE TRIGGER messages_blanked AFTER UPDATE OF body ON messages FOR EACH ROW
    WHEN (octet_length(NEW.body) = 0) EXECUTE FUNCTION release_entry();

CREATE FUNCTION release_chat() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM media_refs WHERE chat_id = OLD.chat_id;
    RETURN NULL;
END $$;
CREATE TRIGGER chats_deleted AFTER DELETE ON chats FOR EACH ROW EXECUTE FUNCTION release_chat();
