-- Where `pgevents stream --state postgres` keeps its watermarks, a row a slot. Safe to run again.
-- The role that streams needs USAGE on the schema and SELECT, INSERT and UPDATE on the table.

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
