-- Lets a database of any schema tell Tabard what changed, so that answers are
-- cached and never old. Load it once with psql into the schema of the tables, and
-- name the tables behind the queries, as in the last line.
--
-- In the configuration file of the table, say
--
--     notify tabard
--
-- PgBouncer passes notifications on in session mode only.

-- tabard_notify tells which answers a statement changed: NOTIFY on channel
-- tabard, in lines "SERVICE[,SERVICE...] KEY"; a line without key means every
-- key. Its arguments are pairs: services, and the column of their key, or '' when
-- no column is. It takes the rows from the transition tables old_rows and
-- new_rows. Beyond 100 keys, or what a notification can carry, all keys are meant.
CREATE OR REPLACE FUNCTION tabard_notify() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed text;
    payload text := '';
    line    text;
    seen    bigint;
    keys    text[];
BEGIN
    changed := CASE TG_OP
        WHEN 'INSERT' THEN 'SELECT %1$I::text AS key FROM new_rows'
        WHEN 'DELETE' THEN 'SELECT %1$I::text AS key FROM old_rows'
        WHEN 'UPDATE' THEN 'SELECT %1$I::text AS key FROM old_rows UNION ALL SELECT %1$I::text FROM new_rows'
    END;
    FOR i IN 0 .. TG_NARGS - 2 BY 2 LOOP
        line := TG_ARGV[i];
        IF changed IS NOT NULL AND TG_ARGV[i + 1] <> '' THEN
            EXECUTE format('SELECT count(*), array_agg(DISTINCT key) FILTER (WHERE key <> '''' AND key !~ ''[\r\n]'')'
                || ' FROM (' || changed || ' LIMIT 1001) AS changed', TG_ARGV[i + 1])
                INTO seen, keys;
            CONTINUE WHEN seen = 0 OR keys IS NULL;
            IF seen <= 1000 AND cardinality(keys) <= 100 THEN
                line := line || ' ' || array_to_string(keys, E'\n' || line || ' ');
            END IF;
        END IF;
        IF octet_length(line) > 7900 THEN
            line := TG_ARGV[i];
        END IF;
        IF octet_length(payload) + octet_length(line) > 7900 THEN
            PERFORM pg_notify('tabard', payload);
            payload := '';
        END IF;
        payload := payload || line || E'\n';
    END LOOP;
    IF payload <> '' THEN
        PERFORM pg_notify('tabard', payload);
    END IF;
    RETURN NULL;
END
$$;

-- tabard_watch puts tabard_notify on a table, with its arguments. It replaces
-- what it put there before.
CREATE OR REPLACE FUNCTION tabard_watch(target regclass, VARIADIC pairs text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    arguments text;
    event     text;
    rows      text;
BEGIN
    IF cardinality(pairs) % 2 <> 0 THEN
        RAISE EXCEPTION 'tabard_watch wants pairs: services, and the column of their key';
    END IF;
    SELECT string_agg(quote_literal(p), ', ') INTO arguments FROM unnest(pairs) AS p;
    FOR event, rows IN SELECT * FROM (VALUES
        ('insert', 'REFERENCING NEW TABLE AS new_rows'),
        ('update', 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'),
        ('delete', 'REFERENCING OLD TABLE AS old_rows'),
        ('truncate', '')) AS triggers
    LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS tabard_%s ON %s', event, target);
        EXECUTE format('CREATE TRIGGER tabard_%s AFTER %s ON %s %s FOR EACH STATEMENT EXECUTE FUNCTION tabard_notify(%s)',
            event, event, target, rows, arguments);
    END LOOP;
END
$$;

-- One line per table, for example:
--
--     SELECT tabard_watch('mailbox', 'credentials,userinfo,string', 'username');
--     SELECT tabard_watch('alias', 'alias,mailaddrmap', '');
--
-- Name a column only if the query answers its value and nothing else: a query
-- that falls back on a catch-all address, or looks through a domain alias, gives
-- other keys other answers too. Then write '', which means every key.
