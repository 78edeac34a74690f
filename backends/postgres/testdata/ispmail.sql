-- The tables of the ISPmail guide.
CREATE TABLE virtual_domains (id serial PRIMARY KEY, name varchar(50) NOT NULL);
CREATE TABLE virtual_users (id serial PRIMARY KEY, domain_id int NOT NULL REFERENCES virtual_domains, email varchar(100) UNIQUE NOT NULL, password varchar(150) NOT NULL, quota bigint NOT NULL DEFAULT 0);
CREATE TABLE virtual_aliases (id serial PRIMARY KEY, domain_id int NOT NULL REFERENCES virtual_domains, source varchar(100) NOT NULL, destination varchar(100) NOT NULL);
INSERT INTO virtual_domains (name) VALUES ('example.org');
INSERT INTO virtual_users (domain_id, email, password) VALUES (1, 'alice@example.org', '{SHA256-CRYPT}$5$fnncsJ9.bBF7e6e1$ettslRzyoEw.BgnQPy/CscyqT0L6XTRwsXau0kzaRg7');
INSERT INTO virtual_aliases (domain_id, source, destination) VALUES (1, 'team@example.org', 'alice@example.org'), (1, 'team@example.org', 'bob@example.com'), (1, '@example.org', 'postmaster@example.com');
