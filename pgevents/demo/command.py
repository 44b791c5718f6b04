"""``pgevents demo``: try it with nothing but this package installed."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from pgevents.demo.process import LaunchError, private_folder
from pgevents.demo.run import run_demo
from pgevents.demo.view import Summary
from pgevents.errors import EXIT_DONE, EXIT_FAILED, ConfigError


@click.command(epilog="Example: pgevents demo --seconds 0")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=20,
    envvar="DEMO_SECONDS",
    show_default=True,
    show_envvar=True,
    help="How long the shop trades; 0: until Ctrl-C.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="An empty or new folder for everything the demo writes; it is kept. Default: a temporary one.",
)
@click.option("--without-rabbitmq", is_flag=True, help="Stream to a file, even where RabbitMQ is installed.")
@click.pass_context
def demo(context: click.Context, seconds: float, folder: Path | None, *, without_rabbitmq: bool) -> None:
    """Stream a small shop's changes from a private PostgreSQL to a private RabbitMQ, and count them.

    Ends with 0 only if every committed change was consumed.
    """
    with _signals_that_clean_up():
        place = _empty(folder) if folder else private_folder()
        try:
            code = _perform(place, seconds=seconds, use_rabbitmq=not without_rabbitmq)
        except (KeyboardInterrupt, SystemExit):
            _leave(place, keep=folder is not None)
            raise
        _leave(place, keep=folder is not None or code != EXIT_DONE)
    context.exit(code)


def _perform(place: Path, *, seconds: float, use_rabbitmq: bool) -> int:
    try:
        summary = run_demo(place, seconds=seconds, use_rabbitmq=use_rabbitmq, say=_say)
    except LaunchError as error:
        # Its message ends with lines of a log, which stay lines.
        click.echo(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""), err=True)
        return EXIT_FAILED
    _report(summary)
    return EXIT_DONE if summary.is_good else EXIT_FAILED


def _report(summary: Summary) -> None:
    _say("\nSummary")
    for line in summary.lines():
        _say(line)
    verdict = "Nothing was lost." if summary.is_good else "The demo failed: these figures do not agree."
    _say("\n" + click.style(verdict, fg="green" if summary.is_good else "red", bold=True))


def _say(line: str) -> None:
    # click leaves colours out by itself where the output is no terminal; NO_COLOR it does not know.
    click.echo(line, color=False if os.environ.get("NO_COLOR") else None)
    sys.stdout.flush()


def _leave(place: Path, *, keep: bool) -> None:
    if keep:
        click.echo(f"What the servers and the stream wrote is in {place}", err=True)
    else:
        shutil.rmtree(place)


def _empty(folder: Path) -> Path:
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"--dir: {folder} is not empty", hint="Name an empty folder, or one that does not exist.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


@contextmanager
def _signals_that_clean_up() -> Iterator[None]:
    """SIGTERM and a closed terminal end the demo as Ctrl-C does: as an exception, so that everything is stopped."""
    previous = {number: signal.signal(number, _exit) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _exit(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)
