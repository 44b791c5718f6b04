-- The role that PGEvents connects as, with no more rights than it needs. Run it in each database that is streamed,
-- as a superuser, or on a managed service as its administrator; it may be run again:
--
--     psql --dbname shop --file deploy/sql/role.sql
--     psql --dbname shop --command '\password pgevents'
--
-- The second line asks for the password and sends it hashed. A password in a script ends up in a log.

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'pgevents') THEN
        RETURN; -- as it is: what was granted or set on purpose stays
    END IF;
    CREATE ROLE pgevents LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
    -- Amazon RDS and Aurora let nobody give the attribute away, and have a role that stands for it.
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'rds_replication') THEN
        GRANT rds_replication TO pgevents;
    ELSE
        ALTER ROLE pgevents REPLICATION;
    END IF;
END
$$;

-- REPLICATION lets the role create, read and drop slots. Two things follow from it. Through a slot of wal2json it sees
-- every change of every table of any database it may connect to: SELECT is not asked for. And a slot keeps WAL until
-- it is read or dropped. So guard the password like that of a superuser, and let pg_hba.conf take the role only from
-- where PGEvents runs:
--
--     hostssl  shop  pgevents  192.0.2.10/32  scram-sha-256
--
-- (A logical replication connection is matched by the name of its database, not by the word replication.)

DO $$
BEGIN
    EXECUTE pg_catalog.format('GRANT CONNECT ON DATABASE %I TO pgevents', pg_catalog.current_database());
END
$$;

-- PGEvents reads no table of yours, so there is no GRANT SELECT and no USAGE on your schemas. What it asks the catalog
-- (tables, types, keys, slots, publications, settings) every role may read.

-- A slot of pgoutput also needs a publication. The role may not create one: FOR TABLE takes the tables' owner who may
-- also CREATE in the database, FOR ALL TABLES a superuser. As one of them, before the slot is created:
--
--     CREATE PUBLICATION pgevents FOR TABLE public.orders, public.customers;

-- The watermark of `--state postgres`, as in migrations/0001_watermark.sql. The role may not create or alter it.

CREATE SCHEMA IF NOT EXISTS pgevents;

CREATE TABLE IF NOT EXISTS pgevents.watermark (
    slot      text        PRIMARY KEY,
    system_id text        NOT NULL,
    timeline  integer     NOT NULL,
    database  text        NOT NULL,
    plugin    text        NOT NULL,
    end_lsn   pg_lsn      NOT NULL,
    gaps      jsonb       NOT NULL DEFAULT '[]',
    saved_at  timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE pgevents.watermark IS
    'Everything before end_lsn was confirmed by the sink. Written before the slot is acknowledged; never published.';

GRANT USAGE ON SCHEMA pgevents TO pgevents;
GRANT SELECT, INSERT, UPDATE ON pgevents.watermark TO pgevents;

-- The windows of `pgevents skip add --state postgres`, as in migrations/0003_skip_window.sql.

CREATE TABLE IF NOT EXISTS pgevents.skip_window (
    slot     text        NOT NULL,
    name     text        NOT NULL,
    number   bigint      GENERATED ALWAYS AS IDENTITY,
    rule     jsonb       NOT NULL,
    added_by text        NOT NULL,
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (slot, name)
);

COMMENT ON TABLE pgevents.skip_window IS
    'Transactions that a person asked to skip, as keys of [[skip]]. Written by pgevents skip; never published.';

GRANT SELECT, INSERT, DELETE ON pgevents.skip_window TO pgevents;
