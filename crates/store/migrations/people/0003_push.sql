-- A row says where a device gets its pushes.
CREATE TABLE push_tokens (
    device_id     uuid PRIMARY KEY REFERENCES devices,
    user_id       uuid NOT NULL,
    provider      int2 NOT NULL,             -- 1: APNs, 2: FCM, 3: Web Push
    -- The bundle id or the package name; empty for Web Push.
    app           text NOT NULL,
    sandbox       boolean NOT NULL DEFAULT false,
    -- The token, or the endpoint of a subscription. Of one provider and app no two devices have the same.
    token         bytea NOT NULL,
    -- The token for calls (APNs), or the subscription's public key (Web Push); NULL: none.
    second_key    bytea,
    -- The subscription's secret (Web Push).
    auth          bytea,
    -- The X25519 public key to which notifications are sealed; NULL: none.
    sealing_key   bytea,
    -- When the device first named this token.
    registered_at timestamptz NOT NULL,
    -- When it last did, to within a day.
    named_at      timestamptz NOT NULL
);
CREATE UNIQUE INDEX push_tokens_token ON push_tokens (provider, app, sha256(token));
CREATE INDEX push_tokens_named ON push_tokens (named_at);

-- The notification settings of users. A user without a row has the defaults. The hours are minutes of the day.
CREATE TABLE notification_settings (
    user_id    uuid PRIMARY KEY REFERENCES users,
    quiet_from int2,
    quiet_to   int2,
    time_zone  text
);
