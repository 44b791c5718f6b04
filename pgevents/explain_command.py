"""``pgevents explain``: what the rules make of the changes that wait in the slot."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pgevents import disk
from pgevents.config import Resolution
from pgevents.errors import EXIT_DONE, EXIT_FAILED, ConfigError
from pgevents.flags import AS_JSON, takes
from pgevents.lsn import NOWHERE, Lsn
from pgevents.terminal import resolution_of, say
from pgevents.window import TABLE

if TYPE_CHECKING:
    from pgevents.explain.explanation import Explainer
    from pgevents.explain.recording import Excerpt
    from pgevents.rule import SkipRule
    from pgevents.settings import Settings

LIMIT = 1_000

# Who explains may read rows; nobody else is to.
_PRIVATE = 0o600


@click.command(
    epilog="""\b
Example:
  pgevents explain --slot shop
  pgevents explain --slot shop --record monday.ndjson
  pgevents explain --file monday.ndjson --config new.toml --json"""
)
@takes(
    *(
        "dsn",
        "slot",
        "plugin",
        "publication",
        "state",
        "tables",
        "exclude_tables",
        "push_down",
        "sink",
        "format",
        "look_ahead_bytes",
    ),
    *("skip_marked", "skip_origins", "skip_rows", "skip_action"),
)
@click.option("--file", "source", metavar="RECORDING", help="Explain what was recorded, and ask no server.")
@click.option("--record", metavar="FILE", help="Write what is read, unmasked, into this new file as well.")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(1, 1_000_000_000),
    default=LIMIT,
    help=f"Read N messages, and on to the end of the transaction; list N changes. Default: {LIMIT}",
)
@click.option("--changes/--no-changes", default=True, help="List each change, or transactions alone.")
@AS_JSON
def explain(
    config: str | None,
    source: str | None,
    record: str | None,
    limit: int,
    *,
    changes: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Show what would become of each transaction and change that waits in the slot. Nothing is consumed.

    A slot that a stream reads cannot be looked at meanwhile. Exit code 1: the stream would stop at one of them, which
    is the last that is shown.
    """
    if source and record:
        raise click.UsageError("--file is a recording already: leave out --record")
    resolution = resolution_of(config, flags)
    stops = False
    with _quiet(), _excerpt(resolution, source, record, limit) as excerpt:
        explainer = _explainer(resolution, excerpt, limit=limit, lists_changes=changes, is_live=source is None)
        for verdict in explainer.transactions():
            stops = verdict.stops
            click.echo(verdict.as_json() if as_json else "\n".join(verdict.lines()))
        if explainer.is_cut:
            say(f"Stopped after {limit} messages; there may be more: --limit")
    return EXIT_FAILED if stops else EXIT_DONE


@contextmanager
def _quiet() -> Iterator[None]:
    """What the rules log of a transaction is in its verdict."""
    from pgevents import evidence, sift

    before = {logger: logger.level for logger in (sift.logger, evidence.logger)}
    for logger in before:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)


@contextmanager
def _excerpt(resolution: Resolution, source: str | None, record: str | None, limit: int) -> Iterator["Excerpt"]:
    if source is None and record is None:
        with _peek(resolution, limit) as excerpt:
            yield excerpt
        return
    if record is not None:
        with _peek(resolution, limit) as excerpt:
            _record(excerpt, Path(record))
    # What was recorded is what is explained, so that both are known to be the same.
    with _recorded(Path(source or record or "")) as excerpt:
        yield excerpt


@contextmanager
def _peek(resolution: Resolution, limit: int) -> Iterator["Excerpt"]:
    from pgevents.explain.peek import peek

    settings = resolution.settings
    with peek(
        settings.dsn,
        slot=settings.slot,
        plugin=settings.plugin,
        publication=settings.publication,
        limit=limit,
        push_down=_pushed_down(settings),
    ) as excerpt:
        yield excerpt


def _pushed_down(settings: "Settings") -> Mapping[str, str]:
    """The options with which a stream would read the slot, each said: what wal2json leaves out is not explained."""
    from pgevents.plugin import left_out
    from pgevents.postgres import Sql
    from pgevents.push_down import is_asked_for
    from pgevents.session import open_windows
    from pgevents.slot import report

    if not is_asked_for(settings):
        return {}
    with Sql(settings.dsn) as sql, closing(open_windows(settings)) as windows:
        plugin, has_windows = report(sql, settings.slot).plugin, bool(windows.load())
        pushed = left_out(sql, settings, plugin=plugin, has_windows=has_windows)
    for line in pushed.lines():
        say(line)
    return pushed.options


@contextmanager
def _recorded(path: Path) -> Iterator["Excerpt"]:
    from pgevents.explain.recording import excerpt_of

    try:
        lines = path.open("rb")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {disk.words(error)}", hint="Name a recording with --file.") from error
    with lines:
        yield excerpt_of(lines, name=str(path))


def _record(excerpt: "Excerpt", path: Path) -> None:
    from pgevents.explain.recording import lines_of

    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE), "wb") as file:  # noqa: PTH123 - mode
            file.writelines(lines_of(excerpt))
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {disk.words(error)}", hint="Name a new file.") from error
    say(f"Recorded in {path}. It holds rows as they are, before any mask.")


def _explainer(
    resolution: Resolution, excerpt: "Excerpt", *, limit: int, lists_changes: bool, is_live: bool
) -> "Explainer":
    from pgevents.explain.explanation import Explainer

    settings = resolution.settings
    return Explainer(
        settings,
        excerpt,
        limit=limit,
        lists_changes=lists_changes,
        windows=_windows(settings, is_live=is_live),
        watermark=_watermark(resolution, excerpt) if is_live else NOWHERE,
        exchange=_exchange(settings.sink),
    )


def _windows(settings: "Settings", *, is_live: bool) -> tuple["SkipRule", ...]:
    """No server is asked for a recording, not even for these."""
    from pgevents.session import open_windows

    with closing(open_windows(settings)) as windows:
        if settings.skips == TABLE and not is_live:
            say(f"The windows in {windows} are left aside: of a recording no server is asked.")
            return ()
        return windows.load()


def _watermark(resolution: Resolution, excerpt: "Excerpt") -> Lsn:
    """What lies before it was confirmed, if it is this server's."""
    from pgevents.session import open_state

    state = open_state(resolution.settings)
    try:
        kept = state.load()
    finally:
        state.close()
    return kept.end_lsn if kept is not None and kept.identity == excerpt.head.identity else NOWHERE


def _exchange(sink: str) -> str:
    """The sink's own exchange; what is no broker has none."""
    if sink.partition(":")[0] not in ("amqp", "amqps"):
        return ""
    from pgevents.sink.amqp.url import parse

    return parse(sink).exchange
