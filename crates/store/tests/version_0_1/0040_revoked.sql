-- Gateways ask which devices were revoked within an access token's lifetime.

CREATE INDEX devices_revoked ON devices (revoked_at) WHERE revoked_at IS NOT NULL;
