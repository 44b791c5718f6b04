"""Every type and its extremes: both plug-ins give the same bytes, and what SQL says."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg2
import pytest

from tests.integration.streaming import Json, Recording, ask, run

# How SQL says the value of an event: {c} is the column, the result is JSON.
AS_JSON = "to_json({c})"
AS_TEXT = "to_json({c}::text)"
AS_ISO = "case when {c} < '0001-01-01' then to_json({c}::text) else to_json({c}) end"
AS_ISO_UTC = (
    "case when {c} < '0001-01-01' then to_json({c}::text)"
    " else to_json(replace(to_json({c}) #>> '{{}}', '+00:00', 'Z')) end"
)
AS_TEXTS = "to_json({c}::text[])"

EVERY_CHARACTER_BELOW_300 = "(select string_agg(chr(n), '' order by n) from generate_series(1, 300) n)"

USER_TYPES = """
create type mood as enum ('sad', 'ok', 'very happy', 'quoted "mood"', 'NULL');
create type pair as (left_part int, right_part text);
create type float_range as range (subtype = float8);
create domain whole as int;
create domain amount as numeric(12, 3);
create domain flag as bool;
create domain blob as bytea;
create domain label as text;
create domain positive as whole check (value > 0);
create domain whole_list as int[];
create domain moment as timestamptz;
create domain document as jsonb;
create schema "My Schema";
create type "My Schema"."My ""Type" as enum ('a b', 'c');
create table "My Schema"."My Table" ();
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A column type, how SQL says its values, and values to store, as SQL."""

    type: str
    says: str
    values: tuple[str, ...]


def quoted(*literals: str) -> tuple[str, ...]:
    return tuple("'" + literal.replace("'", "''") + "'" for literal in literals)


NUMBERS = (
    Kind("int2", AS_JSON, ("-32768", "32767", "0")),
    Kind("int4", AS_JSON, ("-2147483648", "2147483647", "0")),
    Kind("int8", AS_JSON, ("-9223372036854775808", "9223372036854775807", "9007199254740993")),
    Kind(
        "numeric",
        AS_TEXT,
        (
            "3.540",
            "-0.000",
            "9223372036854775808",
            "18446744073709551616",
            "1234567890987654321.1234567890987654321",
            "1e400",
            "1e-16383",
            "repeat('9', 131072)::numeric",
            "('-' || repeat('9', 131072) || '.' || repeat('7', 16383))::numeric",
        ),
    ),
    Kind("numeric(20, 5)", AS_TEXT, ("1", "-99999.12345", "0")),
    Kind("real", AS_JSON, ("0.1", "1e-45", "3.4028235e38", "16777216", "-1.5", "1e20")),
    Kind(
        "double precision",
        AS_JSON,
        ("0.1", "5e-324", "1.7976931348623157e308", "1e308", "123456789012345678", "-2.5", "3", "1e15", "1e-5"),
    ),
    Kind("oid", AS_TEXT, ("0", "4294967295")),
    Kind("xid", AS_TEXT, quoted("4294967295")),
    Kind("xid8", AS_TEXT, quoted("18446744073709551615")),
    Kind("money", AS_TEXT, quoted("1234.56", "-92233720368547758.08", "0")),
    Kind("bool", AS_JSON, ("true", "false")),
)

TEXTS = (
    Kind("char(9)", AS_JSON, quoted("teste", "")),
    Kind('"char"', AS_TEXT, quoted("x")),
    Kind("varchar(40)", AS_TEXT, quoted("", "null", "a,b", "tab\there")),
    Kind("name", AS_TEXT, quoted("an identifier")),
    Kind(
        "text",
        AS_TEXT,
        (
            EVERY_CHARACTER_BELOW_300,
            *quoted(
                "",
                "null",
                "quotes \" ' and back\\slash\\\\ \\u0041 \\n",
                "line\nbreak\r\nand\ttab\x0b\x7f",
                "\u2028\u2029\ufeff\uffff\U0010ffff",
                "emoji 🐘👩‍👩‍👧 and \u202eright to left\u202c שלום",
                '"typeoid":1700,"value":1}"typeoid":701,"value":-0,',
                '","value":"x"}],"identity":[',
            ),
            "repeat('wide 🐘', 20000)",
        ),
    ),
    Kind("bytea", AS_TEXT, (*quoted("\\x", "\\xdeadbeef", "\\x00ff0a5c22"), "decode(repeat('00ff', 9000), 'hex')")),
    Kind("tsvector", AS_TEXT, quoted("'Old' 'Parr':3A")),
    Kind("tsquery", AS_TEXT, quoted("'fat' & !'rat'")),
    Kind("uuid", AS_TEXT, quoted("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11")),
)

TIMES = (
    Kind(
        "date",
        AS_TEXT,
        quoted("2024-01-31", "infinity", "-infinity", "0044-03-15 BC", "4713-11-24 BC", "5874897-12-31"),
    ),
    Kind(
        "timestamp",
        AS_ISO,
        quoted(
            "2018-03-27 11:58:28.988414",
            "2018-03-27 11:58:28",
            "2018-03-27 11:58:28.5",
            "infinity",
            "-infinity",
            "4713-01-01 00:00:00 BC",
            "0001-01-01",
            "294276-12-31 23:59:59.999999",
        ),
    ),
    Kind("timestamp(0)", AS_ISO, quoted("2018-03-27 11:58:28.988414")),
    Kind(
        "timestamptz",
        AS_ISO_UTC,
        quoted(
            "2018-03-27 11:58:28.988414+05:45",
            "2018-03-27 11:58:28Z",
            "infinity",
            "-infinity",
            "4713-01-01 00:00:00 UTC BC",
            "0001-01-01 00:00:00 UTC",
            "294276-12-31 23:59:59.999999 UTC",
        ),
    ),
    Kind("time", AS_TEXT, quoted("24:00:00", "00:00:00.000001", "11:58:28")),
    Kind("timetz", AS_TEXT, quoted("24:00:00+15:59", "04:05:06.789-00:01:15")),
    Kind(
        "interval",
        AS_TEXT,
        quoted("1 year 2 mons 3 days 04:05:06.7", "-178000000 years", "178000000 years", "-1 day +02:03", "0"),
    ),
)

NETWORKS_AND_BITS = (
    Kind("inet", AS_JSON, quoted("192.168.0.1/24", "::1", "10.1.2.3")),
    Kind("cidr", AS_TEXT, quoted("192.168.0.0/24", "2001:db8::/32")),
    Kind("macaddr", AS_TEXT, quoted("08:00:2b:01:02:03")),
    Kind("macaddr8", AS_TEXT, quoted("08:00:2b:01:02:03:04:05")),
    Kind("bit(5)", AS_TEXT, ("B'10101'", "B'00000'")),
    Kind("bit varying", AS_TEXT, ("B'1'", "B''")),
    Kind("pg_lsn", AS_TEXT, quoted("0/16B3748", "FFFFFFFF/FFFFFFFF")),
    Kind("tid", AS_TEXT, quoted("(0,1)")),
    Kind("regclass", AS_TEXT, quoted("pg_class", '"My Schema"."My Table"')),
    Kind("regtype", """'"public.mood"'::json""", quoted("mood")),
    Kind("pg_snapshot", AS_TEXT, quoted("10:20:10,14")),
    Kind("jsonpath", AS_TEXT, quoted('$."a"[*]')),
    Kind("int2vector", AS_TEXT, quoted("1 2 3")),
)

SHAPES = (
    Kind("point", AS_TEXT, quoted("(1,2.5)", "(-0,1e300)")),
    Kind("line", AS_TEXT, quoted("{1,2,3}")),
    Kind("lseg", AS_TEXT, quoted("[(0,0),(1,1)]")),
    Kind("box", AS_TEXT, quoted("(1,1),(0,0)")),
    Kind("path", AS_TEXT, quoted("[(0,0),(1,1)]", "((0,0),(1,1))")),
    Kind("polygon", AS_TEXT, quoted("((0,0),(1,1),(1,0))")),
    Kind("circle", AS_TEXT, quoted("<(0,0),2>")),
    Kind("int4range", AS_TEXT, quoted("[1,10)", "empty", "(,)")),
    Kind("numrange", AS_TEXT, quoted("[1.50,2.5]")),
    Kind("tstzrange", AS_TEXT, quoted('["2018-03-27 11:58:28+00",infinity)')),
    Kind("float_range", AS_TEXT, quoted("[-1.5,2e100)")),
    Kind("int4multirange", AS_TEXT, quoted("{[1,3),[5,7)}", "{}")),
)

USER_DEFINED = (
    Kind("mood", AS_TEXT, quoted("sad", "very happy", 'quoted "mood"', "NULL")),
    Kind('"My Schema"."My ""Type"', AS_TEXT, quoted("a b")),
    Kind("pair", AS_TEXT, ("row(1, 'foo \"bar\", (\\)')", "row(null, null)", "row(2, '')")),
    Kind("whole", AS_JSON, ("7", "-2147483648")),
    Kind("positive", AS_JSON, ("2147483647",)),
    Kind("amount", AS_TEXT, ("3.54", "123456789.001")),
    Kind("flag", AS_JSON, ("true", "false")),
    Kind("blob", AS_TEXT, quoted("\\xdead", "\\x")),
    Kind("label", AS_TEXT, quoted('domain "text"')),
    Kind("moment", AS_ISO_UTC, quoted("2018-03-27 11:58:28.988414+05:45")),
    Kind("document", AS_JSON, quoted('{"a": [1, null]}')),
    Kind("whole_list", AS_JSON, quoted("{1,NULL,3}", "{}")),
)

ARRAYS = (
    Kind("int[]", AS_JSON, quoted("{}", "{1,2,NULL}", "{{1,2},{3,4}}", "{{{1}},{{2}}}")),
    Kind("int8[]", AS_TEXT, quoted("[0:1]={1,2}", "[-1:0][5:5]={{1},{2}}")),
    Kind(
        "text[]",
        AS_JSON,
        (
            *quoted(
                '{NULL,"NULL",null,"null","",a}', '{"a,b","{x}","q\\"q","b\\\\s"," sp ace "}', '{{a,"}"},{"{",d}}'
            ),
            "array[E'line\\nbreak', E'\\t', chr(8232), '🐘', '\\', '\\\\n']",
        ),
    ),
    Kind("numeric[]", AS_TEXTS, quoted("{1.50,NULL,-0.000,NaN}", "{123456789012345678901234567890.1}")),
    Kind("float8[]", AS_JSON, quoted("{0.1,1e308,NaN,Infinity,-Infinity,NULL}")),
    Kind("bool[]", AS_JSON, quoted("{t,f,NULL}")),
    Kind("bytea[]", AS_TEXTS, ("array['\\xdead', '\\x', null]::bytea[]",)),
    Kind("timestamp[]", AS_JSON, quoted('{"2018-03-27 11:58:28.5",infinity,NULL}')),
    Kind("timestamptz[]", """'["2018-03-27T11:58:28.5Z", null]'::json""", quoted('{"2018-03-27 11:58:28.5Z",NULL}')),
    Kind("date[]", AS_TEXTS, quoted('{2024-01-31,"0044-03-15 BC"}')),
    Kind("jsonb[]", AS_JSON, ("""array['{"a": "x,y\\"z"}', 'null', null, '[1.50]']::jsonb[]""",)),
    Kind("mood[]", AS_TEXTS, quoted('{sad,"very happy","NULL",NULL}')),
    Kind("positive[]", AS_JSON, quoted("{1,2,NULL}")),
    Kind("whole_list[]", "'[[1,2],[],null]'::json", ("array['{1,2}', '{}', null]::whole_list[]",)),
    Kind("pair[]", AS_TEXTS, ("""array[row(1, 'a "b"')::pair, row(null, null)::pair, null]""",)),
    Kind("box[]", """'["(1,1),(0,0)", "(3,3),(2,2)"]'::json""", quoted("{(1,1),(0,0);(3,3),(2,2)}")),
    Kind("inet[]", AS_JSON, quoted("{10.0.0.1,::1}")),
    Kind("uuid[]", AS_TEXTS, quoted("{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}")),
    Kind("int4range[]", AS_TEXTS, quoted('{"[1,3)",empty}')),
)

CONTRIB = {
    "hstore": Kind("hstore", AS_TEXT, quoted('"a"=>"1", "b"=>NULL, "q\\"q"=>"x,y"', "")),
    "citext": Kind("citext", AS_TEXT, quoted("Mixed Case")),
    "ltree": Kind("ltree", AS_TEXT, quoted("Top.Science")),
    "cube": Kind("cube", AS_TEXT, quoted("(1, 2.5)")),
}

FLOATING = ("real", "double precision", "float8[]")

XML = Kind("xml", AS_TEXT, quoted('<a b="c">d &amp; e</a>', "text"))

KINDS = (*NUMBERS, *TEXTS, *TIMES, *NETWORKS_AND_BITS, *SHAPES, *USER_DEFINED, *ARRAYS)


def kinds_of(dsn: str) -> tuple[Kind, ...]:
    """All kinds that the server was built with: XML and the contrib extensions are the packager's choice."""
    available = ask(dsn, "select array_agg(name::text) from pg_available_extensions")
    contrib = [name for name in CONTRIB if name in available]
    run(dsn, *(f"create extension {name}" for name in contrib))
    return (*KINDS, *([XML] if reads_xml(dsn) else []), *(CONTRIB[name] for name in contrib))


