"""The command line: click commands, and the one place where an error becomes a line and an exit code."""

import asyncio
import sys
from collections.abc import Sequence
from importlib import resources
from io import StringIO
from typing import TYPE_CHECKING, Any

import click

from pgevents.config_command import config_group
from pgevents.errors import EXIT_DONE, ConfigError, PGEventsError
from pgevents.explain_command import explain
from pgevents.flags import AS_JSON, WITH_VERSION, Commands, Lazy, check_lsn, takes
from pgevents.mask import mask_dsn, mask_value
from pgevents.parked_command import parked
from pgevents.publication_command import publication
from pgevents.route_command import route
from pgevents.settings import Settings
from pgevents.skip_command import skip
from pgevents.terminal import as_text, complain, output_watched, say, settings_of

if TYPE_CHECKING:
    from pgevents.slot import SlotReport

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as a shell reports it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; what went wrong is on standard error."""
    try:
        with output_watched():
            outcome = commands.main(arguments, "pgevents", standalone_mode=False)
    except PGEventsError as error:
        complain(error)
        return error.exit_code
    except click.ClickException as error:
        shown = StringIO()
        error.show(shown)
        click.echo(_masked(shown.getvalue(), sys.argv[1:] if arguments is None else arguments), err=True, nl=False)
        return error.exit_code
    except click.Abort:
        return EXIT_INTERRUPTED
    return outcome if isinstance(outcome, int) else EXIT_DONE


def _masked(message: str, arguments: Sequence[str]) -> str:
    """A message of click's, which may repeat an argument; a URL in the wrong place is one."""
    for given in (part for argument in arguments for part in (argument, argument.partition("=")[2]) if part):
        if (masked := mask_value(given)) != given:
            message = message.replace(given, masked).replace(repr(given)[1:-1], masked)
    return mask_dsn(message)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@WITH_VERSION
def commands() -> None:
    """Committed PostgreSQL row changes as events, confirmed before PostgreSQL may forget them.

    Options also come from PGEVENTS_* variables, libpq's PG* variables and pgevents.toml.
    """


@commands.command(
    epilog="""\b
Example:
  pgevents stream --dsn postgresql://app@db/shop --create-slot \\
    --sink 'amqp://guest:guest@localhost/?exchange=pgevents'"""
)
@takes()
@click.option(
    "--until-lsn", metavar="LSN|now", callback=check_lsn, help="End once everything before it is acknowledged."
)
@click.option("--dry-run", is_flag=True, help="Write events to standard output; the slot does not move.")
@click.option("--accept-gap", is_flag=True, help="Go on behind lost changes, and record that it was decided.")
def stream(config: str | None, until_lsn: str | None, *, dry_run: bool, accept_gap: bool, **flags: Any) -> None:
    """Publish committed changes until told to stop."""
    settings = settings_of(config, flags)
    if not settings.sink and not dry_run:
        raise ConfigError(
            "no sink is given", hint="Say where events go: --sink amqp://…, stdout:, file:PATH or null:"
        )
    from pgevents import app

    asyncio.run(app.stream(settings, until=until_lsn, dry_run=dry_run, accept_gap=accept_gap, say=say))


@commands.command(epilog="\b\nExample:\n  pgevents tail --dsn postgresql://app@db/shop --table 'public.*'")
@takes("dsn", "sink", "tables", "exclude_tables", "plugin", "publication")
@click.option("--queue", metavar="NAME", help="Consume this queue instead of a temporary one.")
@click.option("--bind", metavar="PATTERN", multiple=True, help="Routing keys for the temporary queue. Default: #")
@AS_JSON
def tail(config: str | None, queue: str | None, bind: tuple[str, ...], *, as_json: bool, **flags: Any) -> None:
    """Show events as they come, a line each.

    They are read from the database, on a temporary slot that leaves nothing behind; or from the broker of --sink
    when --sink, --queue or --bind is given.
    """
    settings = settings_of(config, flags)
    from pgevents.tail import tail_database, tail_queue

    if not (queue or bind or flags["sink"]):
        asyncio.run(tail_database(settings, as_json=as_json, say=say))
        return
    _require_broker(settings)
    bindings = bind or (() if queue else ("#",))
    tail_queue(settings, queue=queue, bindings=bindings, as_json=as_json, say=say)


def _require_broker(settings: Settings) -> None:
    if not settings.sink.lower().startswith(("amqp:", "amqps:")):
        raise ConfigError(
            "no broker is given to tail a queue of",
            hint="Give --sink amqp(s)://…, or leave out --sink, --queue and --bind to read the database.",
        )


@commands.group(cls=Commands)
def slot() -> None:
    """Create, look at or drop the replication slot."""


