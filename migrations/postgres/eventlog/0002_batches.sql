-- The order in which events came: who follows the log reads what is new by it. Each
-- batch of rows is one transaction, and its rows name it; those from before this file
-- name 0. Batches older than a week are forgotten, their rows are not.

-- +goose Up
CREATE TABLE log_batches (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- not in the order of their commits
    xact    bigint NOT NULL DEFAULT txid_current(),          -- tells which may be missing yet
    written timestamptz NOT NULL DEFAULT now(),
    since   timestamptz NOT NULL,                            -- the times of its events lie between
    until   timestamptz NOT NULL
);
CREATE INDEX log_batches_xact ON log_batches (xact);
CREATE INDEX log_batches_written ON log_batches (written);
ALTER TABLE log_sessions ADD COLUMN batch bigint NOT NULL DEFAULT 0;
ALTER TABLE log_messages ADD COLUMN batch bigint NOT NULL DEFAULT 0;
ALTER TABLE log_envelopes ADD COLUMN batch bigint NOT NULL DEFAULT 0;
ALTER TABLE log_attempts ADD COLUMN batch bigint NOT NULL DEFAULT 0;
ALTER TABLE log_results ADD COLUMN batch bigint NOT NULL DEFAULT 0;
ALTER TABLE log_traces ADD COLUMN batch bigint NOT NULL DEFAULT 0;
ALTER TABLE log_losses ADD COLUMN batch bigint NOT NULL DEFAULT 0;

-- What is deleted from the old end is to be room for new rows soon, not only when a fifth
-- of the log is dead.
ALTER TABLE log_sessions SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
ALTER TABLE log_messages SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
ALTER TABLE log_envelopes SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
ALTER TABLE log_attempts SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
ALTER TABLE log_results SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
ALTER TABLE log_traces SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
ALTER TABLE log_losses SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
