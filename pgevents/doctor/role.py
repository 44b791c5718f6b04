"""The role: what it may do, for how long, and how often it may connect."""

from collections.abc import Iterator

from pgevents.doctor.database import Database
from pgevents.doctor.finding import Finding, ok, warning
from pgevents.postgres import quoted

# The replication connection, one for the catalog, one for a start, one each for watermark and windows in a table.
CONNECTIONS = 5

_ROLE = """
select rolsuper, rolconnlimit, rolvaliduntil < now() + interval '30 days', rolvaliduntil::text
from pg_catalog.pg_roles where rolname = current_user
"""


def check_role(database: Database) -> Iterator[Finding]:
    ((is_superuser, limit, expires_soon, valid_until),) = database.sql.rows(_ROLE)
    role, subject = quoted(database.role), f"role {database.role}"
    found = False
    if is_superuser:
        found = True
        yield warning(
            "role",
            subject,
            "it is a superuser, which is more than PGEvents needs",
            fix="Connect as a role made by deploy/sql/role.sql.",
        )
    elif 0 <= limit < CONNECTIONS:
        found = True
        yield warning(
            "role",
            subject,
            f"it may connect {limit} times at once, and a stream takes up to {CONNECTIONS}",
            fix="Raise the limit.",
            sql=(f"ALTER ROLE {role} CONNECTION LIMIT {CONNECTIONS * 2}",),
        )
    if expires_soon:
        found = True
        yield warning(
            "role",
            subject,
            f"its password is valid until {valid_until}; after that the stream cannot connect again",
            fix="Renew it.",
            sql=(f"ALTER ROLE {role} VALID UNTIL 'infinity'",),
        )
    if not found:
        yield ok("role", f"{subject} has what is needed and no more")


CHECKS = (check_role,)
