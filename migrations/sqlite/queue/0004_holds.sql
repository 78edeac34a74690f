-- What an administrator holds: mail to a domain, from a sender, of an action, or
-- for a route. envelopes.held is 0, 1 for damaged mail, or the id of a hold.

-- +goose Up
CREATE TABLE holds (
    id      INTEGER PRIMARY KEY,                -- from 2
    kind    TEXT NOT NULL,                      -- destination, sender, rule or route
    value   TEXT NOT NULL,
    reason  TEXT NOT NULL,
    created INTEGER NOT NULL,
    UNIQUE (kind, value)
) STRICT;

DROP INDEX envelopes_held;
CREATE INDEX envelopes_held ON envelopes (held, message, n) WHERE held > 0;
