-- Where `pgevents skip add --state postgres` keeps its windows, a row a window. Safe to run again.
-- The role that streams, and whoever adds windows, need USAGE on the schema and SELECT, INSERT and DELETE on the table.

CREATE SCHEMA IF NOT EXISTS pgevents;

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

-- Whoever may keep watermarks may keep windows: a stream reads what another role has added.

DO $$
DECLARE
    keeper regrole;
BEGIN
    FOR keeper IN
        SELECT DISTINCT acl.grantee
        FROM pg_catalog.pg_class AS c,
            pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner))) AS acl
        WHERE c.oid = pg_catalog.to_regclass('pgevents.watermark') AND acl.privilege_type = 'INSERT' AND acl.grantee <> 0
    LOOP
        EXECUTE pg_catalog.format('GRANT SELECT, INSERT, DELETE ON pgevents.skip_window TO %s', keeper);
    END LOOP;
END
$$;
