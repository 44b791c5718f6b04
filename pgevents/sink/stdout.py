"""One JSON line an event on standard output, fit for ``jq``: ``stdout:``. Written is confirmed; nothing is synced."""

import sys

from pgevents.errors import ConfigError, SinkRefused
from pgevents.interfaces import SinkOptions
from pgevents.sink._line_sink import LineSink, open_sink
from pgevents.sink._lines import LineStream

_FD = 1


async def open(url: str, _options: SinkOptions) -> LineSink:
    """Raises ConfigError for anything behind ``stdout:``, SinkRefused when standard output is closed."""
    if url != "stdout:":
        raise ConfigError("the stdout sink takes nothing after stdout:", hint="For a file write file:PATH.")
    return await open_sink(standard_output, "stdout:")


def standard_output() -> LineStream:
    """Raises SinkRefused when it is closed."""
    # Python says so at its start; by now descriptor 1 may be another file of ours.
    if sys.__stdout__ is None:
        raise _closed()
    return LineStream(_FD, "stdout", gone=_closed)


def _closed() -> SinkRefused:
    return SinkRefused("stdout was closed", hint="What reads it, such as head or less, has ended.")
