-- Changes of accounts of which the users' own logs do not have the entry yet. Whoever makes the change writes the row in
-- the same transaction; an accounts node has the entry appended, and deletes the row.
CREATE TABLE own_log_outbox (
    user_id    uuid NOT NULL,
    request_id uuid NOT NULL,
    -- The order of a user's rows.
    number     int8 NOT NULL,
    content    bytea NOT NULL,               -- an encoded tern.v1.EntryContent
    -- When it was written, or when an accounts node last began to deliver it.
    since      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, request_id)
);
CREATE INDEX own_log_outbox_since ON own_log_outbox (since);
