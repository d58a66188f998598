-- Every event's outcome at every consumer can be listed, and every attempt is kept for a time.

ALTER TABLE consumer ADD COLUMN endpoint INTEGER NOT NULL DEFAULT 0;  -- 1: what it settles without a row it filtered

ALTER TABLE delivery ADD COLUMN redriven INTEGER NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN spared INTEGER NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN since_ms INTEGER NOT NULL DEFAULT 0;  -- 0: a row from before there was this column

DROP INDEX delivery_due;
DROP INDEX delivery_outstanding;

CREATE INDEX delivery_noted ON delivery (consumer, partition, position, state)
    WHERE state NOT IN ('delivered', 'filtered');

CREATE TABLE attempt (
    id           INTEGER PRIMARY KEY,  -- rises with time, so that the oldest go first without an index on it
    consumer     TEXT    NOT NULL,
    partition    INTEGER NOT NULL,
    position     INTEGER NOT NULL,
    subscription INTEGER NOT NULL,
    number       INTEGER NOT NULL,
    at_ms        INTEGER NOT NULL,
    duration_ms  INTEGER NOT NULL,
    status       INTEGER,
    reason       TEXT,
    address      TEXT,
    answer       TEXT    NOT NULL,
    detail       TEXT
) STRICT;

CREATE INDEX attempt_delivery ON attempt (consumer, partition, position);
