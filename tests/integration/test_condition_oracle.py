"""PostgreSQL as the oracle: conditions on rows say what the server says, errors included."""

import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from psycopg2 import sql
from psycopg2.extensions import cursor

from pgevents.condition import Condition, ConditionError, ConditionFailed, kind
from pgevents.demo.postgres import Postgres
from tests.integration.condition_grammar import COLUMNS, DOMAINS, TYPES, conditions, rows, wild_conditions

DATABASE = "condition_oracle"
EXAMPLES = int(os.environ.get("PGEVENTS_ORACLE_EXAMPLES", "50"))
Row = dict[str, Any]

TRY = """
CREATE FUNCTION try(condition text, new probe, old probe) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    found boolean;
BEGIN
    -- OFFSET 0 keeps the planner from folding the rows into the condition.
    EXECUTE 'SELECT ' || condition || ' FROM (SELECT ($1).* OFFSET 0) new, (SELECT ($2).* OFFSET 0) old'
        INTO found USING new, old;
    RETURN coalesce(found::text, 'null');
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$
"""
# format() calls a type's output function, as the output plug-ins do; a cast to text does not.
SHOWN = """
CREATE FUNCTION shown(shown probe) RETURNS text[] LANGUAGE sql AS $$
    SELECT ARRAY[{}]
$$
"""


@pytest.fixture(scope="module")
def oracle(postgres15: Postgres) -> Iterator[cursor]:
    """A database whose letters are folded as Unicode says, with the table ``probe``."""
    with closing(psycopg2.connect(postgres15.dsn())) as admin:
        admin.autocommit = True
        admin.cursor().execute(
            f"CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'"
        )
        with closing(psycopg2.connect(postgres15.dsn(DATABASE))) as connection:
            connection.autocommit = True
            found = connection.cursor()
            found.execute("SET timezone = 'UTC'; SET datestyle = 'ISO'")
            _create(found)
            yield found
        admin.cursor().execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


def _create(found: cursor) -> None:
    for base in set(DOMAINS.values()):
        found.execute(f"CREATE DOMAIN {base}_domain AS {base}")
    columns = [sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(type)) for name, (type, _) in COLUMNS.items()]
    found.execute(sql.SQL("CREATE TABLE probe ({})").format(sql.SQL(", ").join(columns)))
    found.execute(TRY)
    one = "CASE WHEN (shown).{0} IS NOT NULL THEN format('%s', (shown).{0}) END"
    parts = [sql.SQL(one).format(sql.Identifier(name)) for name in COLUMNS]
    found.execute(sql.SQL(SHOWN).format(sql.SQL(", ").join(parts)))


def asked(found: cursor, cases: list[tuple[str, Row, Row]]) -> list[tuple[str, Row, Row]]:
    """For each condition and pair of rows what PostgreSQL says, and the rows as pgoutput prints them."""
    row = sql.SQL("ROW({})::probe").format(sql.SQL(", ").join([sql.Placeholder()] * len(COLUMNS)))
    one = sql.SQL("(%s, {}, {})").format(row, row)
    values: list[Any] = []
    for condition, new, old in cases:
        values += [condition, *(each[name] for each in (new, old) for name in COLUMNS)]
    found.execute(
        sql.SQL("SELECT try(c, n, o), shown(n), shown(o) FROM (VALUES {}) AS cases(c, n, o)").format(
            sql.SQL(", ").join([one] * len(cases))
        ),
        values,
    )
    return [
        (verdict, dict(zip(COLUMNS, new, strict=True)), dict(zip(COLUMNS, old, strict=True)))
        for verdict, new, old in found.fetchall()
    ]


def as_wal2json(row: Row) -> Row:
    """A row as wal2json gives it: numbers and booleans as JSON, bytea without its mark, and domains as text."""
    return {name: value if name in DOMAINS else _typed(value, TYPES[name]) for name, value in row.items()}


def _typed(text: str | None, oid: int) -> Any:
    if text is None or (oid in kind.FLOATS and text in ("NaN", "Infinity", "-Infinity")):
        return text
    if oid == kind.BYTEA:
        return text.removeprefix("\\x")
    if oid == kind.BOOL:
        return text == "t"
    return int(text) if oid in (*kind.INTEGERS, kind.OID) else float(text) if oid in kind.FLOATS else text


