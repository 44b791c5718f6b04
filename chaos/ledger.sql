-- Five tables of one shape, and the ledger: whatever a transaction does to a row of theirs, a trigger writes down in
-- the same transaction, in the order it was done. What is rolled back is in neither.

CREATE SCHEMA audit;
CREATE SEQUENCE audit.op;
CREATE SEQUENCE audit.key START 1000000;

CREATE TABLE audit.transaction (
    token bigint PRIMARY KEY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id()
);

-- seq is taken while the row is locked, so for one key its order is that of the commits.
CREATE TABLE audit.ledger (
    seq bigserial PRIMARY KEY,
    xid bigint NOT NULL DEFAULT mod(pg_current_xact_id()::text::bigint, 4294967296),
    tab text NOT NULL,
    op text NOT NULL,
    key bigint,
    old_key bigint,
    op_id bigint
);

CREATE FUNCTION audit.write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO audit.ledger (tab, op, key, op_id) VALUES (TG_TABLE_NAME, 'insert', NEW.id, NEW.op);
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO audit.ledger (tab, op, key, old_key, op_id)
        VALUES (TG_TABLE_NAME, 'update', NEW.id, OLD.id, NEW.op);
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO audit.ledger (tab, op, key, old_key) VALUES (TG_TABLE_NAME, 'delete', OLD.id, OLD.id);
    ELSE
        INSERT INTO audit.ledger (tab, op) VALUES (TG_TABLE_NAME, 'truncate');
    END IF;
    RETURN NULL;
END $$;

-- A transactional logical message with its line in the ledger.
CREATE FUNCTION audit.say(prefix text, filler text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    number bigint := nextval('audit.op');
BEGIN
    INSERT INTO audit.ledger (tab, op, key) VALUES (prefix, 'message', number);
    PERFORM pg_logical_emit_message(true, prefix, number || filler);
END $$;

CREATE TABLE account (
    id bigint PRIMARY KEY,
    op bigint NOT NULL DEFAULT nextval('audit.op'),
    version integer NOT NULL DEFAULT 1,
    amount numeric(14, 2),
    note text,
    tags jsonb,
    at timestamptz DEFAULT now(),
    body text
);
ALTER TABLE account ALTER body SET STORAGE EXTERNAL;
CREATE TABLE document (LIKE account INCLUDING ALL);
ALTER TABLE document REPLICA IDENTITY FULL;
CREATE TABLE bulk (LIKE account INCLUDING ALL);
CREATE TABLE scratch (LIKE account INCLUDING ALL);
CREATE TABLE side (LIKE account INCLUDING ALL);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['account', 'document', 'bulk', 'scratch', 'side'] LOOP
        EXECUTE format('CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON %I
            FOR EACH ROW EXECUTE FUNCTION audit.write()', name);
        EXECUTE format('CREATE TRIGGER audit_truncate AFTER TRUNCATE ON %I
            FOR EACH STATEMENT EXECUTE FUNCTION audit.write()', name);
    END LOOP;
END $$;