def _print_report(report: "SlotReport", *, as_json: bool) -> None:
    click.echo(as_text(report.as_dict()) if as_json else "\n".join(report.lines()))


@slot.command(
    epilog="\b\nExample:\n  pgevents slot create --dsn postgresql://app@db/shop --slot shop --plugin pgoutput"
)
@takes("dsn", "slot", "plugin", "publication", "streaming", "tables", "state")
@AS_JSON
def create(config: str | None, *, as_json: bool, **flags: Any) -> None:
    """Create the slot; with pgoutput also the publication, when it is missing."""
    settings = settings_of(config, flags)
    from pgevents.session import open_state
    from pgevents.start import Wish, create_slot

    wish = Wish(settings.slot, settings.new_plugin, settings.publication, settings.tables)
    report = create_slot(settings.dsn, wish, state=open_state(settings))
    _print_report(report, as_json=as_json)


@slot.command(epilog="\b\nExample:\n  pgevents slot status --slot shop --json")
@takes("dsn", "slot")
@AS_JSON
def status(config: str | None, *, as_json: bool, **flags: Any) -> None:
    """Show the slot: who reads it, how much WAL is kept for it."""
    settings = settings_of(config, flags)
    from pgevents.slot import status as slot_status

    report = slot_status(settings.dsn, settings.slot)
    _print_report(report, as_json=as_json)


@slot.command(epilog="\b\nExample:\n  pgevents slot drop --slot shop")
@takes("dsn", "slot", "state")
@click.option("--terminate", is_flag=True, help="Also end the process that reads the slot.")
@click.option("--yes", is_flag=True, help="Do not ask for the slot's name to be typed.")
def drop(config: str | None, *, terminate: bool, yes: bool, **flags: Any) -> None:
    """Drop the slot. Changes that were not yet acknowledged can then not be streamed any more."""
    settings = settings_of(config, flags)
    if not yes:
        _confirm_drop(settings.slot)
    from pgevents.session import open_state
    from pgevents.slot import drop as drop_slot

    drop_slot(settings.dsn, settings.slot, terminate=terminate)
    say(f"dropped slot {settings.slot}")
    state = open_state(settings)
    if state.load():
        say(f"Its watermark stays in {state}: without it, a new slot of that name would hide what is lost.")


def _confirm_drop(name: str) -> None:
    if not sys.stdin.isatty():
        raise ConfigError(
            f"dropping slot {name} must be confirmed, and standard input is not a terminal", hint="Add --yes."
        )
    say(f"What slot {name} has not acknowledged yet will be gone for good.")
    if click.prompt("Type the slot's name to drop it", err=True) != name:
        raise ConfigError(f"slot {name} was not dropped: another name was typed")


@commands.command(epilog="\b\nExample:\n  pgevents doctor --dsn postgresql://app@db/shop --sink amqp://app@broker/")
@takes()
@click.option("--management", metavar="URL", default="", help="Where RabbitMQ's management API is.")
@click.option("--fix-sql", is_flag=True, help="Print the SQL that mends what can be mended so, and run nothing.")
@AS_JSON
def doctor(config: str | None, management: str, *, fix_sql: bool, as_json: bool, **flags: Any) -> int:
    """Examine both ends before they are streamed between, and change nothing.

    A line for each check: ✔ ok, ! something to think about, ✘ it would not run or lose changes in silence. Exit
    code 0: all ok, 1: at least one !, 4: at least one ✘.
    """
    from pgevents.doctor import examination, finding, report

    findings = examination.examine(settings_of(config, flags), management=management)
    shown = as_text([each.as_dict() for each in findings]) if as_json else "\n".join(report.lines(findings))
    click.echo("\n".join(report.fixes(findings)) if fix_sql else shown)
    return finding.exit_code(findings)


@commands.command(epilog="\b\nExample:\n  pgevents schema > event.schema.json")
def schema() -> None:
    """Print the JSON Schema (2020-12) of an event."""
    click.echo(resources.files("pgevents").joinpath("event.schema.json").read_text("utf-8"), nl=False)


@commands.command(epilog='\b\nExample:\n  eval "$(pgevents completion bash)"')
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print the script that completes commands and options in a shell."""
    from click.shell_completion import get_completion_class

    generator = get_completion_class(shell)
    if generator is not None:
        click.echo(generator(commands, {}, "pgevents", "_PGEVENTS_COMPLETE").source())


for command in (config_group, explain, parked, publication, route, skip):
    commands.add_command(command)
commands.add_command(
    Lazy("demo", "pgevents.demo.command", short_help="Try it: a private PostgreSQL, RabbitMQ and shop workload.")
)