def verdict(condition: str, new: Row, old: Row) -> str:
    """What we say, in the words of ``try``: ``error`` for a row that fails, ``refused`` at the start."""
    try:
        value = Condition.parse(condition).bind(TYPES)(new, old)
    except ConditionError:
        return "refused"
    except ConditionFailed:
        return "error"
    return {True: "true", False: "false", None: "null"}[value]


def agreed(theirs: str, ours: str) -> bool:
    """What PostgreSQL's parser refuses (class 42) is refused, and so is already a constant that fails."""
    if theirs in ("true", "false", "null"):
        return ours == theirs
    return ours == "refused" or (ours == "error" and not theirs.startswith("42"))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(conditions(), rows, rows), min_size=10, max_size=10))
def test_a_condition_says_what_postgresql_says(oracle: cursor, cases: list[tuple[str, Row, Row]]) -> None:
    answers = asked(oracle, cases)

    for (condition, *_), (theirs, new, old) in zip(cases, answers, strict=True):
        for rows_read in ((new, old), (as_wal2json(new), as_wal2json(old))):
            ours = verdict(condition, *rows_read)
            if not agreed(theirs, ours):
                note(f"{condition}\nnew={rows_read[0]}\nold={rows_read[1]}")
            assert agreed(theirs, ours), f"PostgreSQL says {theirs}, we say {ours}: {condition}"


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(wild_conditions(), rows, rows), min_size=10, max_size=10))
def test_what_postgresql_refuses_is_refused(oracle: cursor, cases: list[tuple[str, Row, Row]]) -> None:
    for (condition, *_), (theirs, new, old) in zip(cases, asked(oracle, cases), strict=True):
        ours = verdict(condition, new, old)

        assert ours == "refused" or agreed(theirs, ours), f"PostgreSQL says {theirs}, we say {ours}: {condition}"


@pytest.mark.parametrize(
    ("condition", "rows_kept"),
    [
        ("new.id > 1 AND new.name LIKE 'a%' -- of all", [2]),
        ('new."Odd name" IN (1, -2) OR new.name IS NULL', [1, 3]),
        ("new.id BETWEEN 2 AND 3 AND left(new.name, 2) IS DISTINCT FROM 'ab'", [3]),
        (
            "new.doc -> 'n' ->> 0 = '2' AND coalesce(new.id, 0) = 1 AND new.at < timestamptz '2026-01-01 00:00Z'",
            [1],
        ),
    ],
)
def test_a_publication_takes_the_row_filter_and_means_the_same(
    database15: str, condition: str, rows_kept: list[int]
) -> None:
    types = {"id": kind.INT4, "name": kind.TEXT, "Odd name": kind.INT4, "doc": kind.JSONB, "at": kind.TIMESTAMPTZ}
    filtered = Condition.parse(condition).as_row_filter(types)
    with closing(psycopg2.connect(database15)) as connection:
        connection.autocommit = True
        found = connection.cursor()
        found.execute("SET timezone = 'UTC'")
        found.execute('CREATE TABLE t (id int, name text, "Odd name" int, doc jsonb, at timestamptz)')
        found.execute(
            "INSERT INTO t VALUES (1, NULL, 5, '{\"n\": 2}', '2025-01-01'), (2, 'abc', 6, '{}', NULL),"
            " (3, 'B', -2, NULL, 'infinity')"
        )
        found.execute(f"CREATE PUBLICATION p FOR TABLE t WHERE ({filtered}) WITH (publish = 'insert')")
        found.execute(f"SELECT id FROM t WHERE {filtered} ORDER BY id")
        kept = [id for (id,) in found.fetchall()]
        found.execute('SELECT id::text, name, "Odd name"::text, doc::text, at::text FROM t ORDER BY id')
        rows_read = [dict(zip(types, row, strict=True)) for row in found.fetchall()]

    test = Condition.parse(condition).bind(types)

    assert kept == rows_kept == [int(row["id"]) for row in rows_read if test(row, None)]
