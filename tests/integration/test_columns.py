"""Columns rules on what real servers send: both plug-ins' rows come to the same, and through DDL too."""

import asyncio
import hashlib
import hmac
import json

import pytest

from pgevents.columns import bind_columns
from pgevents.errors import RuleFailed
from pgevents.filters import TableFilter
from pgevents.rule import ColumnRule, Rules
from pgevents.session import open_stream
from pgevents.streaming import resolve_lsn
from pgevents.wal import Change, Keepalive, RawMessage, Relation, Row
from tests.integration.streaming import BOTH, Json, Recording, run
from tests.integration.test_events_types import USER_TYPES, create_table, insert, kinds_of

KEY = b"0123456789abcdef"


async def changes(recording: Recording, plugin: str) -> list[Change]:
    """Every row change in the slot, raw."""
    until = resolve_lsn(recording.role_dsn, "now")
    opened = await open_stream(
        recording.role_dsn, slot=recording.slot(plugin), plugin=plugin, publication="pgevents", read_only=True
    )
    found: list[Change] = []
    reached = 0
    try:
        while until is not None and reached < until:
            for message in await opened.source.read():
                match message:
                    case RawMessage(lsn=reached):
                        item = opened.decoder.decode(message)
                        found += [item] if isinstance(item, Change) else []
                    case Keepalive(wal_end=reached):
                        pass
    finally:
        await opened.close()
    return found


def hashed(relation: Relation, row: Row) -> Row:
    rule = ColumnRule("columns 1", TableFilter(), hash=frozenset(relation.names))
    plan = bind_columns([rule], relation, KEY)
    assert plan is not None
    plan.apply(row)
    return row


def test_every_value_of_every_type_hashes_the_same_from_both_plug_ins(database15: str) -> None:
    kinds = kinds_of(database15)
    run(database15, USER_TYPES, create_table(kinds))
    recording = Recording(database15)
    recording.run(insert(kinds), "update everything set id = id + 100")

    from_wal2json, from_pgoutput = (
        [
            hashed(change.relation, row)
            for change in asyncio.run(changes(recording, plugin))
            for row in change[2:]
            if row
        ]
        for plugin in BOTH
    )

    assert len(from_wal2json) > 3
    assert from_wal2json == from_pgoutput
    assert all(value is None or len(value) == 64 for row in from_pgoutput for value in row.values())


USERS = """
create table users (id int primary key, email text, iban text, bio text, password text, balance float8);
create table users_full (like users including all);
alter table users_full replica identity full
"""
CHANGES = [
    statement.format(table)
    for table in ("users", "users_full")
    for statement in (
        "insert into {} values (1, 'secret@x.com', 'secret DE12', 'a very long secret', 'secret', 1e20)",
        "insert into {} (id) values (2)",
        "update {} set email = 'secret2@x.com', password = 'secret2' where id = 1",
        "update {} set id = 3 where id = 1",
        "delete from {}",
    )
]
RULES = Rules(
    columns=(
        ColumnRule("all", TableFilter(["users*"]), mask=frozenset({"email"}), exclude=frozenset({"password"})),
        ColumnRule("some", TableFilter(), hash=frozenset({"id", "iban", "balance"}), truncate={"bio": 6}),
    )
)


def test_under_columns_rules_both_plug_ins_give_the_same_events_and_no_secret(database15: str) -> None:
    run(database15, USERS)
    recording = Recording(database15)
    recording.run(*CHANGES)

    events = recording.equal_events(rules=RULES, hash_key=KEY.decode())

    inserted, updated = events[0], next(event for event in events if event["op"] == "update")
    assert inserted["new"] == {
        "id": hash_of("1"),
        "email": "***",
        "iban": hash_of("secret DE12"),
        "bio": "a very",
        "balance": hash_of("1e+20"),
    }
    assert inserted["key"] == updated["key"] == {"id": hash_of("1")}
    assert "secret" not in json.dumps(events)
    assert len(events) == 12


def hash_of(text: str) -> str:
    return hmac.new(KEY, text.encode(), hashlib.sha256).hexdigest()


DDL = """
insert into people values (1, 'secret 1', 'note 1');
alter table people drop column email;
insert into people values (2, 'note 2');
alter table people add column email text;
insert into people values (3, 'note 3', 'secret 3');
alter table people rename column email to address;
insert into people values (4, 'note 4', 'secret 4')
"""


def after_ddl(dsn: str, rule: ColumnRule) -> list[Json]:
    run(dsn, "create table people (id int primary key, email text, note text)")
    recording = Recording(dsn)
    for statement in DDL.split(";"):
        recording.run(statement)
    return [event["new"] for event in recording.equal_events(rules=Rules(columns=(rule,)))]


def test_a_masked_column_may_be_dropped_and_come_again_and_loses_its_mask_by_another_name(database15: str) -> None:
    rows = after_ddl(database15, ColumnRule("columns 1", TableFilter(["people"]), mask=frozenset({"email"})))

    assert rows == [
        {"id": 1, "email": "***", "note": "note 1"},
        {"id": 2, "note": "note 2"},
        {"id": 3, "note": "note 3", "email": "***"},
        {"id": 4, "note": "note 4", "address": "secret 4"},
    ]


def test_of_included_columns_no_other_is_seen_by_any_name(database15: str) -> None:
    rows = after_ddl(database15, ColumnRule("columns 1", TableFilter(["people"]), include=frozenset({"id", "note"})))

    assert rows == [{"id": each, "note": f"note {each}"} for each in (1, 2, 3, 4)]


@pytest.mark.parametrize("plugin", BOTH)
def test_a_masked_column_that_comes_to_be_the_key_stops_the_stream(database15: str, plugin: str) -> None:
    run(database15, "create table people (id int primary key, email text not null unique)")
    recording = Recording(database15, plugins=[plugin])
    rule = ColumnRule("columns 1", TableFilter(["people"]), mask=frozenset({"email"}))

    recording.run(
        "alter table people drop column id, add primary key (email)", "insert into people values ('secret')"
    )

    with pytest.raises(RuleFailed, match=r" \(xid \d+, commit LSN [0-9A-F]+/[0-9A-F]+\)$") as caught:
        recording.events(plugin, rules=Rules(columns=(rule,)))
    assert str(caught.value).startswith("columns 1 masks email of public.people, which is of the key (")
    assert "Nothing is lost" in caught.value.hint
