"""What of the rules is handed to the publication, what is not, and why."""

import tomllib
from collections.abc import Sequence
from typing import Any

import pytest

from pgevents.publication_plan import Plan, Published, plan
from pgevents.rule_catalog import Table
from pgevents.rules import parse_rules
from pgevents.settings import Settings
from pgevents.wal import Column

INT4, TEXT, ENUM = 23, 25, 16_999
THERE, ALL = Published(exists=True), Published(exists=True, all_tables=True)


def table(name: str = "orders", *, identity: str = "d", kind: str = "r") -> Table:
    types = {"id": INT4, "total": INT4, "email": TEXT, "mood": ENUM}
    columns = [Column(*each) for each in types.items()]
    return Table("public", name, kind, identity, columns, types, primary_key=["id"])


def planned(
    toml: str = "",
    tables: Sequence[Table] = (),
    *,
    published: Published = THERE,
    version: int = 150_000,
    keyless: Sequence[str] = (),
    **values: Any,
) -> Plan:
    rules = parse_rules(tomllib.loads(toml), "shop.toml")
    given = Settings(rules=rules, **values)
    return plan(given, tables or [table()], published, version=version, keyless=keyless)


def target(made: Plan) -> str:
    """What the publication is made to publish."""
    [found] = [each.partition(" SET TABLE ")[2] for each in made.statements if " SET TABLE " in each]
    return found


BIG = '[[filter]]\nname = "big"\nwhen = "new.total > 100"'
INSERTS = '\noperations = ["insert", "truncate"]'


def test_without_rules_and_patterns_all_tables_are_published() -> None:
    assert planned(published=Published()).statements == (
        "CREATE PUBLICATION \"pgevents\" FOR ALL TABLES WITH (publish = 'insert, update, delete, truncate')",
    )


def test_patterns_become_a_list_of_tables() -> None:
    made = planned(tables=[table("orders"), table("audit")], exclude_tables=("audit",))

    assert target(made) == '"public"."orders"'
    assert "a table that is created later is not published before this is applied again" in made.warnings


def test_a_publication_of_all_tables_is_made_anew_to_list_tables() -> None:
    assert [each.partition(" WITH")[0] for each in planned(published=ALL, exclude_tables=("x",)).statements] == [
        'DROP PUBLICATION "pgevents"',
        'CREATE PUBLICATION "pgevents" FOR TABLE "public"."orders"',
    ]


def test_a_publication_of_all_tables_stays_one() -> None:
    assert planned(published=ALL).statements == (
        "ALTER PUBLICATION \"pgevents\" SET (publish = 'insert, update, delete, truncate')",
    )


def test_operations_that_no_table_needs_are_not_published() -> None:
    made = planned('[[filter]]\noperations = ["insert", "update"]')

    assert made.statements[1] == "ALTER PUBLICATION \"pgevents\" SET (publish = 'insert, update')"
    assert made.pushed == ["only insert, update of all tables"]


def test_operations_that_another_table_needs_stay_in_the_stream() -> None:
    toml = '[[filter]]\ntables = ["audit"]\noperations = ["insert"]'

    made = planned(toml, [table("orders"), table("audit")])

    assert made.operations == ("insert", "update", "delete", "truncate")
    assert made.kept == ["public.audit: that update, delete, truncate is left out, which other tables need"]


def test_a_condition_becomes_a_row_filter() -> None:
    made = planned(BIG + INSERTS)

    assert target(made) == '"public"."orders" WHERE (("total" > 100))'
    assert "public.orders: the condition of filter big" in made.pushed


def test_conditions_of_several_filters_must_all_hold() -> None:
    second = '\n[[filter]]\nname = "small"\nwhen = "new.id < 5 OR new.id = 7"'

    assert target(planned(BIG + INSERTS + second + INSERTS)) == (
        '"public"."orders" WHERE (("total" > 100) AND ("id" < 5 OR "id" = 7))'
    )


