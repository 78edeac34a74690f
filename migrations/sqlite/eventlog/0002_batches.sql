-- The order in which events came: who follows the log reads what is new by it. Each
-- batch of rows is one transaction, and its rows name it; those from before this file
-- name 0. Batches older than a week are forgotten, their rows are not.

-- +goose Up
CREATE TABLE log_batches (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the order of their commits
    written INTEGER NOT NULL,
    since   INTEGER NOT NULL,                   -- the times of its events lie between
    until   INTEGER NOT NULL
) STRICT;
CREATE INDEX log_batches_written ON log_batches (written);
ALTER TABLE log_sessions ADD COLUMN batch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE log_messages ADD COLUMN batch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE log_envelopes ADD COLUMN batch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE log_attempts ADD COLUMN batch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE log_results ADD COLUMN batch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE log_traces ADD COLUMN batch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE log_losses ADD COLUMN batch INTEGER NOT NULL DEFAULT 0;
