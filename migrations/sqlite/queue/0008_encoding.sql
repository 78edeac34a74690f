-- How a body is stored: '' as it is, 'zstd', 'aes-256-gcm:KEY' or
-- 'zstd+aes-256-gcm:KEY' with the id of the key. size and checksum are those of the
-- clear body. The column stands behind the body, which would have to be copied to
-- put it elsewhere: it is read with the body, or from its index.

-- +goose Up
ALTER TABLE messages ADD COLUMN encoding TEXT NOT NULL DEFAULT '';
CREATE INDEX messages_encoding ON messages (encoding) WHERE encoding <> '';
