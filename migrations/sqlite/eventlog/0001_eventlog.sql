-- The event log: what became of mail. One table for each kind of event, kept in order
-- of time. at is in milliseconds since 1970; at and key together name a row: an event
-- that is written twice, or a log that is imported twice, is there once. Texts that
-- are not known are ''. Read it as you like; `tabard log` does, too.

-- +goose Up
CREATE TABLE log_sessions (                     -- when an SMTP session ended
    at         INTEGER NOT NULL,
    key        INTEGER NOT NULL,
    node       TEXT NOT NULL,                   -- host name of the server
    process    TEXT NOT NULL,                   -- smtpd, mta, or the format of an imported log
    id         TEXT NOT NULL,
    direction  TEXT NOT NULL,                   -- in: a client's; out: ours with another server
    listener   TEXT NOT NULL,
    peer       TEXT NOT NULL,                   -- IP address, or local
    name       TEXT NOT NULL,                   -- host name of the peer
    helo       TEXT NOT NULL,
    tls        TEXT NOT NULL,                   -- version and cipher; '': none
    verdict    TEXT NOT NULL,                   -- on the peer's certificate: verified, failed, unchecked
    identity   TEXT NOT NULL,                   -- of a verified peer; the reason of a failed one
    login      TEXT NOT NULL,                   -- authenticated user
    began      INTEGER NOT NULL,
    messages   INTEGER NOT NULL,
    reason     TEXT NOT NULL,                   -- why it ended
    PRIMARY KEY (at, key)
) WITHOUT ROWID, STRICT;
CREATE INDEX log_sessions_id ON log_sessions (id);
CREATE INDEX log_sessions_peer ON log_sessions (peer, at);

CREATE TABLE log_messages (                     -- when a message was accepted
    at         INTEGER NOT NULL,
    key        INTEGER NOT NULL,
    node       TEXT NOT NULL,
    process    TEXT NOT NULL,
    id         TEXT NOT NULL,
    session    TEXT NOT NULL,
    sender     TEXT NOT NULL COLLATE NOCASE,    -- reverse-path; '': null
    domain     TEXT NOT NULL,                   -- of the sender
    size       INTEGER NOT NULL,
    recipients INTEGER NOT NULL,
    header_id  TEXT NOT NULL,                   -- Message-ID, without brackets
    protocol   TEXT NOT NULL,
    login      TEXT NOT NULL,
    peer       TEXT NOT NULL,
    about      TEXT NOT NULL,                   -- of a bounce: the message that it is about
    PRIMARY KEY (at, key)
) WITHOUT ROWID, STRICT;
CREATE INDEX log_messages_id ON log_messages (id);
CREATE INDEX log_messages_session ON log_messages (session) WHERE session <> '';
CREATE INDEX log_messages_sender ON log_messages (domain, sender, at);
CREATE INDEX log_messages_about ON log_messages (about) WHERE about <> '';
CREATE INDEX log_messages_header ON log_messages (header_id) WHERE header_id <> '';

CREATE TABLE log_envelopes (                    -- one recipient of a message, after aliases
    at          INTEGER NOT NULL,
    key         INTEGER NOT NULL,
    node        TEXT NOT NULL,
    process     TEXT NOT NULL,
    session     TEXT NOT NULL,
    message     TEXT NOT NULL,
    envelope    TEXT NOT NULL,
    sender      TEXT NOT NULL COLLATE NOCASE,
    recipient   TEXT NOT NULL COLLATE NOCASE,   -- as given in RCPT, where that is another one
    address     TEXT NOT NULL COLLATE NOCASE,
    domain      TEXT NOT NULL,                  -- of address
    action      TEXT NOT NULL,
    destination TEXT NOT NULL,                  -- what shares a fate with it
    PRIMARY KEY (at, key)
) WITHOUT ROWID, STRICT;
CREATE INDEX log_envelopes_message ON log_envelopes (message);
CREATE INDEX log_envelopes_address ON log_envelopes (domain, address, at);
CREATE INDEX log_envelopes_recipient ON log_envelopes (recipient, at) WHERE recipient <> '';