@pytest.mark.parametrize(
    ("rule", "version", "identity", "reason"),
    [
        (BIG, 150_000, "d", "total is not in the replica identity, and PostgreSQL would then refuse updates and"),
        (BIG, 140_000, "f", "row filters are in PostgreSQL 15 and later"),
        ('[[filter]]\nname = "big"\nwhen = "old.total > 1"', 150_000, "f", "it asks for old, which"),
        ('[[filter]]\nname = "big"\nwhen = "new.mood = \'ok\'"', 150_000, "f", "mood is of a user-defined type"),
        (f'{BIG}\noperations = ["update"]', 150_000, "f", "an update that moves a row into it would come as an"),
        (
            '[[filter]]\nname = "big"\nwhen = "new.total > 1 OR new.id IS NULL"',
            *(150_000, "f", "it is true of deletes, which have no new row"),
        ),
        ('[[filter]]\nname = "big"\nwhen = "new.gone > 1"', 150_000, "f", "there is no column gone"),
        (
            '[[filter]]\nname = "big"\nwhen = "10 / new.id > 1"',
            150_000,
            "f",
            "arithmetic may fail on a row, and then",
        ),
        ('[[filter]]\nname = "big"\nwhen = "lower(new.email) = \'x\'"', 150_000, "f", "it folds letters, which"),
    ],
)
def test_a_condition_that_a_publication_cannot_have_stays_and_says_why(
    rule: str, version: int, identity: str, reason: str
) -> None:
    made = planned(rule, [table(identity=identity)], version=version)

    assert "WHERE" not in "".join(made.statements)
    [said] = made.kept
    assert said.startswith(f"public.orders: the condition of filter big: {reason}")


COMES = "and an update that moves a row into the row filter would come as an insert"


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (
            '[[filter]]\nname = "jump"\nwhen = "new.id > 5 OR old.id > 5"',
            f"filter jump asks for old, {COMES}, without",
        ),
        (
            '[[route]]\nname = "vip"\nrouting_key = "vip"\nwhen = "old.total > 5"',
            f"route vip asks for old, {COMES}, without it",
        ),
        (
            '[[filter]]\nname = "same"\ndrop_unchanged = true\nignore = ["total"]',
            f"filter same ignores total, {COMES}, which it lets through",
        ),
    ],
)
def test_a_row_filter_that_another_rule_would_see_stays_and_names_it(other: str, reason: str) -> None:
    made = planned(f"{BIG}\n{other}", [table(identity="f")])

    assert "WHERE" not in "".join(made.statements)
    assert any(each.startswith(f"public.orders: the condition of filter big: {reason}") for each in made.kept)


@pytest.mark.parametrize(
    "other",
    [
        '[[filter]]\nname = "jump"\ntables = ["audit"]\nwhen = "old.id > 5"',
        '[[filter]]\nname = "same"\ndrop_unchanged = true\nignore = ["email"]',
        '[[route]]\nname = "gone"\nrouting_key = "gone"\noperations = ["delete"]\nwhen = "old.total > 5"',
        '[[route]]\nname = "vip"\nrouting_key = "vip"\nwhen = "new.total > 500"',
    ],
)
def test_a_row_filter_that_no_other_rule_would_see_is_pushed(other: str) -> None:
    made = planned(f"{BIG}\n{other}", [table(identity="f"), table("audit", identity="f")])

    assert "public.orders: the condition of filter big" in made.pushed


def test_old_may_be_asked_for_where_no_updates_are_published() -> None:
    route = '[[route]]\nname = "vip"\nrouting_key = "vip"\nwhen = "old.total IS NULL"'

    assert "WHERE" in target(planned(f"{BIG}{INSERTS}\n{route}"))


def test_inserts_alone_are_not_filtered_where_the_updates_of_another_table_are_published() -> None:
    made = planned(f'{BIG}{INSERTS}\ntables = ["orders"]', [table(identity="f"), table("audit")])

    assert "WHERE" not in "".join(made.statements)
    assert made.kept[1] == (
        "public.orders: the condition of filter big: an update that moves a row into it would come as an insert, "
        "which the filters let through"
    )


@pytest.mark.parametrize(
    ("collations", "reason"),
    [
        ({"email": 16_500}, "email has a user-defined collation, which a row filter may not use"),
        ({"email": 950, "id": 951}, "its columns have different collations, and the server may fail to compare them"),
    ],
)
def test_collations_that_a_row_filter_may_not_use_stay_in_the_stream(collations: dict[str, int], reason: str) -> None:
    orders = table(identity="f")
    orders.collations = collations

    made = planned('[[filter]]\nname = "big"\nwhen = "new.email = \'x\' AND new.id > 1"', [orders])

    assert made.kept == [f"public.orders: the condition of filter big: {reason}"]


def test_inserts_lack_no_value() -> None:
    orders = table()
    orders.toastable = {"email"}

    made = planned('[[filter]]\nname = "big"\nwhen = "new.id > 1"', [orders])

    [said] = made.kept
    assert said == (
        "public.orders: the condition of filter big: an update that moves a row into it would come as an insert, "
        'which may lack email: ALTER TABLE "public"."orders" REPLICA IDENTITY FULL'
    )


