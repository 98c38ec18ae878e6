-- Pictures of people and groups, and the end of references.

ALTER TABLE chats ADD COLUMN picture uuid;
CREATE INDEX chats_picture ON chats (picture) WHERE picture IS NOT NULL;

CREATE TABLE user_pictures (
    user_id  uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    media_id uuid NOT NULL
);
CREATE INDEX user_pictures_media ON user_pictures (media_id);

-- Whoever deletes an entry, or blanks its body, ends what it refers to in the same transaction.
CREATE INDEX media_refs_entry ON media_refs (chat_id, seq);

CREATE FUNCTION release_entry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM media_refs WHERE chat_id = OLD.chat_id AND seq = OLD.seq;
    RETURN NULL;
END $$;
CREATE TRIGGER messages_deleted AFTER DELETE ON messages FOR EACH ROW EXECUTE FUNCTION release_entry();
CREATE TRIGGER messages_blanked AFTER UPDATE OF body ON messages FOR EACH ROW
    WHEN (octet_length(NEW.body) = 0) EXECUTE FUNCTION release_entry();

CREATE FUNCTION release_chat() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM media_refs WHERE chat_id = OLD.chat_id;
    RETURN NULL;
END $$;
CREATE TRIGGER chats_deleted AFTER DELETE ON chats FOR EACH ROW EXECUTE FUNCTION release_chat();
