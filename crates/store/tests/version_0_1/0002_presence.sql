-- Presence: who may see what of whom, and when people were last active. All by user.

ALTER TABLE users
    ADD COLUMN presence_audience int2 NOT NULL DEFAULT 2,   -- tern.v1.Audience; 2: contacts
    ADD COLUMN read_receipts_off boolean NOT NULL DEFAULT false;

-- As the user's last mark in the chat said: others are not told of read_seq.
ALTER TABLE members ADD COLUMN read_receipts_off boolean NOT NULL DEFAULT false;

CREATE TABLE blocks (
    user_id    uuid NOT NULL REFERENCES users,
    blocked_id uuid NOT NULL REFERENCES users,
    blocked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, blocked_id)
);

CREATE TABLE contacts (
    user_id    uuid NOT NULL REFERENCES users,
    contact_id uuid NOT NULL REFERENCES users,
    PRIMARY KEY (user_id, contact_id)
);

-- Strangers that a user watched within the last day: their number is limited.
CREATE TABLE watched_strangers (
    user_id    uuid NOT NULL REFERENCES users,
    watched_id uuid NOT NULL REFERENCES users,
    watched_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, watched_id)
);

-- At most one write in five minutes a user. Nothing that changes is indexed: HOT updates.
CREATE TABLE last_seen (
    user_id    uuid PRIMARY KEY,
    at         timestamptz NOT NULL
) WITH (fillfactor = 70);
