-- Endpoints made through the API, beside those that the configuration declares.

CREATE TABLE endpoint (
    name       TEXT    PRIMARY KEY,  -- the consumer's name; that of a removed one is never given away again
    state      TEXT    NOT NULL,
    reason     TEXT,
    settings   TEXT    NOT NULL,     -- JSON, without any secret
    sealed     BLOB    NOT NULL,     -- the secrets, encrypted; empty once it is removed
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    revision   INTEGER NOT NULL UNIQUE
) STRICT, WITHOUT ROWID;
