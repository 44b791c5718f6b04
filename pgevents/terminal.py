"""What every command needs of the terminal it runs in: its settings, and words for the person there."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import IO, Any, TextIO, cast

import click

from pgevents import disk, log
from pgevents.config import Resolution, resolve
from pgevents.errors import PGEventsError
from pgevents.mask import mask_dsn
from pgevents.settings import Settings


class OutputLost(PGEventsError):
    """Standard output takes no more. Nothing is said of it where its reader has ended, as ``head`` does."""


@contextmanager
def output_watched() -> Iterator[None]:
    """Raise OutputLost where standard output does not take what is written to it."""
    if sys.stdout is None:  # it was closed before we began
        yield
        return
    with redirect_stdout(cast("TextIO", _Output(sys.stdout))):
        yield


class _Output:
    """A stream whose faults are ours; otherwise it is the one that it is given."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def buffer(self) -> "_Output":
        """What click writes to where the encoding of the text would not do."""
        return _Output(self._stream.buffer)

    def write(self, text: str | bytes) -> int:
        # click writes nothing, of either type, to learn which one is taken: no device is to be asked for that.
        if not text and isinstance(text, str):
            return 0
        with _loss_named(self._stream):
            return int(self._stream.write(text))

    def flush(self) -> None:
        with _loss_named(self._stream):
            self._stream.flush()


@contextmanager
def _loss_named(stream: IO[Any]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _leave(stream)
        if isinstance(error, BrokenPipeError | ConnectionResetError):
            raise OutputLost("") from error
        raise OutputLost(
            f"cannot write to standard output: {disk.words(error)}",
            hint="Send it to where there is room for it, such as another file.",
        ) from error


def _leave(stream: IO[Any]) -> None:
    """What is left in the buffer goes nowhere: Python would try again at its exit, and complain."""
    with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def say(line: str) -> None:
    """For the person at the terminal: standard output belongs to data."""
    click.echo(line, err=True)


def complain(error: PGEventsError) -> None:
    """What went wrong and what can be done, a line each, without passwords."""
    red = "red" if log.shows_colour(sys.stderr) else None
    for word, text in (("error:", str(error)), ("hint:", error.hint)):
        if text:
            say(f"{click.style(word, fg=red) if red else word} {log.one_line(mask_dsn(text))}")


def resolution_of(config: str | None, flags: dict[str, Any]) -> Resolution:
    resolution = resolve(flags, os.environ, file=config)
    log.configure(resolution.settings.log_level, resolution.settings.log_format)
    return resolution


def settings_of(config: str | None, flags: dict[str, Any]) -> Settings:
    return resolution_of(config, flags).settings


def as_text(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False)
