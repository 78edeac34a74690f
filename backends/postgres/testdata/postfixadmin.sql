-- What PostfixAdmin's tables hold of mail, with the types that it gives them.
CREATE TABLE domain (domain varchar(255) PRIMARY KEY, description varchar(255) NOT NULL DEFAULT '', transport varchar(255), backupmx boolean NOT NULL DEFAULT false, active boolean NOT NULL DEFAULT true);
CREATE TABLE alias_domain (alias_domain varchar(255) PRIMARY KEY, target_domain varchar(255) NOT NULL, active boolean NOT NULL DEFAULT true);
CREATE TABLE mailbox (username varchar(255) PRIMARY KEY, password varchar(255) NOT NULL, name varchar(255), maildir varchar(255) NOT NULL, quota bigint NOT NULL DEFAULT 0, local_part varchar(255) NOT NULL, domain varchar(255), active boolean NOT NULL DEFAULT true);
CREATE TABLE alias (address varchar(255) PRIMARY KEY, goto text NOT NULL, domain varchar(255), active boolean NOT NULL DEFAULT true);
CREATE TABLE dkim (id serial PRIMARY KEY, domain_name varchar(255) NOT NULL, selector varchar(63) NOT NULL, private_key text, public_key text);
INSERT INTO domain (domain, transport, backupmx, active) VALUES ('example.org', 'virtual', false, true), ('backup.example', 'smtp:[mx.backup.example]:2525', true, true), ('off.example', 'virtual', false, false);
INSERT INTO alias_domain (alias_domain, target_domain) VALUES ('example.net', 'example.org');
INSERT INTO mailbox (username, password, maildir, local_part, domain, active) VALUES ('alice@example.org', '$6$xyz$A6xWUttqNGmYWq2sz8IJ5iJW91/6DIdzRd7lVW1ko/D3CwGgrvne4sRa5gLszUqTGzFThn.OThfhxwLUrb0dl/', 'example.org/alice/', 'alice', 'example.org', true), ('gone@example.org', '$6$x', 'example.org/gone/', 'gone', 'example.org', false);
INSERT INTO alias (address, goto, domain, active) VALUES ('alice@example.org', 'alice@example.org', 'example.org', true), ('team@example.org', 'alice@example.org,bob@example.com', 'example.org', true), ('sales@example.org', 'alice@example.org', 'example.org', true), ('@example.org', 'postmaster@example.com', 'example.org', true), ('old@example.org', 'x@example.com', 'example.org', false);
INSERT INTO dkim (domain_name, selector, private_key) VALUES ('example.org', 's1', 'MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g');
