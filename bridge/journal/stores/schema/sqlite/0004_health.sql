-- An endpoint's health outlives the process, and so does what operators have been told of it.

CREATE TABLE health (
    consumer         TEXT    PRIMARY KEY,
    state            TEXT    NOT NULL,
    failing_since_ms INTEGER NOT NULL,  -- 0: the last attempt that was noted went well
    last_success_ms  INTEGER NOT NULL,
    reason           TEXT,
    revision         INTEGER NOT NULL   -- of its last turn, 0 before the first
) STRICT, WITHOUT ROWID;

CREATE TABLE health_turn (
    revision INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice: webhook ids are made of it
    consumer TEXT    NOT NULL,
    turn     TEXT    NOT NULL,
    at_ms    INTEGER NOT NULL,
    since_ms INTEGER NOT NULL,
    reason   TEXT
) STRICT;

CREATE TABLE operator (
    name TEXT    PRIMARY KEY,
    told INTEGER NOT NULL  -- the last revision that it took
) STRICT, WITHOUT ROWID;
