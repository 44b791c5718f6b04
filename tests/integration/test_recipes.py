"""docs/recipes.md, run as it stands there: each recipe's mark is the first thing in its transaction."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import psycopg2
import pytest
from psycopg2.extensions import parse_dsn
from sqlalchemy import create_engine

from pgevents.demo.postgres import Postgres
from pgevents.mark import Mark
from pgevents.muted import muted
from tests.integration.command import environment
from tests.integration.peek import Peek, Seen
from tests.integration.streaming import ask, run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "recipes.md").read_text()
MIGRATION = (ROOT / "migrations" / "0002_skip.sql").read_text()

# Numbers that do not compress: large enough that a dump of them can be cut in the middle of a table's rows.
FILL = "INSERT INTO orders SELECT i, i, md5(i::text) || md5((-i)::text) FROM generate_series(1, {}) i"


def recipe(heading: str, language: str, number: int = 0) -> str:
    """The code of a block below a heading of the page."""
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(f"{heading}\n")]
    blocks: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return blocks[number]


@pytest.fixture
def database(database15: str) -> str:
    run(
        database15,
        MIGRATION,
        "CREATE TABLE orders (id int PRIMARY KEY, price numeric, note text)",
        "INSERT INTO orders VALUES (1, 10, 'a'), (2, 20, 'b')",
    )
    return database15


@pytest.fixture
def url(database: str) -> str:
    login = parse_dsn(database)
    return f"postgresql+psycopg://{login['user']}@{login['host']}:{login['port']}/{login['dbname']}"


class Shell:
    """Runs programs in a folder, to which libpq's variables say where the database is."""

    def __init__(self, folder: Path, dsn: str, binaries: Path) -> None:
        self.folder = folder
        login = parse_dsn(dsn)
        self._variables = {
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "PGHOST": login["host"],
            "PGPORT": login["port"],
            "PGUSER": login["user"],
            "PGDATABASE": login["dbname"],
            "PGAPPNAME": "recipe",
        }

    def run(self, *command: str, more: Mapping[str, str] | None = None) -> int:
        return self.said(*command, more=more)[0]

    def said(self, *command: str, more: Mapping[str, str] | None = None) -> tuple[int, str]:
        """The exit code, and what was written on both outputs."""
        ran = subprocess.run(
            command,
            cwd=self.folder,
            env=environment({**self._variables, **(more or {})}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return ran.returncode, ran.stdout

    def must(self, *command: str, more: Mapping[str, str] | None = None) -> None:
        code, said = self.said(*command, more=more)
        assert code == 0, said


@pytest.fixture
def shell(tmp_path: Path, database: str, postgres15: Postgres) -> Shell:
    return Shell(tmp_path, database, postgres15.binaries.folder)


def brief(transactions: list[list[Seen]]) -> list[list[str]]:
    """Of each mark its reason, and of equal changes in a row one."""
    written = [[each.reason if isinstance(each, Mark) else each for each in seen] for seen in transactions]
    return [[each for each, before in zip(seen, ["", *seen], strict=False) if each != before] for seen in written]


def test_the_first_example_is_a_marked_transaction(database: str) -> None:
    peek = Peek(database)

    run(database, re.findall(r"^```sql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[0])

    ((mark, *changes),) = peek.transactions()
    assert mark == Mark("prices with VAT", ("public.orders",), by="postgres", application="")
    assert changes == ["U orders"] * 2


def test_the_privileges_are_those_that_the_script_shows() -> None:
    shown = re.sub("^-- *", "", MIGRATION, flags=re.MULTILINE)
    for number in (0, 1):
        for line in recipe("Who may mark", "sql", number).splitlines():
            assert f"{line.strip()}\n" in shown


def test_psql_marks_a_script(database: str, shell: Shell) -> None:
    (shell.folder / "migration.sql").write_text("UPDATE orders SET price = 1; DELETE FROM orders;")
    peek = Peek(database)

    shell.must("sh", "-c", recipe("psql", "sh"))

    assert brief(peek.transactions()) == [["prices with VAT", "U orders", "D orders"]]


def test_psql_leaves_nothing_of_a_script_that_fails(database: str, shell: Shell) -> None:
    (shell.folder / "migration.sql").write_text("UPDATE orders SET price = 1;\nSELECT 1 / 0;\n")
    peek = Peek(database)

    assert shell.run("sh", "-c", recipe("psql", "sh")) == 3

    assert peek.transactions() == []


def test_psql_leaves_no_mark_of_a_savepoint_that_is_rolled_back(database: str, shell: Shell) -> None:
    script = recipe("psql", "sh").replace('"SELECT', '"SAVEPOINT a" --command "SELECT')
    (shell.folder / "migration.sql").write_text("ROLLBACK TO a; DELETE FROM orders;")
    peek = Peek(database)

    shell.must("sh", "-c", script)

    assert brief(peek.transactions()) == [["D orders"]]


@pytest.fixture
def archive(database: str, shell: Shell) -> Path:
    """An archive of a database of many orders and a large object, which has none of them any more."""
    run(database, "TRUNCATE orders", FILL.format(20_000))
    run(database, "SELECT lo_from_bytea(4711, 'x')")
    shell.must("pg_dump", "--format=custom", "--schema=public", "--blobs", "--file=shop.dump")
    run(database, "TRUNCATE orders", "SELECT lo_unlink(4711)")
    return shell.folder / "shop.dump"


@pytest.mark.usefixtures("archive")
def test_pg_restore_is_marked_as_one_transaction(database: str, shell: Shell) -> None:
    peek = Peek(database)

    shell.must("bash", "-c", recipe("pg_restore", "bash"))

    assert brief(peek.transactions()) == [["orders of 2025, from the archive", "I orders"]]
    assert ask(database, "SELECT count(*) FROM orders") == 20_000
    assert ask(database, "SELECT count(*) FROM pg_largeobject_metadata") == 1


@pytest.mark.usefixtures("archive")
def test_pg_restore_leaves_nothing_where_a_row_cannot_be_restored(database: str, shell: Shell) -> None:
    run(database, "INSERT INTO orders VALUES (10000)")
    peek = Peek(database)

    assert shell.run("bash", "-c", recipe("pg_restore", "bash")) != 0

    assert peek.transactions() == []
    assert ask(database, "SELECT count(*) FROM orders") == 1


def test_pg_restore_leaves_nothing_of_an_archive_that_is_cut_off(database: str, shell: Shell, archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-300_000])
    peek = Peek(database)

    assert shell.run("bash", "-c", recipe("pg_restore", "bash")) != 0

    assert peek.transactions() == []


FIRST_REVISION = """
from alembic import op

revision = "0001"
down_revision = None


def upgrade():
    op.execute("INSERT INTO orders VALUES (3, 30, 'c')")


def downgrade():
    op.execute("DELETE FROM orders WHERE id = 3")
"""


@pytest.fixture
def alembic(shell: Shell, url: str) -> Callable[..., None]:
    """Runs alembic with the page's environment, changed where a test says so, and its revision as the second."""
    versions = shell.folder / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "0001.py").write_text(FIRST_REVISION)
    (versions / "0002.py").write_text(recipe("Alembic", "python", 0))
    (shell.folder / "alembic.ini").write_text(f"[alembic]\nscript_location = migrations\nsqlalchemy.url = {url}\n")

    def run_alembic(*arguments: str, each_alone: bool = True) -> None:
        script = recipe("Alembic", "python", 1).replace("=True", f"={each_alone}")
        (versions.parent / "env.py").write_text(script)
        shell.must(sys.executable, "-m", "alembic", *arguments)

    return run_alembic


def test_an_alembic_revision_is_marked_both_ways(database: str, alembic: Callable[..., None]) -> None:
    peek = Peek(database)

    alembic("upgrade", "head")
    alembic("downgrade", "0001")

    assert brief(peek.transactions()) == [
        ["I orders", "I alembic_version"],
        ["revision 0002: prices with VAT", "U orders", "U alembic_version"],
        ["revision 0002, undone", "U orders", "U alembic_version"],
    ]


def test_alembic_marks_too_late_where_all_revisions_share_a_transaction(
    database: str, alembic: Callable[..., None]
) -> None:
    peek = Peek(database)

    alembic("upgrade", "head", each_alone=False)

    ((*early, mark, first, _),) = brief(peek.transactions())
    assert early == ["I orders", "I alembic_version"]
    assert (mark, first) == ("revision 0002: prices with VAT", "U orders")


DJANGO_SETTINGS = """
import os

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ["PGDATABASE"],
        "OPTIONS": {"server_side_binding": os.environ["BINDING"] == "server"},
    }
}
INSTALLED_APPS = ["shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
"""

DJANGO_MODELS = """
from django.db import models


class Order(models.Model):
    price = models.DecimalField(max_digits=9, decimal_places=2)
    closed = models.BooleanField(default=False)
"""

DJANGO_FIRST = """
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel(
            "Order",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("price", models.DecimalField(max_digits=9, decimal_places=2)),
                ("closed", models.BooleanField(default=False)),
            ],
        ),
        migrations.RunSQL("INSERT INTO shop_order (price, closed) VALUES (10, false), (20, false)", ""),
    ]
"""

DJANGO_SAVEPOINT = """
import django

django.setup()

from django.db import transaction
from recipe import close_orders
from shop.models import Order

with transaction.atomic():
    with transaction.atomic():
        close_orders()
        transaction.set_rollback(True)
    Order.objects.update(price=1)
"""


@pytest.fixture(params=["client", "server"])
def django(shell: Shell, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Runs Python in a project with the page's migration and code, with the parameters bound by either side."""
    migrations = shell.folder / "shop" / "migrations"
    migrations.mkdir(parents=True)
    files = {
        shell.folder / "settings.py": DJANGO_SETTINGS,
        shell.folder / "shop" / "__init__.py": "",
        shell.folder / "shop" / "models.py": DJANGO_MODELS,
        migrations / "__init__.py": "",
        migrations / "0001_initial.py": DJANGO_FIRST,
        migrations / "0002_tax.py": recipe("Django", "python", 0),
        shell.folder / "recipe.py": recipe("Django", "python", 1),
    }
    for path, text in files.items():
        path.write_text(text)
    more = {"DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": str(shell.folder), "BINDING": request.param}

    def run_python(*arguments: str) -> None:
        shell.must(sys.executable, *arguments, more=more)

    run_python("-m", "django", "migrate", "shop", "0001")
    return run_python


def test_a_django_migration_is_marked(database: str, django: Callable[..., None]) -> None:
    peek = Peek(database)

    django("-m", "django", "migrate", "shop", "0002")
    django("-m", "django", "migrate", "shop", "0001")

    assert brief(peek.transactions()) == [
        ["shop 0002: prices with VAT", "U shop_order", "I django_migrations"],
        ["D django_migrations"],
    ]


def test_a_django_transaction_is_marked(database: str, django: Callable[..., None]) -> None:
    peek = Peek(database)

    django("-c", "import django; django.setup(); from recipe import close_orders; close_orders()")

    ((mark, *changes),) = peek.transactions()
    assert mark == Mark("closing 2025", ("public.shop_order",), by="postgres", application="recipe")
    assert changes == ["U shop_order"] * 2


def test_an_atomic_block_of_django_that_is_rolled_back_leaves_no_mark(
    database: str, django: Callable[..., None]
) -> None:
    peek = Peek(database)

    django("-c", DJANGO_SAVEPOINT)

    assert brief(peek.transactions()) == [["U shop_order"]]


def defined(code: str, name: str) -> Callable[..., None]:
    """The function that a recipe defines."""
    scope: dict[str, Any] = {}
    exec(code, scope)  # noqa: S102 - it is our own page
    function: Callable[..., None] = scope[name]
    return function


def test_batches_in_python_are_each_marked(database: str) -> None:
    backfill = defined(recipe("Python", "python", 0), "backfill")
    run(database, "TRUNCATE orders", FILL.format(10))
    peek = Peek(database)

    backfill(database, rows=10, batch=4)

    assert brief(peek.transactions()) == [["notes", "U orders"]] * 3
    assert ask(database, "SELECT count(*) FROM orders WHERE note = 'closed'") == 10


@pytest.fixture(params=[psycopg2.connect, psycopg.connect])
def connection(request: pytest.FixtureRequest, database: str) -> Iterator[Any]:
    with closing(request.param(database)) as opened:
        yield opened


def test_a_savepoint_in_python_that_is_rolled_back_leaves_no_mark(connection: Any, database: str) -> None:
    peek = Peek(database)
    cursor = connection.cursor()

    cursor.execute("SAVEPOINT a")
    with muted(connection, reason="notes"):
        cursor.execute("DELETE FROM orders WHERE id = 1")
    cursor.execute("ROLLBACK TO a")
    cursor.execute("DELETE FROM orders WHERE id = 2")
    connection.commit()

    assert brief(peek.transactions()) == [["D orders"]]


def test_a_transaction_of_sqlalchemy_is_marked(database: str, url: str) -> None:
    close_orders = defined(recipe("Python", "python", 1), "close_orders")
    engine = create_engine(url)
    peek = Peek(database)

    close_orders(engine)
    engine.dispose()

    assert brief(peek.transactions()) == [["closing 2025", "U orders"]]
