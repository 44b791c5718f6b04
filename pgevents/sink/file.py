"""Appends one JSON line an event to a file, synced before it is confirmed: ``file:PATH`` or ``file:///PATH``.

A pipe or a device works too, without the sync.
"""

from functools import partial
from pathlib import Path
from urllib.parse import unquote

from pgevents.errors import ConfigError
from pgevents.interfaces import SinkOptions
from pgevents.sink._line_sink import LineSink, open_sink
from pgevents.sink._lines import open_lines

# What an event begins with in each of our formats.
_EVENT_STARTS = (
    b'{"v":',
    b'{"before":',
    b'{"specversion":',
    b'{"database":',
    b'{"record":',
    b'{"table_name":',
    b'{"action":',
)


async def open(url: str, _options: SinkOptions) -> LineSink:
    """Raises ConfigError for a URL without a usable path, SinkError when it cannot be written."""
    path = _path(url)
    return await open_sink(partial(open_lines, path, starts=_EVENT_STARTS), f"file:{path}")


def _path(url: str) -> Path:
    text = url.removeprefix("file:")
    if text.startswith("//"):
        host, slash, rest = text.removeprefix("//").partition("/")
        if host not in ("", "localhost"):
            raise ConfigError(
                f"{url} names the host {host!r}", hint="Write file:PATH, or file:///PATH with three slashes."
            )
        text = unquote(slash + rest)
    if not text or text.endswith("/") or "\0" in text:
        raise ConfigError(f"{url} names no file", hint="Write file:PATH.")
    return Path(text)
