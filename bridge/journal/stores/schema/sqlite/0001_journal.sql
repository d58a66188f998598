-- Numbered files are applied in order, once, each in a transaction; a released one is never edited.

CREATE TABLE partition (
    number        INTEGER PRIMARY KEY,
    last_position INTEGER NOT NULL DEFAULT 0,  -- outlives the entries themselves, so that positions never start again
    swept         INTEGER NOT NULL DEFAULT 0,  -- every entry up to here is gone, or kept because it is outstanding
    entries       INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE subscription (
    id         INTEGER PRIMARY KEY,
    source     TEXT    NOT NULL,
    job_id     TEXT    NOT NULL,
    partition  INTEGER NOT NULL,
    state      TEXT    NOT NULL,
    reason     TEXT,
    cursor     TEXT,
    memory     BLOB    NOT NULL DEFAULT x'',
    sequence   INTEGER NOT NULL DEFAULT 0,
    origin     TEXT    NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    revision   INTEGER NOT NULL UNIQUE,
    UNIQUE (source, job_id)
) STRICT;

CREATE INDEX subscription_state ON subscription (state, id);

CREATE TABLE entry (
    partition    INTEGER NOT NULL,
    position     INTEGER NOT NULL,
    subscription INTEGER NOT NULL,
    sequence     INTEGER NOT NULL,
    recorded_ms  INTEGER NOT NULL,
    id           TEXT    NOT NULL,
    source       TEXT    NOT NULL,
    subject      TEXT    NOT NULL,
    type         TEXT    NOT NULL,
    time         TEXT,
    traceparent  TEXT,
    data         BLOB    NOT NULL,
    PRIMARY KEY (partition, position),
    UNIQUE (subscription, id)
) STRICT;

CREATE TABLE consumer (
    name       TEXT    NOT NULL,
    partition  INTEGER NOT NULL,
    begun      INTEGER NOT NULL,  -- where the journal ended when the consumer was first registered
    settled    INTEGER NOT NULL,
    registered INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (name, partition)
) STRICT, WITHOUT ROWID;

CREATE TABLE delivery (
    partition    INTEGER NOT NULL,
    position     INTEGER NOT NULL,
    consumer     TEXT    NOT NULL,
    subscription INTEGER NOT NULL,
    state        TEXT    NOT NULL,
    attempts     INTEGER NOT NULL,
    first_ms     INTEGER NOT NULL,
    due_ms       INTEGER NOT NULL,
    status       INTEGER,
    detail       TEXT,
    PRIMARY KEY (partition, position, consumer)
) STRICT, WITHOUT ROWID;

CREATE INDEX delivery_due ON delivery (consumer, partition, due_ms) WHERE state = 'retrying';

CREATE INDEX delivery_lane ON delivery (consumer, partition, subscription, position, state, due_ms)
    WHERE state IN ('retrying', 'held');

CREATE INDEX delivery_outstanding ON delivery (consumer, state) WHERE state IN ('retrying', 'held', 'dead');

CREATE TABLE probe (
    id     INTEGER PRIMARY KEY,
    filler BLOB NOT NULL
) STRICT;