def test_routes_that_take_updates_and_inserts_apart_are_named() -> None:
    routes = "".join(
        f'\n[[route]]\nname = "{name}"\nrouting_key = "x"\noperations = {operations}'
        for name, operations in (("new", '["insert"]'), ("both", '["insert", "update"]'), ("late", '["update"]'))
    )

    made = planned(f"{BIG}{routes}", [table(identity="f")])

    assert "routes that take inserts or updates alone take such an update for an insert: new, late" in made.warnings


def test_under_full_identity_updates_can_be_filtered_and_change_their_kind() -> None:
    made = planned(BIG, [table(identity="f")])

    assert "WHERE" in target(made)
    assert "an update that moves a row into a row filter comes as an insert, one that moves it out as a delete" in (
        made.warnings
    )


def test_excluded_columns_become_a_column_list() -> None:
    made = planned('[[columns]]\nexclude = ["email", "mood"]')

    assert target(made) == '"public"."orders" ("id", "total")'
    assert made.pushed == ["public.orders: without email, mood"]
    assert any(each.startswith("a column that is added to a table with a column list") for each in made.warnings)


@pytest.mark.parametrize(
    ("rules", "version", "identity", "reason"),
    [
        ("", 150_000, "f", "they are in the replica identity, and PostgreSQL would then refuse"),
        ("", 140_000, "d", "column lists are in PostgreSQL 15 and later"),
        ('[[route]]\nname = "vip"\nwhen = "new.email = \'x\'"', 150_000, "d", "the condition of vip asks for email"),
    ],
)
def test_columns_that_a_publication_cannot_leave_out_stay(
    rules: str, version: int, identity: str, reason: str
) -> None:
    made = planned(f'{rules}\n[[columns]]\nexclude = ["email"]', [table(identity=identity)], version=version)

    assert made.kept[0].startswith(f"public.orders: that email is left out: {reason}")
    assert "(" not in "".join(made.statements).replace("SET (publish", "").replace("WITH (publish", "")


def test_values_are_changed_by_the_stream_alone() -> None:
    made = planned('[[columns]]\nmask = ["email"]\n[[filter]]\nname = "same"\ndrop_unchanged = true')

    assert made.kept == [
        "public.orders: email: a publication does not change values",
        "public.orders: drop_unchanged of filter same: a publication does not compare rows",
    ]


def test_a_partitioned_table_is_listed_whole_and_its_partitions_with_their_clauses() -> None:
    made = planned(BIG + INSERTS, [table("measures", kind="p"), table("measures_2026")])

    assert target(made) == '"public"."measures", "public"."measures_2026" WHERE (("total" > 100))'
    assert "a partition that is created later is sent whole before this is applied again" in made.warnings


def test_a_publication_under_the_names_of_roots_stays_one() -> None:
    made = planned(
        BIG + INSERTS,
        [table("measures", kind="p"), table("measures_2026")],
        published=Published(exists=True, all_tables=True, via_root=True),
    )

    assert made.statements[-1].endswith("WITH (publish = 'insert, truncate', publish_via_partition_root = true)")
    assert made.warnings[0].startswith("publish_via_partition_root is on")


def test_what_changes_by_it_is_said() -> None:
    made = planned("[[skip]]\nrows = 5", keyless=["public.log"], plugin="wal2json")

    assert made.warnings == [
        "wal2json reads no publication: this is for a slot of pgoutput, and push_down is for one of wal2json",
        "a change that is not sent gets no number: ids of other changes in its transaction are then different ones",
        "skip rules by size count what is sent, and no longer what was changed",
        "records and summaries of skip rules count what is sent, and no longer what was changed",
        "PostgreSQL refuses updates and deletes of tables without a replica identity: public.log",
    ]


def test_the_lines_are_a_script() -> None:
    lines = planned(BIG + INSERTS, [table("a\nb")]).lines()

    assert lines[0] == "-- in the publication: only insert, truncate of all tables"
    assert lines[1] == r"-- in the publication: public.a\nb: the condition of filter big"
    assert [line for line in lines if not line.startswith("-- ")] == [
        "BEGIN;",
        "SET LOCAL datestyle = 'ISO';",
        "SET LOCAL intervalstyle = 'postgres';",
        "SET LOCAL timezone = 'UTC';",
        "SET LOCAL search_path = 'pg_catalog';",
        'ALTER PUBLICATION "pgevents" SET TABLE "public"."a\nb" WHERE (("total" > 100));',
        "ALTER PUBLICATION \"pgevents\" SET (publish = 'insert, truncate');",
        "COMMIT;",
    ]
