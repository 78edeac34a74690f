-- The event log: what became of mail. One table for each kind of event, kept in order
-- of time. at and key together name a row: an event
-- that is written twice, or a log that is imported twice, is there once. Texts that
-- are not known are ''. Read it as you like; `tabard log` does, too.

-- +goose Up
CREATE TABLE log_sessions (                     -- when an SMTP session ended
    at         timestamptz NOT NULL,
    key        bigint NOT NULL,
    node       text NOT NULL,                   -- host name of the server
    process    text NOT NULL,                   -- smtpd, mta, or the format of an imported log
    id         text NOT NULL,
    direction  text NOT NULL,                   -- in: a client's; out: ours with another server
    listener   text NOT NULL,
    peer       text NOT NULL,                   -- IP address, or local
    name       text NOT NULL,                   -- host name of the peer
    helo       text NOT NULL,
    tls        text NOT NULL,                   -- version and cipher; '': none
    verdict    text NOT NULL,                   -- on the peer's certificate: verified, failed, unchecked
    identity   text NOT NULL,                   -- of a verified peer; the reason of a failed one
    login      text NOT NULL,                   -- authenticated user
    began      timestamptz NOT NULL,
    messages   bigint NOT NULL,
    reason     text NOT NULL,                   -- why it ended
    PRIMARY KEY (at, key)
);
CREATE INDEX log_sessions_id ON log_sessions (id);
CREATE INDEX log_sessions_peer ON log_sessions (peer, at);

CREATE TABLE log_messages (                     -- when a message was accepted
    at         timestamptz NOT NULL,
    key        bigint NOT NULL,
    node       text NOT NULL,
    process    text NOT NULL,
    id         text NOT NULL,
    session    text NOT NULL,
    sender     text NOT NULL,    -- reverse-path; '': null
    domain     text NOT NULL,                   -- of the sender
    size       bigint NOT NULL,
    recipients bigint NOT NULL,
    header_id  text NOT NULL,                   -- Message-ID, without brackets
    protocol   text NOT NULL,
    login      text NOT NULL,
    peer       text NOT NULL,
    about      text NOT NULL,                   -- of a bounce: the message that it is about
    PRIMARY KEY (at, key)
);
CREATE INDEX log_messages_id ON log_messages (id);
CREATE INDEX log_messages_session ON log_messages (session) WHERE session <> '';
CREATE INDEX log_messages_sender ON log_messages (domain, lower(sender), at);
CREATE INDEX log_messages_about ON log_messages (about) WHERE about <> '';
CREATE INDEX log_messages_header ON log_messages (header_id) WHERE header_id <> '';

CREATE TABLE log_envelopes (                    -- one recipient of a message, after aliases
    at          timestamptz NOT NULL,
    key         bigint NOT NULL,
    node        text NOT NULL,
    process     text NOT NULL,
    session     text NOT NULL,
    message     text NOT NULL,
    envelope    text NOT NULL,
    sender      text NOT NULL,
    recipient   text NOT NULL,   -- as given in RCPT, where that is another one
    address     text NOT NULL,
    domain      text NOT NULL,                  -- of address
    action      text NOT NULL,
    destination text NOT NULL,                  -- what shares a fate with it
    PRIMARY KEY (at, key)
);
CREATE INDEX log_envelopes_message ON log_envelopes (message);
CREATE INDEX log_envelopes_address ON log_envelopes (domain, lower(address), at);
CREATE INDEX log_envelopes_recipient ON log_envelopes (lower(recipient), at) WHERE recipient <> '';

CREATE TABLE log_attempts (                     -- one attempt at one envelope
    at          timestamptz NOT NULL,
    key         bigint NOT NULL,
    node        text NOT NULL,
    process     text NOT NULL,
    session     text NOT NULL,                  -- ours with the other server
    message     text NOT NULL,
    envelope    text NOT NULL,
    sender      text NOT NULL,
    recipient   text NOT NULL,
    address     text NOT NULL,
    domain      text NOT NULL,
    action      text NOT NULL,
    host        text NOT NULL,                  -- name of the server
    peer        text NOT NULL,                  -- its address
    source      text NOT NULL,                  -- ours
    tls_wanted  text NOT NULL,                  -- levels as in tls-policy rows
    tls_by      text NOT NULL,
    tls_had     text NOT NULL,
    outcome     text NOT NULL,                  -- ok, temp or perm
    code        bigint NOT NULL,               -- SMTP reply code; 0: none
    status      text NOT NULL,                  -- enhanced status code
    text        text NOT NULL,
    duration_ms bigint NOT NULL,
    delay_ms    bigint NOT NULL,               -- since the message was accepted
    PRIMARY KEY (at, key)
);
CREATE INDEX log_attempts_message ON log_attempts (message);
CREATE INDEX log_attempts_session ON log_attempts (session) WHERE session <> '';
CREATE INDEX log_attempts_address ON log_attempts (domain, lower(address), at);

CREATE TABLE log_results (                      -- the end of an envelope, or a refused command
    at         timestamptz NOT NULL,
    key        bigint NOT NULL,
    node       text NOT NULL,
    process    text NOT NULL,
    session    text NOT NULL,
    message    text NOT NULL,
    envelope   text NOT NULL,
    sender     text NOT NULL,
    recipient  text NOT NULL,
    address    text NOT NULL,
    domain     text NOT NULL,
    result     text NOT NULL,                   -- delivered, relayed, expanded, failed, expired, removed, rejected
    code       bigint NOT NULL,
    status     text NOT NULL,
    text       text NOT NULL,
    delay_ms   bigint NOT NULL,
    PRIMARY KEY (at, key)
);
CREATE INDEX log_results_message ON log_results (message) WHERE message <> '';
CREATE INDEX log_results_session ON log_results (session) WHERE message = '';
CREATE INDEX log_results_address ON log_results (domain, lower(address), at);
CREATE INDEX log_results_sender ON log_results (lower(sender), at) WHERE message = '';

CREATE TABLE log_traces (                       -- how long a message took in one stage
    at          timestamptz NOT NULL,
    key         bigint NOT NULL,
    node        text NOT NULL,
    process     text NOT NULL,
    message     text NOT NULL,
    envelope    text NOT NULL,
    stage       text NOT NULL,
    duration_us bigint NOT NULL,
    PRIMARY KEY (at, key)
);
CREATE INDEX log_traces_message ON log_traces (message);

CREATE TABLE log_losses (                       -- events that could not be kept
    at      timestamptz NOT NULL,
    key     bigint NOT NULL,
    node    text NOT NULL,
    process text NOT NULL,
    since   timestamptz NOT NULL,
    until   timestamptz NOT NULL,
    count   bigint NOT NULL,
    reason  text NOT NULL,
    PRIMARY KEY (at, key)
);
