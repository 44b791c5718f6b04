"""Every type as both plug-ins print it: a condition reads the same from either, and what SQL says."""

import asyncio

import pytest

from pgevents.condition import Condition, ConditionError
from pgevents.condition.type_name import name_of
from tests.integration.streaming import BOTH, Recording, ask, run
from tests.integration.test_columns import changes
from tests.integration.test_events_types import USER_TYPES, create_table, insert, kinds_of

Types = dict[str, int]

# As PostgreSQL has them, but for the short names that a condition itself uses.
TYPE_NAMES = """
select json_object_agg(t.oid::bigint, replace(replace(
    format_type(t.oid, null), ' without time zone', ''), ' with time zone', 'tz'))
from pg_type t left join pg_type e on e.oid = t.typelem and t.typcategory = 'A'
where t.typtype in ('b', 'r', 'm') and t.oid < 10000 and coalesce(e.typtype, 'b') in ('b', 'r', 'm')
    and t.typname !~ 'gtsvector|brin|node_tree|ndistinct|dependencies|mcv_list|ddl_command'
"""

BASE_TYPES = """
with recursive bases as (
    select a.attname::text as name, a.atttypid as type from pg_attribute a
    where a.attrelid = 'everything'::regclass and a.attnum > 0
    union all
    select b.name, t.typbasetype from bases b join pg_type t on t.oid = b.type where t.typtype = 'd'
)
select json_object_agg(b.name, b.type::bigint) from bases b join pg_type t on t.oid = b.type and t.typtype <> 'd'
"""


def texts(dsn: str, names: list[str]) -> list[dict[str, str | None]]:
    """What a cast to text makes of each value, in the order of the rows; names in full, as a stream has them."""
    values = ", ".join(f"{name}::text" for name in names)
    rows = ask(
        f"{dsn} options='-c search_path='",
        f"select json_agg(row order by id) from (select id, array[{values}] as row from public.everything) r",
    )
    return [dict(zip(names, row, strict=True)) for row in rows]


def refused(condition: Condition, types: Types) -> bool:
    try:
        condition.bind(types)
    except ConditionError:
        return True
    return False


@pytest.mark.parametrize("server", ["database15", "database18"])
def test_every_type_of_a_column_is_called_as_postgresql_calls_it(server: str, request: pytest.FixtureRequest) -> None:
    names = ask(request.getfixturevalue(server), TYPE_NAMES)

    assert len(names) > 130
    assert {oid: name_of(int(oid)) for oid in names} == names


def same(name: str) -> Condition:
    return Condition.parse(f"new.{name} IS NOT DISTINCT FROM old.{name}")


def condition_on(name: str, text: str | None) -> Condition:
    if text is None:
        return Condition.parse(f"new.{name}::text IS NULL")
    literal = "'" + text.replace("'", "''") + "'"
    return Condition.parse(f"new.{name}::text = {literal} AND length(new.{name}::text) = {len(text)}")


def test_every_value_of_every_type_is_read_as_sql_says_from_both_plug_ins(database15: str) -> None:
    kinds = kinds_of(database15)
    run(database15, USER_TYPES, create_table(kinds))
    recording = Recording(database15)
    recording.run(insert(kinds))
    types: Types = ask(database15, BASE_TYPES)
    names = [name for name in types if not refused(Condition.parse(f"new.{name}::text IS NULL"), types)]
    compared = [name for name in types if not refused(same(name), types)]
    expected = texts(database15, names)

    for plugin in BOTH:
        rows = [change.new for change in asyncio.run(changes(recording, plugin)) if change.new]

        assert len(rows) == len(expected) > 3
        for row, told in zip(rows, expected, strict=True):
            wrong = [name for name in names if not condition_on(name, told[name]).bind(types)(row, None)]
            unlike = [name for name in compared if not same(name).bind(types)(row, row)]
            assert (plugin, wrong, unlike) == (plugin, [], [])
