"""``pgevents config``: what is configured, where it came from, and whether the rules fit the database."""

from typing import Any

import click

from pgevents import log
from pgevents.config import Resolution
from pgevents.flags import AS_JSON, Commands, takes
from pgevents.rule_view import as_document, lines
from pgevents.terminal import as_text, resolution_of

_WIDTH = 16


@click.group(cls=Commands, name="config")
def config_group() -> None:
    """Look at the configuration, and check it."""


@config_group.command(epilog="\b\nExample:\n  PGEVENTS_SLOT=shop pgevents config show --window 4")
@takes()
@AS_JSON
def show(config: str | None, *, as_json: bool, **flags: Any) -> None:
    """Print every option with its value and where that came from, secrets masked, and every rule."""
    resolution = resolution_of(config, flags)
    click.echo(as_text(_document(resolution)) if as_json else "\n".join(_lines(resolution)))


def _document(resolution: Resolution) -> dict[str, Any]:
    return {
        "file": resolution.file,
        "options": resolution.shown(),
        "libpq": resolution.libpq,
        "rules": as_document(resolution.settings.rules),
    }


def _lines(resolution: Resolution) -> list[str]:
    rows = [(key, _readable(row["value"]), row["origin"]) for key, row in resolution.shown().items()]
    rows += [(variable, value, "environment, read by libpq") for variable, value in resolution.libpq.items()]
    options = [f"{key:<{_WIDTH}} {value:<28} {origin}" for key, value, origin in rows]
    return options + [log.one_line(line) for line in lines(resolution.settings.rules)]


def _readable(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case tuple():
            return ",".join(value) or "-"
        case _:
            return log.one_line(str(value)) or "-"


@config_group.command(epilog="\b\nExample:\n  pgevents config check --dsn postgresql://app@db/shop")
@takes()
@AS_JSON
def check(config: str | None, *, as_json: bool, **flags: Any) -> None:
    """Check every option and rule; and the rules against the database, when one is given.

    Prints a line for each rule that is allowed and hardly meant. Exit code 0: all can be used, 2: something cannot,
    and a line says what and where.
    """
    resolution = resolution_of(config, flags)
    from pgevents.rule_check import check_file

    warnings = check_file(resolution.settings)
    database = bool(resolution.settings.dsn or resolution.libpq)
    if database:
        warnings += _check_database(resolution)
    if as_json:
        click.echo(as_text({"file": resolution.file, "database": database, "warnings": warnings}))
        return
    for warning in warnings:
        click.echo(f"warning: {log.one_line(warning)}")
    checked = "and fits the database" if database else "but no --dsn is given: it was not checked against a database"
    click.echo(f"{resolution.file or 'what is configured'} can be used, {checked}")


def _check_database(resolution: Resolution) -> list[str]:
    from pgevents.postgres import Sql
    from pgevents.rule_check import check_rules

    with Sql(resolution.settings.dsn) as sql:
        return check_rules(sql, resolution.settings)
