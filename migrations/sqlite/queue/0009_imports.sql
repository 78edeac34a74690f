-- Messages that came from another queue (tabard queue import), by the export that
-- brought them, so that what is imported again after it was delivered is known. Rows
-- go after 90 days.

-- +goose Up
CREATE TABLE imports (
    export  TEXT NOT NULL,                      -- id of the export
    message INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (export, message)
) WITHOUT ROWID, STRICT;
CREATE INDEX imports_at ON imports (at);
