-- pgevents.skip: marks the transaction it is called in as one to skip. PostgreSQL 12 or later. Safe to run again.
--
--     BEGIN;
--     SELECT pgevents.skip('prices with VAT', ARRAY['public.orders']);
--     UPDATE public.orders SET price = price * 1.19;
--     COMMIT;
--
-- A mark is the first thing in its transaction. Without tables it is for all of them; the patterns are those of
-- --table, and one without a dot means the schema public. See docs/recipes.md.
--
-- Only its owner may call it. To let a role mark its transactions:
--
--     GRANT USAGE ON SCHEMA pgevents TO migrator;
--     GRANT EXECUTE ON FUNCTION pgevents.skip(text, text[]) TO migrator;
--
-- PostgreSQL lets every role call pg_logical_emit_message, and so forge a mark. To end that in this database, as a
-- superuser:
--
--     DO $$
--     DECLARE
--         emit regprocedure;
--     BEGIN
--         FOR emit IN SELECT oid FROM pg_catalog.pg_proc WHERE proname = 'pg_logical_emit_message' LOOP
--             EXECUTE pg_catalog.format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', emit);
--         END LOOP;
--     END
--     $$;
--
-- pgevents.skip goes on working, because it runs as its owner; an owner that is no superuser then needs EXECUTE.

CREATE SCHEMA IF NOT EXISTS pgevents;

CREATE OR REPLACE FUNCTION pgevents.skip(reason text, tables text[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    content bytea;
BEGIN
    IF reason IS NULL OR btrim(reason, E' \t\n\r') = '' OR char_length(reason) > 1000 THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'a reason of 1 to 1000 characters must be given',
            HINT = 'It is what others will find where they look for the changes.';
    END IF;
    IF cardinality(tables) NOT BETWEEN 1 AND 1000
        OR EXISTS (SELECT FROM unnest(tables) AS pattern WHERE pattern IS NULL OR char_length(pattern) NOT BETWEEN 1 AND 260)
    THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'from 1 to 1000 tables must be named, each in 1 to 260 characters',
            HINT = 'Leave tables out, or NULL, to skip the whole transaction.';
    END IF;
    -- UTF-8 whatever the database's encoding is: a logical message is not converted on its way.
    content := convert_to(
        json_build_object(
            'v', 1,
            'reason', reason,
            'tables', CASE WHEN tables IS NOT NULL THEN ARRAY(SELECT unnest(tables)) END,
            'by', session_user,
            'application', current_setting('application_name')
        )::text,
        'UTF8'
    );
    IF octet_length(content) > 65536 THEN
        RAISE program_limit_exceeded USING
            MESSAGE = 'the mark is longer than 65536 bytes',
            HINT = 'Name the tables by fewer patterns.';
    END IF;
    IF txid_current_if_assigned() IS NOT NULL THEN
        RAISE WARNING USING
            MESSAGE = 'this transaction has written something already, and the mark may come too late',
            HINT = 'Call pgevents.skip before anything else.';
    END IF;
    PERFORM pg_logical_emit_message(true, 'pgevents.skip', content);
END
$$;

COMMENT ON FUNCTION pgevents.skip(text, text[]) IS
    'Marks the current transaction as one to skip, as its first statement. Rolled back with its savepoint.';

REVOKE ALL ON FUNCTION pgevents.skip(text, text[]) FROM PUBLIC;
