-- The queue: accepted messages, and one envelope per recipient that is not
-- delivered yet. Times are milliseconds since 1970. Read it as you like; write
-- to it only with `tabard queue`: the queue process keeps what is due in memory.

-- +goose Up
CREATE TABLE messages (
    id        INTEGER PRIMARY KEY,              -- printed as 16 hexadecimal digits
    sender    TEXT NOT NULL,                    -- reverse-path; '': null
    size      INTEGER NOT NULL,                 -- of the body, bytes
    eightbit  INTEGER NOT NULL,                 -- BODY=8BITMIME
    utf8      INTEGER NOT NULL,                 -- SMTPUTF8
    ret       TEXT NOT NULL,                    -- DSN RET: FULL, HDRS or ''
    envid     TEXT NOT NULL,                    -- DSN ENVID
    session   TEXT NOT NULL,
    login     TEXT NOT NULL,                    -- authenticated submitter
    helo      TEXT NOT NULL,
    remote    TEXT NOT NULL,
    created   INTEGER NOT NULL,
    checksum  INTEGER NOT NULL,                 -- CRC-32C of the body
    file      TEXT,                             -- in messages/, for a body that is not a column
    body      BLOB                              -- last, so that the rest is read without it
) STRICT;

-- An envelope with a lease was in memory, and nowhere near the indices, when
-- its transaction ended: mail that is delivered at once is never indexed.
CREATE TABLE envelopes (
    message     INTEGER NOT NULL,
    n           INTEGER NOT NULL,
    address     TEXT NOT NULL,                  -- after expansion
    recipient   TEXT NOT NULL,                  -- as given in RCPT
    orcpt       TEXT NOT NULL,
    notify      TEXT NOT NULL,
    action      TEXT NOT NULL,
    relay       INTEGER NOT NULL,
    user        TEXT NOT NULL,
    destination TEXT NOT NULL,                  -- what shares a fate: action/domain, action or action/user
    created     INTEGER NOT NULL,
    expires     INTEGER NOT NULL,
    next        INTEGER NOT NULL,               -- next attempt
    attempts    INTEGER NOT NULL,
    warned      INTEGER NOT NULL,               -- delay warnings sent
    held        INTEGER NOT NULL,               -- no attempt until retried by hand
    last_error  TEXT NOT NULL,
    notice      TEXT NOT NULL,                  -- outcome that the sender is still to be told of, JSON
    lease       INTEGER,
    PRIMARY KEY (message, n)
) WITHOUT ROWID, STRICT;

CREATE INDEX envelopes_due ON envelopes (next, destination, message, n) WHERE lease IS NULL AND held = 0;
CREATE INDEX envelopes_destination ON envelopes (destination, next, message, n) WHERE lease IS NULL AND held = 0;
