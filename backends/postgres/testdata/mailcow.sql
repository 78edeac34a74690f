-- What mailcow's tables hold of mail.
CREATE TABLE domain (domain varchar(255) PRIMARY KEY, backupmx smallint NOT NULL DEFAULT 0, active smallint NOT NULL DEFAULT 1);
CREATE TABLE alias_domain (alias_domain varchar(255) PRIMARY KEY, target_domain varchar(255) NOT NULL, active smallint NOT NULL DEFAULT 1);
CREATE TABLE mailbox (username varchar(255) PRIMARY KEY, password varchar(255) NOT NULL, local_part varchar(255) NOT NULL, domain varchar(255) NOT NULL, attributes json, kind varchar(100) NOT NULL DEFAULT '', authsource varchar(32) NOT NULL DEFAULT 'mailcow', active smallint NOT NULL DEFAULT 1);
CREATE TABLE alias (id serial PRIMARY KEY, address varchar(255) UNIQUE NOT NULL, goto text NOT NULL, domain varchar(255) NOT NULL, internal smallint NOT NULL DEFAULT 0, sender_allowed smallint NOT NULL DEFAULT 1, active smallint NOT NULL DEFAULT 1);
CREATE TABLE spamalias (address varchar(255) PRIMARY KEY, goto text NOT NULL, validity int);
CREATE TABLE sender_acl (id serial PRIMARY KEY, logged_in_as varchar(255) NOT NULL, send_as varchar(255) NOT NULL, external smallint NOT NULL DEFAULT 0);
CREATE TABLE transports (id serial PRIMARY KEY, destination varchar(255) NOT NULL, nexthop varchar(255) NOT NULL, username varchar(255) NOT NULL DEFAULT '', password varchar(255) NOT NULL DEFAULT '', is_mx_based smallint NOT NULL DEFAULT 0, active smallint NOT NULL DEFAULT 1);
CREATE TABLE tls_policy_override (id serial PRIMARY KEY, dest varchar(255) UNIQUE NOT NULL, policy varchar(20) NOT NULL, parameters varchar(255) DEFAULT '', active smallint NOT NULL DEFAULT 1);
INSERT INTO domain (domain, backupmx) VALUES ('example.org', 0), ('backup.example', 1);
INSERT INTO alias_domain (alias_domain, target_domain) VALUES ('example.net', 'example.org');
INSERT INTO mailbox (username, password, local_part, domain, authsource, active) VALUES ('alice@example.org', '{BLF-CRYPT}$2y$05$BpL0Fx7DSUrIsQIEfXn0D.UsleviufEvwZVdFbiEkRrp5i7E.w1F6', 'alice', 'example.org', 'mailcow', 1), ('quiet@example.org', '{BLF-CRYPT}x', 'quiet', 'example.org', 'mailcow', 2), ('sso@example.org', '', 'sso', 'example.org', 'keycloak', 1);
INSERT INTO alias (address, goto, domain, sender_allowed, active) VALUES ('alice@example.org', 'alice@example.org', 'example.org', 1, 1), ('team@example.org', 'alice@example.org,bob@example.com', 'example.org', 1, 1), ('sales@example.org', 'alice@example.org', 'example.org', 1, 1), ('mute@example.org', 'alice@example.org', 'example.org', 0, 1), ('@example.org', 'postmaster@example.com', 'example.org', 1, 1), ('old@example.org', 'x@example.com', 'example.org', 1, 0);
INSERT INTO spamalias (address, goto, validity) VALUES ('temp@example.org', 'alice@example.org', 2147483647), ('past@example.org', 'alice@example.org', 1);
INSERT INTO sender_acl (logged_in_as, send_as) VALUES ('alice@example.org', '@example.com'), ('root@example.org', '*');
INSERT INTO transports (destination, nexthop, username, password) VALUES ('partner.example', '[mx.partner.example]:587', 'us', 'secret'), ('plain.example', 'relay.example', '', '');
INSERT INTO tls_policy_override (dest, policy, parameters) VALUES ('partner.example', 'verify', 'match=.partner.example'), ('plain.example', 'may', '');
