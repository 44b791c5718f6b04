"""What every command needs of the terminal it runs in: its settings, and words for the person there."""

import json
import os
import sys
from typing import Any

import click

from pgevents import log
from pgevents.config import Resolution, resolve
from pgevents.errors import PGEventsError
from pgevents.mask import mask_dsn
from pgevents.settings import Settings


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
