-- What came of the last attempts at an envelope that waits. Nothing is written here
-- for mail that is delivered at once. The views are for people and their programs:
-- readable times and ids; columns may be added to them, none is renamed.

-- +goose Up
CREATE TABLE attempts (
    message INTEGER NOT NULL,
    n       INTEGER NOT NULL,
    number  INTEGER NOT NULL,                   -- of the attempt, from 1
    at      INTEGER NOT NULL,                   -- when its result was known
    remote  TEXT NOT NULL,                      -- host that said so; '': our own word
    result  TEXT NOT NULL,                      -- reply, or error
    next    INTEGER NOT NULL,                   -- when it was to be tried again
    PRIMARY KEY (message, n, number)
) WITHOUT ROWID, STRICT;

-- +goose StatementBegin
CREATE TRIGGER attempts_end AFTER DELETE ON envelopes WHEN OLD.attempts > 0
BEGIN
    DELETE FROM attempts WHERE message = OLD.message AND n = OLD.n;
END;
-- +goose StatementEnd

CREATE VIEW queue_messages AS
SELECT printf('%016x', id) AS message, sender, size, session, login, helo, remote,
    strftime('%Y-%m-%dT%H:%M:%SZ', created / 1000, 'unixepoch') AS created,
    envid, ret, file, (SELECT count(*) FROM envelopes e WHERE e.message = messages.id) AS envelopes
FROM messages;

CREATE VIEW queue_envelopes AS
SELECT printf('%016x.%d', e.message, e.n) AS envelope, printf('%016x', e.message) AS message,
    m.sender, e.address AS recipient, e.recipient AS rcpt, e.action, e.destination, e.user, m.size,
    CASE WHEN e.held > 0 THEN 'held' WHEN e.lease IS NOT NULL THEN 'active'
        WHEN e.next <= CAST(unixepoch('subsec') * 1000 AS INTEGER) THEN 'due' ELSE 'deferred' END AS state,
    CASE WHEN e.held = 1 THEN 'its body is damaged'
        WHEN e.held > 1 THEN (SELECT h.kind || ' ' || h.value FROM holds h WHERE h.id = e.held) END AS held_for,
    e.attempts, e.last_error AS error,
    strftime('%Y-%m-%dT%H:%M:%SZ', e.created / 1000, 'unixepoch') AS created,
    strftime('%Y-%m-%dT%H:%M:%SZ', e.next / 1000, 'unixepoch') AS next,
    strftime('%Y-%m-%dT%H:%M:%SZ', e.expires / 1000, 'unixepoch') AS expires
FROM envelopes e CROSS JOIN messages m ON m.id = e.message;

CREATE VIEW queue_attempts AS
SELECT printf('%016x.%d', message, n) AS envelope, number, remote, result,
    strftime('%Y-%m-%dT%H:%M:%SZ', at / 1000, 'unixepoch') AS at,
    strftime('%Y-%m-%dT%H:%M:%SZ', next / 1000, 'unixepoch') AS next
FROM attempts;

CREATE VIEW queue_holds AS
SELECT id, kind, value, reason, strftime('%Y-%m-%dT%H:%M:%SZ', created / 1000, 'unixepoch') AS created,
    (SELECT count(*) FROM envelopes e WHERE e.held = holds.id) AS held
FROM holds;