def reads_xml(dsn: str) -> bool:
    try:
        run(dsn, "select 'text'::xml")
    except psycopg2.errors.FeatureNotSupported:
        return False
    return True


def create_table(kinds: tuple[Kind, ...]) -> str:
    columns = ", ".join(f"c{n} {kind.type}" for n, kind in enumerate(kinds))
    return f"create table everything (id int primary key, {columns}); alter table everything replica identity full"


def insert(kinds: tuple[Kind, ...]) -> str:
    """Row n holds the n-th value of each kind, and NULL where it has no more."""
    rows = []
    for n in range(max(len(kind.values) for kind in kinds) + 1):
        values = (kind.values[n] if n < len(kind.values) else "null" for kind in kinds)
        rows.append(f"insert into everything values ({n}, {', '.join(values)})")
    return "; ".join(rows)


def said(dsn: str, kinds: tuple[Kind, ...]) -> list[Json]:
    """The rows as SQL says them, column by column."""
    says = (
        f"case when c{n} is distinct from null then {kind.says.format(c=f'c{n}')} end" for n, kind in enumerate(kinds)
    )
    values = ", ".join(says)
    columns = ["id", *(f"c{n}" for n in range(len(kinds)))]
    rows = ask(
        dsn,
        f"select json_agg(row order by id) from (select id, array[to_json(id), {values}] as row from everything) r",
    )
    return [dict(zip(columns, row, strict=True)) for row in rows]


