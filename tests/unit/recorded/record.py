"""Record what both output plug-ins send for one scenario: ``python tests/unit/recorded/record.py DSN``.

Needs an empty database on a server with wal2json. Writes wal2json.txt and pgoutput.txt beside this file, a line
a message: its LSN, a space, its bytes in hex. Run again only to change the scenario: the unit tests decode them.
"""

import sys
from pathlib import Path

import psycopg2

HERE = Path(__file__).parent

TABLES = """
create table orders (id int primary key, status text, amount numeric(12,2), tags jsonb, paid bool,
    weight float8, placed timestamptz, raw bytea, sizes int[], note text);
alter table orders replica identity full;
alter table orders alter note set storage external;
create table keyed (id int primary key, name text, doc text);
alter table keyed alter doc set storage external;
create table pairs (a int, b text, c int, primary key (a, b));
create publication pgevents for all tables;
"""

WAL2JSON = {
    "format-version": "2",
    "include-xids": "1",
    "include-timestamp": "1",
    "include-lsn": "1",
    "include-types": "0",
    "include-type-oids": "1",
    "include-origin": "1",
    "include-pk": "1",
}
PGOUTPUT = {"proto_version": "1", "publication_names": "pgevents", "messages": "true"}

SCENARIO = [
    """insert into orders values (1, 'new', 12.50, '{"src": "web", "n": 1.0}', true, -0.0,
        '2026-11-20 18:02:48.63+00', '\\xdeadbeef', '{1,NULL,3}', repeat('ab', 5000))""",
    "update orders set status = 'paid', amount = 1234567890.01, weight = 1e300",
    "update orders set note = 'short'",
    "delete from orders",
    "insert into keyed values (1, 'Zoë \"x\" \\ \n', repeat('doc', 5000)), (2, null, null)",
    "update keyed set name = 'y' where id = 1",
    "update keyed set id = 3 where id = 2",
    "delete from keyed where id = 3",
    "insert into pairs values (1, 'x', 5); update pairs set c = 6; update pairs set b = 'y'; delete from pairs",
    "truncate orders, pairs",
    "select pg_logical_emit_message(true, 'audit', 'hello')",
    "select pg_logical_emit_message(false, 'lone', 'bye')",
    "insert into keyed values (9, 'flushes the messages before it', null)",
]


def main(dsn: str) -> None:
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(TABLES)
        for plugin in ("wal2json", "pgoutput"):
            cursor.execute("select pg_create_logical_replication_slot(%s, %s)", (f"record_{plugin}", plugin))
        for statement in SCENARIO:
            cursor.execute(statement)
        for plugin, options in (("wal2json", WAL2JSON), ("pgoutput", PGOUTPUT)):
            cursor.execute(
                "select lsn - '0/0', encode(data, 'hex') from"
                " pg_logical_slot_get_binary_changes(%s, null, null, variadic %s)",
                (f"record_{plugin}", [word for option in options.items() for word in option]),
            )
            lines = "".join(f"{lsn} {data}\n" for lsn, data in cursor.fetchall())
            (HERE / f"{plugin}.txt").write_text(lines)
            cursor.execute("select pg_drop_replication_slot(%s)", (f"record_{plugin}",))


if __name__ == "__main__":
    main(sys.argv[1])
