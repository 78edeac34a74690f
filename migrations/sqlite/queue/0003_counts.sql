-- So that what waits and what is held can be counted from the indices alone: SQLite
-- reads the row for a column that an index only has in its condition.

-- +goose Up
DROP INDEX envelopes_due;
CREATE INDEX envelopes_due ON envelopes (next, destination, message, n, lease, held) WHERE lease IS NULL AND held = 0;
CREATE INDEX envelopes_held ON envelopes (message, n, held) WHERE held = 1;
