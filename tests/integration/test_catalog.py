"""Where the catalog and the stream are not at the same moment, and what a publication must hold."""

import threading
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from pgevents import publication
from pgevents.demo.postgres import Postgres
from pgevents.demo.process import eventually
from pgevents.errors import SourceRefused
from pgevents.postgres import Sql
from pgevents.start import Wish, create_slot
from tests.integration.role import as_role
from tests.integration.streaming import BOTH, Recording, ask, run

TRANSACTION = """
create domain size as int;
create table fresh (id int primary key, size size, sizes size[]);
alter table fresh replica identity full;
insert into fresh values (1, 5, '{5,6}');
update fresh set size = 7
"""


@pytest.mark.parametrize("plugin", BOTH)
def test_a_commit_is_decoded_by_the_catalog_it_made(postgres15: Postgres, services: Path, plugin: str) -> None:
    """A synchronous standby that does not answer keeps a commit invisible after it was sent."""
    settings = {"synchronous_standby_names": "nobody"}
    with Postgres(services / f"standby_{plugin}", binaries=postgres15.binaries, settings=settings) as server:
        local = f"{server.dsn()} options='-c synchronous_commit=local'"
        recording = Recording(local, plugins=[plugin])
        committing = threading.Thread(target=commit, args=(server.dsn(),))
        committing.start()
        wait_until_committing(local)
        releasing = threading.Timer(1.0, release, args=(local,))
        releasing.start()

        inserted, updated = recording.events(plugin)

        releasing.join()
        committing.join()
    assert inserted["key"] == {"id": 1}
    assert inserted["new"] == {"id": 1, "size": 5, "sizes": [5, 6]}
    assert updated["old_complete"] is True
    assert updated["changed"] == ["size"]


def commit(dsn: str) -> None:
    with closing(psycopg2.connect(dsn)) as connection:
        connection.cursor().execute(TRANSACTION)
        connection.commit()


WAITING = "from pg_stat_activity where wait_event = 'SyncRep'"


def wait_until_committing(dsn: str) -> None:
    assert eventually(lambda: bool(ask(dsn, f"select count(*) {WAITING}")), deadline_s=20)


def release(dsn: str) -> None:
    """End the wait; the commit stands."""
    run(dsn, f"select pg_cancel_backend(pid) {WAITING}")


def test_a_pattern_that_may_match_later_tables_publishes_all(database15: str) -> None:
    run(database15, "create schema shop; create table shop.a (id int primary key)")

    create_slot(database15, Wish(f"late_{slot_suffix(database15)}", "pgoutput", "wild", ["shop.*"]))

    assert ask(database15, "select puballtables from pg_publication where pubname = 'wild'")


def test_named_tables_are_published_alone(database15: str) -> None:
    run(database15, "create table a (id int primary key); create table b (id int primary key)")

    create_slot(database15, Wish(f"named_{slot_suffix(database15)}", "pgoutput", "named", ["a"]))

    assert (
        ask(database15, "select string_agg(tablename, ',') from pg_publication_tables where pubname = 'named'") == "a"
    )


def test_a_publication_that_lacks_a_table_asked_for_is_refused(database15: str) -> None:
    run(database15, "create table a (id int primary key); create table b (id int primary key)")
    run(database15, "create publication chosen for table a")

    with (
        Sql(as_role(database15)) as sql,
        pytest.raises(SourceRefused, match=r"publication chosen lacks public\.b") as caught,
    ):
        publication.check(sql, "chosen", ["public.*"])

    run(database15, caught.value.hint.removeprefix("Run: "))
    with Sql(as_role(database15)) as sql:
        publication.check(sql, "chosen", ["public.*"])


def test_a_partition_is_published_with_its_parent(database15: str) -> None:
    run(
        database15,
        "create table parts (id int primary key) partition by range (id);"
        "create table parts_1 partition of parts for values from (1) to (10);"
        "create publication chosen for table parts",
    )

    with Sql(as_role(database15)) as sql:
        publication.check(sql, "chosen", ["parts", "parts_1"])


def slot_suffix(dsn: str) -> str:
    return str(psycopg2.extensions.parse_dsn(dsn)["dbname"])
