"""The formats an event can be sent in: which there are, and how one is opened."""

import difflib
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Protocol

from pgevents.errors import ConfigError
from pgevents.interfaces import Codec

_FAMILY = "pgevents.codec"


@dataclass(frozen=True, slots=True)
class CodecContext:
    """What a format may say besides the event: the ``database``, the ``name`` of this stream, our ``version``."""

    database: str
    name: str
    version: str


class Format(Codec, Protocol):
    """A codec, and the operations it has words for; it makes no message of any other."""

    operations: frozenset[str]


def codec_names() -> tuple[str, ...]:
    """Every format there is, in alphabetical order: a file of ``pgevents/codec``, or an entry point of that group."""
    return tuple(sorted(_modules()))


def open_codec(name: str, context: CodecContext) -> Format:
    """The codec of the format ``name``. Raises ConfigError where there is none."""
    modules = _modules()
    if name not in modules:
        near = difflib.get_close_matches(name.lower(), sorted(modules), 1)
        guess = f"Did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"{name!r} is not a format of events", hint=f"{guess}The formats are {', '.join(sorted(modules))}."
        )
    codec: Format = import_module(modules[name]).open(context)
    return codec


def _modules() -> dict[str, str]:
    """The name of each format, and the module that has its ``open``."""
    names = [module.name for module in iter_modules(import_module(_FAMILY).__path__)]
    own = {name.replace("_", "-"): f"{_FAMILY}.{name}" for name in names if not name.startswith("_")}
    return own | {point.name: point.value for point in entry_points(group=_FAMILY)}
