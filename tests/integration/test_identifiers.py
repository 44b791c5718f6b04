"""Names that would be something else if they were not quoted: of publications, schemas, tables and columns."""

import re

import pytest

from pgevents import publication
from pgevents.errors import SourceRefused
from pgevents.postgres import Sql, quoted
from pgevents.routing import escaped
from tests.integration.role import as_role
from tests.integration.streaming import Recording, ask, run

LONGEST = 63

HOSTILE = [
    'quote"quote',
    '"',
    "apostrophe's",
    "semi; DROP TABLE victim; --",
    '"; DROP TABLE victim; --',
    "'; DROP TABLE victim; --",
    "back\\slash\\",
    "com,ma,s",
    "dots.in.it",
    " spaces around ",
    "(paren) /* comment */ -- end",
    "%s %(x)s %% {0} $1 :name",
    "* ? # [glob]",
    "SELECT",
    "Größe ☃ 日本",
    "tab\tand\nline",
    "é" * (LONGEST // 2) + "x",
    "x" * LONGEST,
]


def pattern_of(name: str) -> str:
    """The glob that matches nothing but the name."""
    return re.sub(r"([*?[])", r"[\1]", name)


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
@pytest.mark.fault("F100")
def test_a_table_of_any_name_is_streamed_by_both_plug_ins(database15: str, name: str) -> None:
    table = quoted(name, name)
    run(
        database15,
        "CREATE TABLE victim (id int PRIMARY KEY)",
        f"CREATE SCHEMA {quoted(name)} CREATE TABLE {table} (id int PRIMARY KEY, {quoted(name)} text)",
        f"ALTER TABLE {table} REPLICA IDENTITY FULL",
    )
    recording = Recording(database15, publication=name)

    recording.run(
        f"INSERT INTO {table} VALUES (1, 'a')",
        f"UPDATE {table} SET {quoted(name)} = 'b'",
        "INSERT INTO victim VALUES (1)",
    )
    tables = (pattern_of(f"{name}.{name}"),)
    inserted, updated = recording.equal_events(tables=tables)
    envelopes = recording.envelopes("pgoutput", tables=tables)

    assert (inserted["schema"], inserted["table"], inserted["new"]) == (name, name, {"id": 1, name: "a"})
    assert (updated["old"], updated["changed"]) == ({"id": 1, name: "a"}, [name])
    assert envelopes[0].address.topic == f"{escaped(name)}.{escaped(name)}.insert"
    assert ask(database15, "SELECT count(*) FROM victim") == 1


@pytest.mark.fault("F100")
def test_a_publication_of_any_name_is_made_for_a_table_of_any_name_and_checked(database15: str) -> None:
    run(database15, "CREATE TABLE victim (id int PRIMARY KEY)")
    for name in HOSTILE:
        run(database15, f"CREATE SCHEMA {quoted(name)} CREATE TABLE {quoted(name, name)} (id int PRIMARY KEY)")
        tables = [pattern_of(f"{name}.{name}")]

        with Sql(database15) as sql:
            made = publication.ensure(sql, name, tables)
        with Sql(as_role(database15)) as sql:
            publication.check(sql, name, tables)

        assert made == (f"created publication {name}",)
    assert sorted(ask(database15, "SELECT array_agg(pubname::text) FROM pg_publication")) == sorted(HOSTILE)
    assert ask(database15, "SELECT count(*) FROM victim") == 0


def test_what_is_said_of_a_name_can_be_pasted(database15: str) -> None:
    """A hint holds a statement, with every name in it quoted."""
    name = '"; DROP TABLE victim; --'
    run(database15, "CREATE TABLE victim (id int PRIMARY KEY)", f"CREATE TABLE {quoted(name)} (id int PRIMARY KEY)")

    with Sql(as_role(database15)) as sql, pytest.raises(SourceRefused, match="no publication") as refused:
        publication.check(sql, name, [f"public.{name}"])
    run(database15, refused.value.hint.partition("run: ")[2])

    assert ask(database15, "SELECT pubname || ' ' || tablename FROM pg_publication_tables") == f"{name} {name}"