def by_id(rows: Iterable[Json]) -> list[Json]:
    return sorted(rows, key=lambda row: int(row["id"]))


def assert_same(rows: list[Any], expected: list[Json], kinds: tuple[Kind, ...]) -> None:
    for row, told in zip(rows, expected, strict=True):
        assert list(row) == list(told)
        for n, kind in enumerate(kinds):
            value, wanted = row[f"c{n}"], told[f"c{n}"]
            assert (kind.type, value) == (kind.type, wanted)
            # To Python 1, 1.0 and True are equal. to_json prints a float without a fraction as an integer.
            assert kind.type in FLOATING or json.dumps(value) == json.dumps(wanted)


@pytest.mark.fault("F90", "F91", "F93", "F101", "F111", "I10")
def test_every_type_is_what_sql_says_and_equal_from_both_plug_ins(database15: str) -> None:
    kinds = kinds_of(database15)
    run(database15, USER_TYPES, create_table(kinds))
    recording = Recording(database15)

    recording.run(insert(kinds))
    expected = said(database15, kinds)
    recording.run("update everything set id = id + 100; delete from everything")
    events = recording.equal_events()

    count = len(expected)
    inserts, updates, deletes = events[:count], events[count : 2 * count], events[2 * count :]
    assert_same([event["new"] for event in inserts], expected, kinds)
    assert_same([event["old"] for event in updates], expected, kinds)
    assert {tuple(event["changed"]) for event in updates} == {("id",)}
    assert by_id(event["old"] for event in deletes) == by_id(event["new"] for event in updates)


