"""``pgevents config``: what is configured, where it came from, and whether the rules fit the database."""

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from pgevents import log
from pgevents.config import Resolution
from pgevents.errors import EXIT_DONE, EXIT_USAGE, ConfigError
from pgevents.flags import AS_JSON, Commands, takes
from pgevents.mask import mask_dsn
from pgevents.rule_mistake import noted
from pgevents.rule_view import as_document, lines
from pgevents.terminal import as_text, complain, resolution_of

if TYPE_CHECKING:
    from pgevents.push_down import PushDown

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
def check(config: str | None, *, as_json: bool, **flags: Any) -> int:
    """Check every option and rule; and the rules against the database, when one is given.

    Prints a line for each rule that is allowed and hardly meant, and with push_down what wal2json will leave out.
    Exit code 0: all can be used, 2: something cannot, and lines say what and where.
    """
    found = _Found(config)
    with noted(found.mistakes):
        found.look(resolution_of(config, flags))
    if as_json:
        click.echo(as_text(found.as_document()))
        return EXIT_USAGE if found.mistakes else EXIT_DONE
    for warning in found.warnings:
        click.echo(f"warning: {log.one_line(warning)}")
    for line in found.pushed.lines() if found.pushed else ():
        click.echo(log.one_line(line))
    if found.mistakes:
        *others, last = found.mistakes
        for mistake in others:
            complain(mistake)
        raise last
    asked = (
        "and fits the database" if found.database else "but no --dsn is given: it was not checked against a database"
    )
    click.echo(f"{found.file or 'what is configured'} can be used, {asked}")
    return EXIT_DONE


@dataclass(slots=True)
class _Found:
    """What the check found. ``mistakes`` are all there are, as far as one does not hide another."""

    file: str | None
    database: bool = False
    mistakes: list[ConfigError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    pushed: "PushDown | None" = None

    def look(self, resolution: Resolution) -> None:
        from pgevents.rule_check import check_file

        settings = resolution.settings
        self.file, self.database = resolution.file, bool(settings.dsn or resolution.libpq)
        with noted(self.mistakes):
            _check_sink(settings.sink)
        with noted(self.mistakes):
            self.warnings += check_file(settings)
        if self.database:
            with noted(self.mistakes):
                more, self.pushed = _check_database(resolution)
                self.warnings += more

    def as_document(self) -> dict[str, Any]:
        errors = [{"error": mask_dsn(str(each)), "hint": mask_dsn(each.hint)} for each in self.mistakes]
        document = {"file": self.file, "database": self.database, "errors": errors, "warnings": self.warnings}
        return document | ({"push_down": self.pushed.as_dict()} if self.pushed else {})


def _check_sink(url: str) -> None:
    """What can be said of a sink's URL without opening it. Raises ConfigError."""
    from pgevents.session import module_of
    from pgevents.sink.amqp.url import parse

    if not url:
        return
    module_of(url)
    if url.partition(":")[0] in ("amqp", "amqps"):
        parse(url)


def _check_database(resolution: Resolution) -> tuple[list[str], "PushDown | None"]:
    """The warnings, and what is pushed down where that is asked for."""
    from pgevents.plugin import left_out
    from pgevents.postgres import Sql
    from pgevents.push_down import is_asked_for
    from pgevents.rule_check import check_rules
    from pgevents.server import look
    from pgevents.session import open_windows
    from pgevents.table import check_patterns

    settings = resolution.settings
    with Sql(settings.dsn) as sql:
        look(sql)  # also where nothing else asks: what is said below is about this database
        check_patterns(sql, settings.tables)
        warnings = check_rules(sql, settings)
        if not is_asked_for(settings):
            return warnings, None
        with closing(open_windows(settings)) as windows:
            has_windows = bool(windows.load())
        return warnings, left_out(sql, settings, plugin=settings.plugin, has_windows=has_windows)
