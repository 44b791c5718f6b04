"""Conditions of every kind on PostgreSQL 15: it takes what is pushed, and says of it what the stream says."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import cycle

import psycopg2
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg2 import sql

from pgevents.condition import Condition, ConditionError
from pgevents.demo.postgres import Postgres
from pgevents.postgres import Sql
from pgevents.publication_plan import Plan, Published, plan
from pgevents.rule import Rules
from pgevents.rule_catalog import tables
from pgevents.rules import parse_rules
from pgevents.settings import Settings
from tests.integration.condition_grammar import COLUMNS, DOMAINS, TYPES, VALUES, conditions
from tests.integration.streaming import Json, Recording, ask, run

VERSION = 150_000
PATTERNS = 40

# Columns besides those of the grammar, each with values that take turns.
OTHERS = {
    "nm": ("name", ["a", "b"]),
    "nm2": ("name", ["a", "a", "b"]),
    "oi": ("oid", ["0", "4294967295"]),
    "oi2": ("oid", ["0"]),
    "ch": ('"char"', ["a", ""]),
    "bt": ("bit(3)", ["101"]),
    "ls": ("pg_lsn", ["0/0", "FFFFFFFF/FFFFFFFF"]),
    "x8": ("xid8", ["7"]),
    "ma": ("macaddr", ["08:00:2b:01:02:03"]),
    "ne": ("inet", ["10.0.0.1", "10.0.0.0/8", "::1"]),
    "r": ("int4range", ["[1,5)", "empty", "(,)"]),
    "r2": ("int4range", ["[1,4]", "empty"]),
    "va": ("varchar[]", ["{a,b}", "{}"]),
    "va2": ("varchar[]", ["{a,b}", "{NULL}"]),
    "tza": ("timestamptz[]", ["{infinity}", "{2020-01-01 00:00+00}"]),
    "v2": ("varchar", ["a", "AB", "abc"]),
    "jb2": ("jsonb", ['{"a": 1.0}', "5", '{"a": 1, "b": "x"}']),
    "tc": ('text COLLATE "C"', ["a", "b"]),
    "tp": ('text COLLATE "POSIX"', ["a", "c"]),
    "own": ("text COLLATE folded", ["a", "A"]),
}

PUSHED = [
    "new.i4 > 5",
    "new.i2 IN (1, 100000)",
    "new.i4 IN (1, 2.5, '7')",
    "new.i8 >= 9007199254740993",
    "new.i8 > new.i4 AND new.i4 <> new.i2",
    "new.i4 > 5 * 60 - 299",
    "new.n > 100.5",
    "new.n BETWEEN -2.5 AND '1e30'",
    "new.n = 'NaN' OR new.n = 'Infinity'",
    "new.n <> new.i8",
    "-new.n > 5 OR abs(new.n) > 100",
    "new.f4 > 1.1",
    "new.f4 <> new.f8",
    "new.f8 IN (0.5, 1.5, 'NaN')",
    "new.f8 > new.i8",
    "-new.f8 < 2 AND abs(new.f4) > 0.1",
    "coalesce(new.i2, new.i8, 0) > 5",
    "coalesce(new.f4, new.i4) > 1",
    "coalesce(new.n, new.i4) > 1",
    "new.b",
    "NOT new.b IS TRUE AND new.b IS NOT UNKNOWN",
    "new.b = (new.i4 > 3)",
    "(new.i4 > 3) IN (TRUE, NULL)",
    "new.t = 'ab' OR new.t <> 'a'",
    "new.t LIKE 'a%'",
    "new.t NOT LIKE '%!_%' ESCAPE '!'",
    "new.t LIKE 'a\\_c' OR new.t LIKE '_' ESCAPE ''",
    "new.c LIKE 'a%'",
    "new.t COLLATE \"C\" < 'b'",
    "new.t IN ('a', 'ab', NULL)",
    "new.v IN ('a', 'ab', 'AB')",
    "(new.v) NOT IN ('a', 'b'::text)",
    "new.v IN ('a')",
    "new.t IN ('a'::varchar, 'b')",
    "new.c IN ('a', 'ab ')",
    "new.c = new.t OR new.v = new.c OR new.v = new.t",
    "coalesce(new.v, new.t, 'x') <> 'a'",
    "coalesce(new.c, new.t) = 'ab'",
    "length(new.t) > 2 AND length(new.c) < 4 OR length(new.by) = 1",
    "left(new.t, 1) = 'a' OR left(new.v, -1) = 'a'",
    "left(new.t, new.i4) = 'a' OR left(new.c, new.i2) <> ''",
    "left(new.t, -2147483648) = ''",
    "new.d > '2020-01-01'",
    "new.d >= new.ts",
    "new.d IN (timestamp '2020-01-01', '2020-06-15')",
    "new.ts > '1999-12-31' AND new.ts <= 'infinity'",
    "new.ts >= date '1999-12-31'",
    "new.tz >= '2020-01-01'",
    "new.tz BETWEEN '2000-01-01 08:59:59+09' AND timestamptz 'infinity'",
    "new.tz NOT IN ('2020-01-01 00:00', '2020-06-15')",
    "new.tm > '12:00'",
    "new.u IN ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'ffffffff-ffff-ffff-ffff-ffffffffffff')",
    "new.by > '\\x00'",
    "new.jb ->> 'a' = '1' OR new.jb -> 'a' ->> 'b' IS NULL",
    "new.jb -> 'a' = new.jb2 -> 'a' OR new.jb <> new.jb2",
    "new.jb ->> -1 IN ('x', '5')",
    "new.j IS NULL",
    "new.ia IS NOT DISTINCT FROM new.ia",
    "new.va <> new.va2 OR new.tza IS DISTINCT FROM new.tza",
    "new.nm = new.nm2 OR new.oi <> new.oi2",
    "new.ch = new.ch AND new.bt = new.bt AND new.ls = new.ls AND new.x8 = new.x8 AND new.ma = new.ma",
    "new.r = new.r2 OR new.ne IS DISTINCT FROM new.ne",
    "new.tc = 'a' OR new.tc LIKE 'b%'",
    "new.tc <> new.t",
    'new."Odd name" IS DISTINCT FROM 1 AND TRUE',
]

# On a row of these tables PostgreSQL raises an error for each.
FAILING = [
    "10 / new.i4 > 1",
    "new.i4 % 0 = 1",
    "new.i4 + 2147483647 > 5",
    "new.i2 - 32767::int2 > 0",
    "new.n * 1e100000 * 1e100000 > 1",
    "new.f8 * 10 > 1",
    "-new.i4 > 5",
    "-new.i2 > 5",
    "abs(new.i8) > 5",
    "abs(coalesce(new.i4, 0)) > 5",
    "new.n > new.f8",
    "new.n IN (1.5, 1.5::float8)",
    "coalesce(new.n, new.f4) > 1",
    "new.n IS DISTINCT FROM new.f4",
    "coalesce(new.d, new.ts) > '2020-01-01'",
    "new.j ->> 'a' = 'x'",
    "new.j -> 'a' ->> 0 = 'x'",
    "new.t::int > 5",
    "new.tc = new.tp",
]

KEPT = {
    "new.tz > new.ts": "it compares timestamptz with date or timestamp",
    "new.d = new.tz": "it compares timestamptz with date or timestamp",
    "new.d NOT IN (timestamptz '2020-01-01', '2020-06-15')": "it compares timestamptz with date or timestamp",
    "coalesce(new.ts, new.tz) > '2020-01-01'": "it compares timestamptz with date or timestamp",
    "new.tz IS DISTINCT FROM date '2020-01-01'": "it compares timestamptz with date or timestamp",
    "new.own = 'a'": "own has a user-defined collation",
    "new.own COLLATE \"C\" = 'a'": "own has a user-defined collation",
    "new.own IS NULL": "own has a user-defined collation",
    "lower(new.t) = 'a'": "it folds letters",
    "upper('a') = new.t": "it folds letters",
    "new.t ILIKE 'a%'": "it folds letters",
    "coalesce(new.v, new.v2) IN ('a', 'b')": "PostgreSQL takes no IN of character varying but of a column",
    "new.i4::text = '1'": "it has a cast",
    "new.tz::date > '2020-01-01'": "it has a cast",
    "new.i4 = old.i4": "it asks for old",
    "new.di > 1": "di is of a user-defined type",
}


@pytest.fixture(scope="module")
def dsn(postgres15: Postgres) -> Iterator[str]:
    """A database with the table ``pattern``, of which those with a filter are copies, and with rows for them."""
    name = "publication_conditions"
    with closing(psycopg2.connect(postgres15.dsn())) as admin:
        admin.autocommit = True
        admin.cursor().execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
        found = postgres15.dsn(name)
        run(found, f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'")
        _create(found)
        yield found
        drop_slots(found)
        admin.cursor().execute(f"DROP DATABASE {name} WITH (FORCE)")


def _create(dsn: str) -> None:
    run(dsn, "CREATE COLLATION folded (provider = icu, locale = 'en-u-ks-level2', deterministic = false)")
    run(dsn, *(f"CREATE DOMAIN {base}_domain AS {base}" for base in set(DOMAINS.values())))
    types = {name: type for name, (type, _) in COLUMNS.items()} | {name: type for name, (type, _) in OTHERS.items()}
    columns = "".join(f", {_quoted(name)} {type}" for name, type in types.items())
    run(dsn, f"CREATE TABLE pattern (nr integer{columns})")
    values = {name: VALUES[oid] for name, oid in TYPES.items()} | {name: each for name, (_, each) in OTHERS.items()}
    rows = zip(range(PATTERNS), *(cycle([None, *each]) for each in values.values()), strict=False)
    with closing(psycopg2.connect(f"{dsn} options='-c timezone=UTC'")) as connection, connection:
        row = sql.SQL("INSERT INTO pattern VALUES (%s{})").format(sql.SQL(", %s") * len(types))
        connection.cursor().executemany(row, list(rows))


def _quoted(name: str) -> str:
    return f'"{name}"'


def rules_of(texts: Sequence[str]) -> Rules:
    """A filter for each condition, on a table of its own. What fails in the stream is published."""
    filters = [
        {"name": f"f{at}", "tables": [f"t{at}"], "when": text, "on_missing": "publish"}
        for at, text in enumerate(texts)
    ]
    return parse_rules({"filter": filters}, "shop.toml")


def make_tables(dsn: str, count: int) -> None:
    run(dsn, "DROP PUBLICATION IF EXISTS pgevents")
    names = ask(dsn, r"SELECT string_agg(tablename, ', ') FROM pg_tables WHERE tablename ~ '^t\d+$'")
    if names:
        run(dsn, f"DROP TABLE {names}")
    for at in range(count):
        run(dsn, f"CREATE TABLE t{at} (LIKE pattern)", f"ALTER TABLE t{at} REPLICA IDENTITY FULL")


def planned(dsn: str, texts: Sequence[str]) -> Plan:
    with Sql(dsn) as connection:
        found = [table for table in tables(connection) if table.name != "pattern"]
    return plan(Settings(rules=rules_of(texts)), found, Published(), version=VERSION)


def applied(dsn: str, texts: Sequence[str]) -> Plan:
    """The plan for a new table for each condition, which PostgreSQL takes."""
    make_tables(dsn, len(texts))
    made = planned(dsn, texts)
    with Sql(dsn) as connection:
        connection.run("; ".join(made.statements))
    return made


def both(dsn: str, texts: Sequence[str], rows: Sequence[int]) -> tuple[list[Json], list[Json]]:
    """What the stream publishes of the same changes without, and with the publication that was applied."""
    drop_slots(dsn)
    recording = Recording(dsn, plugins=("pgoutput",), publication="everything")
    columns = ", ".join(_quoted(name) for name in (*COLUMNS, *OTHERS))
    for at in range(len(texts)):
        inserts = [f"INSERT INTO t{at} SELECT * FROM pattern WHERE nr = {row}" for row in rows]
        updates = [
            f"UPDATE t{at} SET ({columns}) = (SELECT {columns} FROM pattern WHERE nr = {(row * 7 + 3) % PATTERNS})"
            f" WHERE nr = {row}"
            for row in rows
        ]
        recording.run(*inserts, *updates, f"DELETE FROM t{at}")
    rules = rules_of(texts)
    whole = recording.events("pgoutput", rules=rules)
    recording.publication = "pgevents"
    return whole, recording.events("pgoutput", rules=rules)


def drop_slots(dsn: str) -> None:
    run(
        dsn,
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()",
    )


def alike(events: Sequence[Json]) -> list[tuple[str, Json | None, bool]]:
    """But for numbers, and for updates that moved a row in."""
    return [(event["table"], event["new"], event["op"] == "delete") for event in events]


def test_what_is_pushed_is_taken_and_publishes_the_same(dsn: str) -> None:
    texts = [f"({text}) AND new.nr >= 0" for text in PUSHED]  # some are true of deletes

    made = applied(dsn, texts)
    whole, pushed = both(dsn, texts, range(0, PATTERNS, 5))

    assert made.kept == []
    assert len(made.pushed) == len(PUSHED)
    assert alike(pushed) == alike(whole)
    never = [text for at, text in enumerate(PUSHED) if f"t{at}" not in {event["table"] for event in whole}]
    assert not never, "\n".join(never)


@settings(max_examples=3, phases=[Phase.generate], deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(conditions(), min_size=20, max_size=20),
    st.lists(st.integers(0, PATTERNS - 1), min_size=4, max_size=5, unique=True),
)
def test_whatever_the_condition_the_stream_publishes_the_same(dsn: str, drawn: list[str], rows: list[int]) -> None:
    texts = [text for each in drawn if fits(text := each.replace("old.", "new."))]

    applied(dsn, texts)
    whole, pushed = both(dsn, texts, rows)

    assert alike(pushed) == alike(whole)


def fits(text: str) -> bool:
    try:
        Condition.parse(text).bind(TYPES)
    except ConditionError:
        return False
    return True


def test_what_may_fail_on_a_row_stays_in_the_stream(dsn: str) -> None:
    make_tables(dsn, len(FAILING))

    made = planned(dsn, FAILING)

    assert made.pushed == []
    assert [reason for reason in made.kept if "fail" not in reason] == []
    assert [text for text in FAILING if not fails(dsn, text)] == []


def fails(dsn: str, text: str) -> bool:
    """Whether PostgreSQL raises an error for a row."""
    try:
        ask(dsn, f"SELECT count({text.replace('new.', 'pattern.')}) FROM pattern")
    except (psycopg2.DataError, psycopg2.errors.IndeterminateCollation):
        return True
    return False


def test_what_postgresql_refuses_or_says_otherwise_stays_in_the_stream(dsn: str) -> None:
    make_tables(dsn, len(KEPT))

    made = planned(dsn, list(KEPT))

    assert made.pushed == []
    said = {each.partition(": ")[0]: each for each in made.kept}
    assert [why for at, why in enumerate(KEPT.values()) if f"filter f{at}: {why}" not in said[f"public.t{at}"]] == []
