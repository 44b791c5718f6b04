"""``pgevents parked``: events that could not be published, and what a person decides on them."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pgevents import log
from pgevents.errors import ConfigError
from pgevents.flags import AS_JSON, Commands, takes
from pgevents.interfaces import Reason
from pgevents.terminal import as_text, say, settings_of


@click.group(cls=Commands)
def parked() -> None:
    """Look at events that could not be published, and decide on them. A stream may run meanwhile."""


@parked.command("list", epilog="\b\nExample:\n  pgevents parked list --reason TOO_LARGE")
@takes("park_file")
@click.option("--reason", type=click.Choice([*Reason], case_sensitive=False), help="Only those parked for this.")
@AS_JSON
def list_parked(config: str | None, reason: str | None, *, as_json: bool, **flags: Any) -> None:
    """List what is parked and neither retried nor discarded: id, when, reason, bytes, routing key."""
    path = settings_of(config, flags).park_file
    from pgevents.parked import open_events

    events = [event for event in open_events(Path(path)) if reason in (None, event.reason)]
    if as_json:
        click.echo(as_text([event.as_dict() for event in events]))
        return
    for event in events:
        click.echo(log.one_line(event.line()))
    say(f"{len(events)} events are parked in {path}" if Path(path).exists() else f"There is no park file {path}")


@parked.command("show", epilog="\b\nExample:\n  pgevents parked show 7446123456789012345-1-16B374D848-3")
@click.argument("name", metavar="ID")
@takes("park_file")
@AS_JSON
def show_parked(config: str | None, name: str, *, as_json: bool, **flags: Any) -> None:
    """Show everything about a parked event. ID is a message id, or a park id as list --json shows it."""
    park_file = Path(settings_of(config, flags).park_file)
    from pgevents.parked import open_events, read, select, shown

    [entry] = select(open_events(park_file), [name])
    event = read(park_file, entry)
    if as_json:
        click.echo(event.line, nl=False)
        return
    click.echo("\n".join(map(log.one_line, shown(event).split("\n"))))


@parked.command("retry", epilog="\b\nExample:\n  pgevents parked retry --all --sink amqp://guest:guest@localhost/")
@click.argument("names", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them, in order.")
@click.option("--routing-key", metavar="KEY", help="Publish them with this one, whatever theirs was.")
@takes("sink", "declare", "park_file", "stall_timeout_s")
def retry_parked(
    config: str | None, names: tuple[str, ...], routing_key: str | None, *, everything: bool, **flags: Any
) -> None:
    """Publish parked events again. One that is refused again stays parked, and the exit code is then 1."""
    _require_some(names, everything=everything)
    settings = settings_of(config, flags)
    from pgevents.retry import retry

    asyncio.run(retry(settings, names, routing_key=routing_key, say=say))


@parked.command("discard", epilog="\b\nExample:\n  pgevents parked discard 7446123456789012345-1-16B374D848-3 --yes")
@click.argument("names", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@takes("park_file")
@click.option("--yes", is_flag=True, help="Do not ask for their number to be typed.")
def discard_parked(config: str | None, names: tuple[str, ...], *, everything: bool, yes: bool, **flags: Any) -> None:
    """Give parked events up: they are listed no longer, and never published."""
    _require_some(names, everything=everything)
    park_file = Path(settings_of(config, flags).park_file)
    from pgevents.parked import deciding, open_events, select

    with deciding(park_file) as decisions:
        entries = select(open_events(park_file), names)
        if not yes:
            _confirm_discard(len(entries))
        decisions.add(entries, "discarded")
    say(f"discarded {len(entries)} parked events")


def _require_some(names: Sequence[str], *, everything: bool) -> None:
    if bool(names) == everything:
        raise click.UsageError("give IDs of parked events, or --all")


def _confirm_discard(count: int) -> None:
    if not sys.stdin.isatty():
        raise ConfigError(
            f"discarding {count} events must be confirmed, and standard input is not a terminal", hint="Add --yes."
        )
    say(f"{count} events will never be published.")
    if click.prompt("Type their number to discard them", err=True) != str(count):
        raise ConfigError("nothing was discarded: another number was typed")
