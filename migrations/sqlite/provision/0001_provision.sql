-- The provisioning schema: what tables of kind sqlite are served from. The
-- names are a public interface; docs/tables.md tells what each means.
-- Names and addresses compare without regard to ASCII case.

-- +goose Up
CREATE TABLE domains (
    name    TEXT PRIMARY KEY COLLATE NOCASE NOT NULL CHECK (typeof(name) = 'text' AND length(name) BETWEEN 1 AND 255),
    created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);

-- Wildcards are walked, and they are few: an index of them alone.
CREATE INDEX domains_wildcard ON domains (name) WHERE instr(name, '*') > 0;

CREATE TABLE users (
    name     TEXT PRIMARY KEY COLLATE NOCASE NOT NULL CHECK (typeof(name) = 'text' AND length(name) BETWEEN 1 AND 320),
    password TEXT,                              -- crypt(3) style hash; NULL: cannot log in
    uid      INTEGER CHECK (uid IS NULL OR typeof(uid) = 'integer' AND uid BETWEEN 0 AND 4294967294),
    gid      INTEGER CHECK (gid IS NULL OR typeof(gid) = 'integer' AND gid BETWEEN 0 AND 4294967294),
    home     TEXT CHECK (home IS NULL OR home = '' OR home LIKE '/%'),
    enabled  INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
    created  TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE aliases (
    id      INTEGER PRIMARY KEY,
    address TEXT COLLATE NOCASE NOT NULL CHECK (typeof(address) = 'text' AND length(address) BETWEEN 1 AND 320),
    target  TEXT NOT NULL CHECK (typeof(target) = 'text' AND length(target) > 0),
    created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (address, target)
);

CREATE TABLE senders (
    id      INTEGER PRIMARY KEY,
    user    TEXT COLLATE NOCASE NOT NULL CHECK (typeof(user) = 'text' AND length(user) BETWEEN 1 AND 320),
    address TEXT COLLATE NOCASE NOT NULL CHECK (typeof(address) = 'text' AND length(address) > 0),
    created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (user, address)
);

CREATE TABLE relays (
    id       INTEGER PRIMARY KEY,
    match    TEXT COLLATE NOCASE NOT NULL CHECK (typeof(match) = 'text' AND length(match) BETWEEN 1 AND 320),
    url      TEXT NOT NULL CHECK (typeof(url) = 'text' AND length(url) > 0),
    priority INTEGER NOT NULL DEFAULT 0 CHECK (typeof(priority) = 'integer'),
    weight   INTEGER NOT NULL DEFAULT 1 CHECK (typeof(weight) = 'integer' AND weight >= 0),
    created  TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (match, url)
);

CREATE TABLE relay_credentials (
    label    TEXT PRIMARY KEY COLLATE NOCASE NOT NULL CHECK (typeof(label) = 'text' AND length(label) BETWEEN 1 AND 320),
    username TEXT NOT NULL CHECK (length(username) > 0),
    password TEXT NOT NULL,
    created  TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);

-- Several rows of one name: certificates of different key types.
CREATE TABLE certificates (
    id      INTEGER PRIMARY KEY,
    name    TEXT COLLATE NOCASE NOT NULL CHECK (typeof(name) = 'text' AND length(name) BETWEEN 1 AND 255),
    chain   TEXT NOT NULL CHECK (length(chain) > 0),
    key     TEXT,                               -- NULL: the key is in chain
    created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX certificates_name ON certificates (name);

CREATE TABLE authorities (
    name    TEXT PRIMARY KEY COLLATE NOCASE NOT NULL CHECK (typeof(name) = 'text' AND length(name) BETWEEN 1 AND 255),
    pem     TEXT NOT NULL CHECK (length(pem) > 0),
    created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE client_identities (
    identity TEXT PRIMARY KEY COLLATE NOCASE NOT NULL CHECK (typeof(identity) = 'text' AND length(identity) BETWEEN 1 AND 1024),
    user     TEXT NOT NULL CHECK (length(user) > 0),
    created  TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE tls_policies (
    domain  TEXT PRIMARY KEY COLLATE NOCASE NOT NULL CHECK (typeof(domain) = 'text' AND length(domain) BETWEEN 1 AND 255),
    policy  TEXT NOT NULL CHECK (length(policy) > 0),
    created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE sources (
    address TEXT PRIMARY KEY NOT NULL CHECK (typeof(address) = 'text' AND length(address) > 0),
    created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE hostnames (
    address  TEXT PRIMARY KEY COLLATE NOCASE NOT NULL CHECK (typeof(address) = 'text' AND length(address) > 0),
    hostname TEXT NOT NULL CHECK (length(hostname) BETWEEN 1 AND 255),
    created  TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE networks (
    cidr    TEXT PRIMARY KEY COLLATE NOCASE NOT NULL CHECK (typeof(cidr) = 'text' AND length(cidr) > 0),
    created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE addresses (
    address TEXT PRIMARY KEY COLLATE NOCASE NOT NULL CHECK (typeof(address) = 'text' AND length(address) BETWEEN 1 AND 320),
    created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE INDEX addresses_wildcard ON addresses (address) WHERE instr(address, '*') > 0;

CREATE TABLE dkim_keys (
    domain   TEXT COLLATE NOCASE NOT NULL CHECK (typeof(domain) = 'text' AND length(domain) BETWEEN 1 AND 255),
    selector TEXT COLLATE NOCASE NOT NULL CHECK (typeof(selector) = 'text' AND length(selector) BETWEEN 1 AND 63),
    key      TEXT NOT NULL CHECK (length(key) > 0),
    created  TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (domain, selector)
);

CREATE TABLE configs (
    name    TEXT COLLATE NOCASE NOT NULL CHECK (typeof(name) = 'text' AND length(name) BETWEEN 1 AND 255),
    body    TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1 CHECK (typeof(version) = 'integer' AND version > 0),
    created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    author  TEXT,
    PRIMARY KEY (name, version)
);
