"""``pgevents publication``: what of the rules the publication can do, so that it is not sent in the first place."""

import sys
from typing import TYPE_CHECKING, Any

import click

from pgevents.errors import ConfigError, PrivilegeError, SourceError, SourceRefused
from pgevents.flags import AS_JSON, Commands, takes
from pgevents.log import one_line
from pgevents.settings import Settings
from pgevents.terminal import as_text, say, settings_of

if TYPE_CHECKING:
    from pgevents.postgres import Sql
    from pgevents.publication_plan import Plan

_OPTIONS = ("dsn", "plugin", "publication", "tables", "exclude_tables")

# PostgreSQL 12 has no column pubviaroot.
_PUBLISHED = """
select puballtables, coalesce((pg_catalog.to_jsonb(p) ->> 'pubviaroot')::bool, false)
from pg_catalog.pg_publication p where pubname = %s
"""
_VERSION = "select pg_catalog.current_setting('server_version_num')::int"


@click.group(cls=Commands)
def publication() -> None:
    """Have the publication do what it can of the rules. For slots of pgoutput."""


@publication.command(
    "plan",
    epilog="""\b
Example:
  pgevents publication plan --dsn postgresql://app@db/shop
  pgevents publication plan > publication.sql""",
)
@takes(*_OPTIONS)
@AS_JSON
def plan_publication(config: str | None, *, as_json: bool, **flags: Any) -> None:
    """Print the SQL that makes the publication, what it does of the rules, and what it cannot. Nothing is changed."""
    settings = settings_of(config, flags)
    from pgevents.postgres import Sql

    with Sql(settings.dsn) as sql:
        made = _plan(sql, settings)
    click.echo(as_text(made.as_dict()) if as_json else "\n".join(made.lines()))


@publication.command(
    "apply", epilog="\b\nExample:\n  pgevents publication apply --dsn postgresql://owner@db/shop --yes"
)
@takes(*_OPTIONS)
@click.option("--yes", is_flag=True, help="Do not ask for the publication's name to be typed.")
def apply_publication(config: str | None, *, yes: bool, **flags: Any) -> None:
    """Print the SQL, and run it in one transaction. It takes the owner of the tables and of the publication."""
    settings = settings_of(config, flags)
    from pgevents.postgres import Sql

    with Sql(settings.dsn) as sql:
        made = _plan(sql, settings)
        click.echo("\n".join(made.lines()))
        if not yes:
            _confirm(settings.publication)
        _run(sql, settings.publication, made)
    say(f"publication {settings.publication} is as shown")


def _plan(sql: "Sql", settings: Settings) -> "Plan":
    from pgevents.filters import TableFilter
    from pgevents.publication_plan import Published, plan
    from pgevents.rule_catalog import tables
    from pgevents.rule_check import check_rules
    from pgevents.table import check_patterns, keyless_tables

    check_patterns(sql, settings.tables)
    check_rules(sql, settings)
    found = sql.rows(_PUBLISHED, settings.publication)
    published = Published(True, *found[0]) if found else Published()  # noqa: FBT003 - a row of the view
    keep = TableFilter(settings.tables, settings.exclude_tables)
    [(version,)] = sql.rows(_VERSION)
    return plan(settings, tables(sql), published, version=version, keyless=keyless_tables(sql, keep))


def _confirm(name: str) -> None:
    if not sys.stdin.isatty():
        raise ConfigError(
            f"changing publication {name} must be confirmed, and standard input is not a terminal", hint="Add --yes."
        )
    if click.prompt("Type the publication's name to run it", err=True) != name:
        raise ConfigError(f"publication {name} was not changed: another name was typed")


def _run(sql: "Sql", name: str, made: "Plan") -> None:
    try:
        # Several statements sent as one are one transaction.
        sql.run("; ".join(made.statements))
    except PrivilegeError as error:
        raise PrivilegeError(
            f"the role may not change publication {name}: {error}",
            hint=f"Ask the owner of the tables and of the publication, or a superuser, to run: "
            f"BEGIN; {'; '.join(made.statements)}; COMMIT;",
        ) from error
    except SourceError as error:
        if error.transient or error.alert:
            raise
        raise SourceRefused(
            f"PostgreSQL refuses publication {name} as it is planned: {error}{_detail(error)}",
            hint="Nothing was changed, and the stream applies every rule by itself. pgevents publication plan prints "
            "the SQL: take out what is refused, and run the rest.",
        ) from error


def _detail(error: SourceError) -> str:
    """What PostgreSQL says besides its sentence."""
    diagnosis = getattr(error.__cause__, "diag", None)
    detail = diagnosis.message_detail if diagnosis else None
    return f" ({one_line(detail)})" if detail else ""