@pytest.mark.fault("F90", "F91", "F93", "F101", "F111", "I10")
def test_postgresql_18_gives_every_type_as_sql_says(database18: str) -> None:
    kinds = kinds_of(database18)
    run(database18, USER_TYPES, create_table(kinds))
    recording = Recording(database18, plugins=("pgoutput",))

    recording.run(insert(kinds))

    assert_same([event["new"] for event in recording.events("pgoutput")], said(database18, kinds), kinds)


@pytest.mark.fault("F40", "I10")
def test_defaults_of_a_database_change_no_value(database15: str) -> None:
    kinds = kinds_of(database15)
    run(database15, USER_TYPES, create_table(kinds))
    recording = Recording(database15)
    recording.run(insert(kinds))
    pinned = recording.equal_events()
    name = ask(database15, "select current_database()")

    for setting in (
        "datestyle = 'German'",
        "timezone = 'Asia/Kathmandu'",
        "intervalstyle = 'sql_standard'",
        "bytea_output = 'escape'",
        "extra_float_digits = -15",
        "lc_monetary = 'C.UTF-8'",
        "xmlbinary = 'hex'",
        "statement_timeout = '1s'",
        "search_path = '\"My Schema\"'",
        "client_encoding = 'SQL_ASCII'",
        "standard_conforming_strings = off",
        "quote_all_identifiers = on",
    ):
        recording.run(f'alter database "{name}" set {setting}')

    assert recording.equal_events() == pinned
