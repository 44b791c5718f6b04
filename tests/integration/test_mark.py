"""Marks on real servers: what pgevents.skip writes, who may call it, and ``muted`` on both drivers."""

import asyncio
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

import psycopg
import psycopg2
import psycopg2.extras
import pytest
from psycopg.rows import class_row, dict_row, kwargs_row, scalar_row
from psycopg2.extensions import make_dsn, parse_dsn

from pgevents.demo.postgres import Postgres
from pgevents.errors import PrivilegeError, SourceRefused
from pgevents.mark import Mark
from pgevents.muted import MutedTooLate, muted
from tests.integration.command import Outcome, Shop, pgevents
from tests.integration.peek import Peek
from tests.integration.role import as_role
from tests.integration.streaming import ask, run

ROOT = Path(__file__).parents[2]
MIGRATION = (ROOT / "migrations" / "0002_skip.sql").read_text()
# What the script only shows, in its comments.
REVOKE = re.sub(
    "^-- *", "", MIGRATION[MIGRATION.index("--     DO $$") : MIGRATION.index("--     $$;") + 10], flags=re.MULTILINE
)

INVALID, DENIED = "22023", "42501"

Connection = Any


@pytest.fixture
def database(database15: str) -> str:
    run(database15, MIGRATION, "CREATE TABLE orders (id int PRIMARY KEY)")
    return database15


@pytest.fixture
def migrator(database: str) -> Iterator[str]:
    """The DSN of a role that may log in and write to the table, and no more."""
    name = f"migrator_{secrets.token_hex(4)}"
    run(database, f"CREATE ROLE {name} LOGIN", f"GRANT ALL ON orders TO {name}")
    yield make_dsn(database, user=name)
    run(database, f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


def allow(database: str, role: str) -> None:
    name = parse_dsn(role)["user"]
    run(
        database,
        f"GRANT USAGE ON SCHEMA pgevents TO {name}",
        f"GRANT EXECUTE ON FUNCTION pgevents.skip(text, text[]) TO {name}",
    )


def refusal(dsn: str, *statements: str) -> str:
    """The SQLSTATE with which the server refuses one of them."""
    with pytest.raises(psycopg2.Error) as refused:
        run(dsn, *statements)
    return str(refused.value.pgcode)


def reasons(peek: Peek) -> list[list[str]]:
    """The transactions, of each mark its reason."""
    return [[each.reason if isinstance(each, Mark) else each for each in seen] for seen in peek.transactions()]


def test_a_mark_is_the_first_message_of_its_transaction_and_says_who_made_it(database: str) -> None:
    peek = Peek(database)

    run(
        make_dsn(database, application_name="nightly"),
        "SELECT pgevents.skip('Preise, brutto €', '{orders, shop.*}'); INSERT INTO orders VALUES (1), (2)",
    )

    mark = Mark("Preise, brutto €", ("public.orders", "shop.*"), by="postgres", application="nightly")
    assert peek.transactions() == [[mark, "I orders", "I orders"]]


def test_the_mark_of_a_savepoint_that_is_rolled_back_does_not_count(database: str) -> None:
    peek = Peek(database)

    run(
        database,
        "BEGIN; SAVEPOINT a; SELECT pgevents.skip('no'); INSERT INTO orders VALUES (1); ROLLBACK TO a;"
        " INSERT INTO orders VALUES (2); COMMIT",
    )

    assert peek.transactions() == [["I orders"]]


def test_the_role_that_logged_in_marks_and_not_the_one_it_set_nor_the_owner(database: str, migrator: str) -> None:
    allow(database, migrator)
    peek = Peek(database)

    run(migrator, "BEGIN; SELECT pgevents.skip('x'); INSERT INTO orders VALUES (1); COMMIT")
    run(database, f"BEGIN; SET LOCAL ROLE {parse_dsn(migrator)['user']}; SELECT pgevents.skip('y'); COMMIT")

    assert [seen[0].by for seen in peek.transactions() if isinstance(seen[0], Mark)] == [
        parse_dsn(migrator)["user"],
        "postgres",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        "NULL",
        "''",
        "E' \\n'",
        "repeat('x', 1001)",
        "'x', '{}'",
        "'x', ARRAY[NULL]",
        "'x', ARRAY['orders', '']",
        "'x', ARRAY[repeat('x', 261)]",
        "'x', array_fill('a'::text, ARRAY[1001])",
    ],
)
def test_a_mark_that_would_be_malformed_is_refused_where_it_is_made(database: str, arguments: str) -> None:
    assert refusal(database, f"SELECT pgevents.skip({arguments})") == INVALID


