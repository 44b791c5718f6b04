"""The role that PGEvents runs under in the tests: that of deploy/sql/role.sql, and not the superuser."""

from contextlib import closing
from pathlib import Path

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import make_dsn, parse_dsn

ROLE = "pgevents"
SCRIPT = Path(__file__).parents[2] / "deploy" / "sql" / "role.sql"


def install_role(dsn: str) -> None:
    """Run the script in a database, as the superuser of the DSN. The role gets the superuser's password, if any."""
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(SCRIPT.read_text())
        if password := parse_dsn(dsn).get("password"):
            statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(ROLE), sql.Literal(password))
            cursor.execute(statement)


def as_role(dsn: str) -> str:
    """The same database, as the role."""
    return make_dsn(dsn, user=ROLE)


def publish_all(dsn: str, publication: str = "pgevents") -> None:
    """Create a publication of all tables, which takes a superuser; leave it where it is there."""
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("SELECT FROM pg_publication WHERE pubname = %s", (publication,))
        if not cursor.rowcount:
            statement = sql.SQL("CREATE PUBLICATION {} FOR ALL TABLES").format(sql.Identifier(publication))
            cursor.execute(statement)
