"""The database's own count of committed changes: a ledger that triggers fill in the same transactions."""

from collections import Counter

from psycopg2.extensions import connection

EXCLUDED = "ledger.*"
"""The pattern that keeps the ledger itself out of the stream."""

ChangeKey = tuple[str, str, str]
"""Table, operation and primary key of one change."""

# A trigger writes inside the transaction it counts, so what is rolled back is never counted. PostgreSQL's
# statistics views would count it too, and late.
_SCHEMA = """
CREATE SCHEMA ledger;
CREATE TABLE ledger.change (seq bigserial PRIMARY KEY, tab text NOT NULL, op text NOT NULL, row_key text NOT NULL);
CREATE FUNCTION ledger.count_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    INSERT INTO ledger.change (tab, op, row_key) VALUES (TG_TABLE_NAME, 'delete', OLD.id::text);
  ELSE
    INSERT INTO ledger.change (tab, op, row_key) VALUES (TG_TABLE_NAME, lower(TG_OP), NEW.id::text);
  END IF;
  RETURN NULL;
END $$;
"""
_TRIGGER = """
CREATE TRIGGER ledger AFTER INSERT OR UPDATE OR DELETE ON {table}
FOR EACH ROW EXECUTE FUNCTION ledger.count_change();
"""


def keep_ledger_of(database: connection, *tables: str) -> None:
    """Count every change of ``tables`` from now on; each has a primary key named id."""
    with database, database.cursor() as cursor:
        cursor.execute(_SCHEMA)
        for table in tables:
            cursor.execute(_TRIGGER.format(table=table))


def committed_changes(database: connection) -> Counter[ChangeKey]:
    """Every committed change so far, as the database has it."""
    with database, database.cursor() as cursor:
        cursor.execute("SELECT tab, op, row_key FROM ledger.change")
        return Counter(cursor.fetchall())
