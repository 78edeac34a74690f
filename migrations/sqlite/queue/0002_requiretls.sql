-- What the sender wants of TLS (RFC 8689) is the message's, but stands with the
-- envelopes: behind the body of messages it would take the whole body to read.

-- +goose Up
ALTER TABLE envelopes ADD COLUMN tls INTEGER NOT NULL DEFAULT 0; -- 1: REQUIRETLS; 2: TLS-Required: No in the header
