-- What the sender asks of the schedule: MT-PRIORITY (RFC 6710) and DELIVERBY (RFC
-- 2852). Both are the message's, but stand with the envelopes, as tls does. The lane
-- follows from the priority; it leads the indices, so that what is urgent is found
-- without reading past what is not, however much that is. Of mail that is to be held
-- until a time (FUTURERELEASE, RFC 4865) created is that time.

-- +goose Up
ALTER TABLE envelopes ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;    -- -9 to 9
ALTER TABLE envelopes ADD COLUMN lane INTEGER NOT NULL DEFAULT 1;        -- 0: urgent; 1: usual; 2: last
ALTER TABLE envelopes ADD COLUMN deadline INTEGER NOT NULL DEFAULT 0;    -- 0: none
ALTER TABLE envelopes ADD COLUMN deadline_mode TEXT NOT NULL DEFAULT ''; -- R: return; N: notify; with T: trace

DROP INDEX envelopes_due;
CREATE INDEX envelopes_due ON envelopes (lane, next, destination, message, n, lease, held) WHERE lease IS NULL AND held = 0;
DROP INDEX envelopes_destination;
CREATE INDEX envelopes_destination ON envelopes (destination, lane, next, message, n) WHERE lease IS NULL AND held = 0;