def test_a_mark_of_too_many_bytes_is_refused_where_it_is_made(database: str) -> None:
    tables = "array_fill(repeat('x', 260), ARRAY[300])"

    assert refusal(database, f"SELECT pgevents.skip('x', {tables})") == "54000"


def test_the_largest_mark_that_is_allowed_is_understood(database: str) -> None:
    peek = Peek(database)

    run(database, "SELECT pgevents.skip(repeat('€', 1000), array_fill(repeat('t', 50), ARRAY[10, 100]))")

    ((mark,),) = peek.transactions()
    assert isinstance(mark, Mark)
    assert (len(mark.reason), len(mark.tables or ())) == (1000, 1000)


def test_a_mark_that_may_come_too_late_is_warned_of(database: str) -> None:
    with closing(psycopg2.connect(database)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT pgevents.skip('in time')")
        connection.rollback()
        assert connection.notices == []

        cursor.execute("INSERT INTO orders VALUES (1); SELECT pgevents.skip('late')")

        (notice,) = connection.notices
    assert notice.startswith("WARNING:  this transaction has written something already")


def test_a_mark_is_in_utf8_in_a_database_of_another_encoding(postgres15: Postgres, database15: str) -> None:
    name = f"latin_{secrets.token_hex(4)}"
    run(database15, f"CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
    run(postgres15.dsn(name), MIGRATION)
    peek = Peek(postgres15.dsn(name))

    run(postgres15.dsn(name), "SELECT pgevents.skip('für später', '{größen}')")

    assert peek.transactions() == [[Mark("für später", ("public.größen",), by="postgres", application="")]]


def test_nobody_may_mark_until_it_is_granted(database: str, migrator: str) -> None:
    mark = "SELECT pgevents.skip('x')"
    assert refusal(migrator, mark) == DENIED
    assert refusal(as_role(database), mark) == DENIED

    allow(database, migrator)
    run(migrator, mark)


def test_the_script_may_be_run_again_and_takes_nothing_from_anybody(database: str, migrator: str) -> None:
    allow(database, migrator)

    run(database, MIGRATION)

    run(migrator, "SELECT pgevents.skip('x')")
    assert not ask(database, "SELECT has_function_privilege('pgevents', 'pgevents.skip(text, text[])', 'EXECUTE')")


def test_a_search_path_does_not_change_what_is_written(database: str, migrator: str) -> None:
    allow(database, migrator)
    run(
        database,
        f"CREATE SCHEMA trap AUTHORIZATION {parse_dsn(migrator)['user']}",
        "CREATE FUNCTION trap.convert_to(text, name) RETURNS bytea LANGUAGE sql AS $$ SELECT 'x'::bytea $$",
        "CREATE FUNCTION trap.btrim(text, text) RETURNS text LANGUAGE sql AS $$ SELECT '' $$",
    )
    peek = Peek(database)

    run(migrator, "SET search_path = trap, pg_catalog; SELECT pgevents.skip('x')")

    assert reasons(peek) == [["x"]]


@pytest.mark.parametrize("server", ["postgres15", "postgres18"])
def test_where_emitting_messages_is_revoked_only_the_function_marks(
    server: str, request: pytest.FixtureRequest
) -> None:
    dsn = request.getfixturevalue(server.replace("postgres", "database"))
    name = f"forger_{secrets.token_hex(4)}"
    forge = "SELECT pg_logical_emit_message(true, 'pgevents.skip', 'x'{})"
    run(dsn, MIGRATION, f"CREATE ROLE {name} LOGIN")
    forger = make_dsn(dsn, user=name)
    run(forger, forge.format("::text"), forge.format("::bytea"))

    run(dsn, REVOKE)
    allow(dsn, forger)
    peek = Peek(dsn)

    assert {refusal(forger, forge.format(kind)) for kind in ("::text", "::bytea")} == {DENIED}
    run(forger, "SELECT pgevents.skip('in order')")
    assert reasons(peek) == [["in order"]]
    run(dsn, f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


def test_one_who_is_no_superuser_may_own_the_function(database15: str) -> None:
    name = f"owner_{secrets.token_hex(4)}"
    database = parse_dsn(database15)["dbname"]
    run(database15, "DROP SCHEMA pgevents CASCADE", f"CREATE ROLE {name} LOGIN")
    run(database15, f"GRANT CREATE ON DATABASE {database} TO {name}")
    peek = Peek(database15)

    run(make_dsn(database15, user=name), MIGRATION, "SELECT pgevents.skip('x')")

    assert reasons(peek) == [["x"]]
    run(database15, f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


def psycopg2_connection(dsn: str, *, autocommit: bool) -> Connection:
    connection = psycopg2.connect(dsn, cursor_factory=psycopg2.extras.RealDictCursor)
    connection.autocommit = autocommit
    return connection


def psycopg_connection(dsn: str, *, autocommit: bool) -> Connection:
    return psycopg.connect(dsn, autocommit=autocommit, row_factory=dict_row)


@pytest.fixture(params=[psycopg2_connection, psycopg_connection])
def connect(request: pytest.FixtureRequest) -> Callable[..., Connection]:
    kind: Callable[..., Connection] = request.param
    return kind


@pytest.fixture(params=[False, True], ids=["transactions", "autocommit"])
def connection(
    connect: Callable[..., Connection], database: str, request: pytest.FixtureRequest
) -> Iterator[Connection]:
    with closing(connect(database, autocommit=request.param)) as opened:
        yield opened


def insert(connection: Connection, *ids: int) -> None:
    with connection.cursor() as cursor:
        for each in ids:
            cursor.execute("INSERT INTO orders VALUES (%s)", [each])


def insert_and_fail(connection: Connection, *ids: int) -> None:
    insert(connection, *ids)
    raise ZeroDivisionError


def mute_and_fail(connection: Connection) -> None:
    with muted(connection, reason="prices"):
        insert(connection, 1)
    raise ZeroDivisionError


def transaction(connection: Connection) -> AbstractContextManager[Any]:
    """As each driver has it; psycopg2 sends BEGIN with the first statement."""
    return connection.transaction() if isinstance(connection, psycopg.Connection) else connection


def test_a_muted_block_is_a_transaction_that_is_marked_and_committed(connection: Connection, database: str) -> None:
    peek = Peek(database)

    with muted(connection, reason="prices", tables=["orders"]):
        insert(connection, 1, 2)
    insert(connection, 3)
    connection.commit()

    (mark, *changes), after = peek.transactions()
    assert mark == Mark("prices", ("public.orders",), by="postgres", application="")
    assert changes == ["I orders"] * 2
    assert after == ["I orders"]


def test_a_muted_block_that_fails_is_rolled_back_and_what_follows_is_not_muted(
    connection: Connection, database: str
) -> None:
    peek = Peek(database)

    with pytest.raises(ZeroDivisionError), muted(connection, reason="prices"):
        insert_and_fail(connection, 1)
    insert(connection, 2)
    connection.commit()

    assert reasons(peek) == [["I orders"]]


def test_a_transaction_that_is_open_is_marked_and_ended_by_who_opened_it(
    connection: Connection, database: str
) -> None:
    peek = Peek(database)

    with transaction(connection):
        connection.cursor().execute("SELECT 1")
        with muted(connection, reason="prices"):
            insert(connection, 1)
        insert(connection, 2)
        assert reasons(peek) == []

    assert reasons(peek) == [["prices", "I orders", "I orders"]]


def test_a_transaction_block_whose_begin_was_not_sent_yet_is_open_too(connection: Connection, database: str) -> None:
    peek = Peek(database)

    with pytest.raises(ZeroDivisionError), transaction(connection):
        mute_and_fail(connection)

    assert reasons(peek) == []
    assert ask(database, "SELECT count(*) FROM orders") == 0


def test_a_transaction_that_has_written_cannot_be_muted_any_more(connection: Connection, database: str) -> None:
    peek = Peek(database)

    with transaction(connection):
        insert(connection, 1)
        with pytest.raises(MutedTooLate, match="has written something already"), muted(connection, reason="late"):
            insert(connection, 2)

    assert reasons(peek) == [["I orders"]]
    assert issubclass(MutedTooLate, RuntimeError)


def test_many_blocks_are_as_many_transactions(connection: Connection, database: str) -> None:
    peek = Peek(database)

    for batch in (1, 2):
        with muted(connection, reason=f"batch {batch}"):
            insert(connection, batch)

    assert reasons(peek) == [["batch 1", "I orders"], ["batch 2", "I orders"]]


def test_where_the_function_is_missing_the_script_is_named(connection: Connection, database: str) -> None:
    run(database, "DROP FUNCTION pgevents.skip(text, text[])")

    with pytest.raises(SourceRefused, match=r"no function pgevents\.skip") as refused, muted(connection, reason="x"):
        pytest.fail("the block was entered")

    assert "migrations/0002_skip.sql" in refused.value.hint
    insert(connection, 1)


def test_where_the_schema_is_missing_the_script_is_named(connection: Connection, database: str) -> None:
    run(database, "DROP SCHEMA pgevents CASCADE")

    with pytest.raises(SourceRefused, match=r"no function pgevents\.skip"), muted(connection, reason="x"):
        pytest.fail("the block was entered")


def test_a_role_that_may_not_mark_is_told_what_to_grant(connect: Callable[..., Connection], migrator: str) -> None:
    with closing(connect(migrator, autocommit=False)) as connection:
        with pytest.raises(PrivilegeError, match=r"may not call pgevents\.skip") as refused:  # noqa: SIM117
            with muted(connection, reason="x"):
                pytest.fail("the block was entered")

        assert refused.value.hint.startswith("GRANT USAGE ON SCHEMA pgevents")
        insert(connection, 1)


def test_what_the_function_refuses_is_the_drivers_error(connection: Connection) -> None:
    with pytest.raises(connection.Error, match="a reason of 1 to 1000 characters"), muted(connection, reason=" "):
        pytest.fail("the block was entered")


def test_one_text_is_not_a_list_of_tables(connection: Connection) -> None:
    with pytest.raises(TypeError, match="a list of patterns"), muted(connection, reason="x", tables="orders"):
        pytest.fail("the block was entered")


class Order:
    """What makes nothing of a row with other columns."""

    def __init__(self, *, id: int) -> None:
        self.id = id


PSYCOPG = (
    *({"cursor_factory": kind} for kind in (psycopg.RawCursor, psycopg.ClientCursor)),
    {"cursor_factory": psycopg.RawCursor, "row_factory": class_row(Order)},
    *({"row_factory": rows} for rows in (class_row(Order), kwargs_row(Order), scalar_row)),
    {"prepare_threshold": 0},
)
PSYCOPG2 = (
    *({"cursor_factory": getattr(psycopg2.extras, f"{kind}Cursor")} for kind in ("Dict", "RealDict", "NamedTuple")),
    *(
        {"connection_factory": getattr(psycopg2.extras, f"{kind}Connection")}
        for kind in ("Dict", "RealDict", "NamedTuple")
    ),
)


@pytest.mark.parametrize(
    ("driver", "options"),
    [*((psycopg, options) for options in PSYCOPG), *((psycopg2, options) for options in PSYCOPG2)],
)
def test_a_block_is_muted_whatever_cursors_and_rows_the_connection_has(
    database: str, driver: Any, options: dict[str, Any]
) -> None:
    peek = Peek(database)

    with closing(driver.connect(database, **options)) as connection:
        with muted(connection, reason="50 %", tables=["orders"]):
            connection.cursor().execute("INSERT INTO orders VALUES (1)")
        connection.cursor().execute("SELECT 1")
        with muted(connection, reason="prices"):
            connection.cursor().execute("INSERT INTO orders VALUES (2)")
        with pytest.raises(MutedTooLate), muted(connection, reason="late"):
            pytest.fail("the block was entered")
        connection.commit()

    assert reasons(peek) == [["50 %", "I orders"], ["prices", "I orders"]]


@pytest.fixture(params=[False, True], ids=["transactions", "autocommit"])
def pipelined(database: str, request: pytest.FixtureRequest) -> Iterator[Connection]:
    with psycopg.connect(database, autocommit=request.param) as connection, connection.pipeline():
        yield connection


def test_a_block_in_a_pipeline_is_a_transaction_that_is_marked_and_committed(
    pipelined: Connection, database: str
) -> None:
    peek = Peek(database)

    for batch in (1, 2):
        with muted(pipelined, reason=f"batch {batch}"):
            insert(pipelined, batch)

    assert reasons(peek) == [["batch 1", "I orders"], ["batch 2", "I orders"]]


def test_a_block_behind_what_the_pipeline_has_not_sent_yet_is_marked(pipelined: Connection, database: str) -> None:
    peek = Peek(database)

    pipelined.execute("SELECT 1")
    with muted(pipelined, reason="prices"):
        insert(pipelined, 1)
    insert(pipelined, 2)
    pipelined.commit()

    rest = [["I orders"]] if pipelined.autocommit else []
    assert reasons(peek) == [["prices", *["I orders"] * (2 - len(rest))], *rest]


def test_a_transaction_of_a_pipeline_that_has_written_cannot_be_muted_any_more(
    pipelined: Connection, database: str
) -> None:
    peek = Peek(database)

    with pipelined.transaction():
        insert(pipelined, 1)
        with pytest.raises(MutedTooLate, match="has written something already"), muted(pipelined, reason="late"):
            pytest.fail("the block was entered")

    assert reasons(peek) == [["I orders"]]


def test_in_a_pipeline_a_missing_function_is_named_before_the_block_is_entered(
    pipelined: Connection, database: str
) -> None:
    run(database, "DROP FUNCTION pgevents.skip(text, text[])")

    with pytest.raises(SourceRefused, match=r"no function pgevents\.skip"), muted(pipelined, reason="x"):
        pytest.fail("the block was entered")

    insert(pipelined, 1)


def test_an_asynchronous_connection_of_psycopg2_is_told_what_to_run(database: str) -> None:
    with closing(psycopg2.connect(database, async_=True)) as connection:
        psycopg2.extras.wait_select(connection)

        with pytest.raises(TypeError, match=r"not asynchronous.*SELECT pgevents\.skip"):  # noqa: SIM117
            with muted(connection, reason="x"):
                pytest.fail("the block was entered")


def test_an_asynchronous_connection_of_psycopg_is_told_what_to_run(database: str) -> None:
    async def mute() -> None:
        async with await psycopg.AsyncConnection.connect(database) as connection:
            with muted(connection, reason="x"):
                pytest.fail("the block was entered")

    with pytest.raises(TypeError, match=r"not psycopg\.AsyncConnection: there, run SELECT pgevents\.skip"):
        asyncio.run(mute())


@pytest.mark.parametrize("stranger", [None, nullcontext(), "dbname=shop"])
def test_another_kind_of_connection_is_told_what_to_run(stranger: Any) -> None:
    with pytest.raises(TypeError, match=r"SELECT pgevents\.skip"), muted(stranger, reason="x"):
        pytest.fail("the block was entered")


PARTED = (
    "CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id)",
    "CREATE TABLE part_1 PARTITION OF parted FOR VALUES FROM (0) TO (100)",
    "CREATE TABLE part_2 PARTITION OF parted FOR VALUES FROM (100) TO (1000)",
)


def skipped(outcome: Outcome) -> list[int]:
    """How many inserts each record counts."""
    records = [event["skip"]["rows"] for event in outcome.events if event["op"] == "skip"]
    return [sum(table.get("insert", 0) for table in rows) for rows in records]


NOTHING_COVERED = "a mark names tables in which nothing was changed"


@pytest.mark.parametrize(
    ("plugin", "via_root", "named", "covers"),
    [
        ("wal2json", False, "public.parted", False),
        ("wal2json", False, "public.part_*", True),
        ("pgoutput", False, "public.parted", False),
        ("pgoutput", False, "public.part_*", True),
        ("pgoutput", True, "public.parted", True),
        ("pgoutput", True, "public.part_*", False),
    ],
)
def test_a_mark_names_tables_as_they_are_in_events_which_of_a_partitioned_one_are_its_partitions(
    database15: str, tmp_path: Path, plugin: str, *, via_root: bool, named: str, covers: bool
) -> None:
    run(database15, MIGRATION, *PARTED)
    shop = Shop(database15, plugin=plugin)
    if via_root:
        run(database15, "ALTER PUBLICATION pgevents SET (publish_via_partition_root = true)")
    run(
        database15,
        f"BEGIN; SELECT pgevents.skip('x', ARRAY['{named}']); INSERT INTO parted VALUES (1), (2), (101); COMMIT",
        "INSERT INTO parted VALUES (3), (102), (103)",
    )

    rules = ("--skip-marked", "--skip-rows", "2", "--skip-action", "drop")
    outcome = pgevents(tmp_path, "stream", *shop.options, *rules, "--sink", "stdout:", "--until-lsn", "now")

    assert outcome.code == 0, outcome.stderr
    ops = [event["op"] for event in outcome.events]
    assert ops == [*["insert"] * (0 if covers else 3), "skip", "skip"]
    assert skipped(outcome) == [3 if covers else 0, 3]
    assert (NOTHING_COVERED in outcome.stderr) is not covers
