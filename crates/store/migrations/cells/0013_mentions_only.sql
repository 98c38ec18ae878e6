SELECT tern.alter_table('chat_settings', 'ADD COLUMN IF NOT EXISTS mentions_only boolean NOT NULL DEFAULT false');