CREATE TABLE log_attempts (                     -- one attempt at one envelope
    at          INTEGER NOT NULL,
    key         INTEGER NOT NULL,
    node        TEXT NOT NULL,
    process     TEXT NOT NULL,
    session     TEXT NOT NULL,                  -- ours with the other server
    message     TEXT NOT NULL,
    envelope    TEXT NOT NULL,
    sender      TEXT NOT NULL COLLATE NOCASE,
    recipient   TEXT NOT NULL COLLATE NOCASE,
    address     TEXT NOT NULL COLLATE NOCASE,
    domain      TEXT NOT NULL,
    action      TEXT NOT NULL,
    host        TEXT NOT NULL,                  -- name of the server
    peer        TEXT NOT NULL,                  -- its address
    source      TEXT NOT NULL,                  -- ours
    tls_wanted  TEXT NOT NULL,                  -- levels as in tls-policy rows
    tls_by      TEXT NOT NULL,
    tls_had     TEXT NOT NULL,
    outcome     TEXT NOT NULL,                  -- ok, temp or perm
    code        INTEGER NOT NULL,               -- SMTP reply code; 0: none
    status      TEXT NOT NULL,                  -- enhanced status code
    text        TEXT NOT NULL,
    duration_ms INTEGER NOT NULL,
    delay_ms    INTEGER NOT NULL,               -- since the message was accepted
    PRIMARY KEY (at, key)
) WITHOUT ROWID, STRICT;
CREATE INDEX log_attempts_message ON log_attempts (message);
CREATE INDEX log_attempts_session ON log_attempts (session) WHERE session <> '';
CREATE INDEX log_attempts_address ON log_attempts (domain, address, at);

CREATE TABLE log_results (                      -- the end of an envelope, or a refused command
    at         INTEGER NOT NULL,
    key        INTEGER NOT NULL,
    node       TEXT NOT NULL,
    process    TEXT NOT NULL,
    session    TEXT NOT NULL,
    message    TEXT NOT NULL,
    envelope   TEXT NOT NULL,
    sender     TEXT NOT NULL COLLATE NOCASE,
    recipient  TEXT NOT NULL COLLATE NOCASE,
    address    TEXT NOT NULL COLLATE NOCASE,
    domain     TEXT NOT NULL,
    result     TEXT NOT NULL,                   -- delivered, relayed, expanded, failed, expired, removed, rejected
    code       INTEGER NOT NULL,
    status     TEXT NOT NULL,
    text       TEXT NOT NULL,
    delay_ms   INTEGER NOT NULL,
    PRIMARY KEY (at, key)
) WITHOUT ROWID, STRICT;
CREATE INDEX log_results_message ON log_results (message) WHERE message <> '';
CREATE INDEX log_results_session ON log_results (session) WHERE message = '';
CREATE INDEX log_results_address ON log_results (domain, address, at);
CREATE INDEX log_results_sender ON log_results (sender, at) WHERE message = '';

CREATE TABLE log_traces (                       -- how long a message took in one stage
    at          INTEGER NOT NULL,
    key         INTEGER NOT NULL,
    node        TEXT NOT NULL,
    process     TEXT NOT NULL,
    message     TEXT NOT NULL,
    envelope    TEXT NOT NULL,
    stage       TEXT NOT NULL,
    duration_us INTEGER NOT NULL,
    PRIMARY KEY (at, key)
) WITHOUT ROWID, STRICT;
CREATE INDEX log_traces_message ON log_traces (message);

CREATE TABLE log_losses (                       -- events that could not be kept
    at      INTEGER NOT NULL,
    key     INTEGER NOT NULL,
    node    TEXT NOT NULL,
    process TEXT NOT NULL,
    since   INTEGER NOT NULL,
    until   INTEGER NOT NULL,
    count   INTEGER NOT NULL,
    reason  TEXT NOT NULL,
    PRIMARY KEY (at, key)
) WITHOUT ROWID, STRICT;
