-- What a member sent after their own read mark and others have to read: not unread to them.

ALTER TABLE members ADD COLUMN own_unread int4 NOT NULL DEFAULT 0;
