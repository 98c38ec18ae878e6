-- Strangers that a user wrote to or added to a group within the last day, from a device: their number is limited.
CREATE TABLE met_strangers (
    user_id uuid NOT NULL REFERENCES users,
    met_id  uuid NOT NULL REFERENCES users,
    met_at  timestamptz NOT NULL,
    PRIMARY KEY (user_id, met_id)
);
