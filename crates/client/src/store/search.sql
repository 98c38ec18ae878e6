-- The index of the search. It is made when the app first wants it, and dropped when the app wants it no more.

-- The text by which each message is found, as it is now, with blanks around each character that is a token of its own.
-- It is kept because a text is only taken out of the index as a whole if it is named as it was put in. The message's
-- entry has the id, because a unique index over chat and seq would double what each commit writes. A text that is not in
-- the index any more is overwritten with blanks, and its row stays, for the same reason as in the table contents.
CREATE TABLE texts (
    -- Rises in the order of indexing, because FTS5 writes a part of its index whenever the numbers fall.
    id INTEGER PRIMARY KEY,
    chat BLOB NOT NULL,
    seq INTEGER NOT NULL,
    sent_at INTEGER NOT NULL,
    text TEXT NOT NULL
);

-- Letters, marks of letters and numbers make tokens, and so do symbols such as emojis. No rank is computed, so the
-- index need not know the number of tokens of a text.
CREATE VIRTUAL TABLE search USING fts5 (
    text,
    content = 'texts',
    content_rowid = 'id',
    columnsize = 0,
    tokenize = "unicode61 remove_diacritics 2 categories 'L* M* N* Co So'"
);

-- FTS5 takes a deleted text out of the index at once. Without this it only notes the deletion, and the words stay on the
-- disk until it merges this part of the index with others.
INSERT INTO search (search, rank) VALUES ('secure-delete', 1);
