"""Compressed bodies. The same body always gives the same bytes, so that an event is the same on every redelivery."""

import difflib
import gzip
import zlib
from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType

from pgevents.errors import ConfigError

Compressor = Callable[[bytes], bytes]

_LEVEL = 6
# Brotli's and Zstandard's own best trades of time for size, for messages that are compressed while they flow.
_BROTLI_QUALITY = 5
_ZSTD_LEVEL = 3


def compressed(name: str, body: bytes) -> bytes:
    """``body`` in the content encoding ``name``. Raises what ``compressor`` does."""
    return compressor(name)(body)


@cache
def compressor(name: str) -> Compressor:
    """What brings a body into the content encoding ``name``.

    Raises ConfigError for an encoding that there is not, or whose package is not installed.
    """
    if name not in _OPENERS:
        near = difflib.get_close_matches(name.lower(), ENCODINGS, 1)
        guess = f"Did you mean {near[0]}? " if near else ""
        raise ConfigError(f"{name!r} is not a compression", hint=f"{guess}There are {', '.join(ENCODINGS)}.")
    return _OPENERS[name]()


def _identity() -> Compressor:
    return lambda body: body


def _gzip() -> Compressor:
    # The time in the header would make every copy another one.
    return lambda body: gzip.compress(body, _LEVEL, mtime=0)


def _deflate() -> Compressor:
    """RFC 9110 calls the zlib format ``deflate``."""
    return lambda body: zlib.compress(body, _LEVEL)


def _zstd() -> Compressor:
    compress: Compressor = _extra("zstandard", "zstd").ZstdCompressor(level=_ZSTD_LEVEL).compress
    return compress


def _brotli() -> Compressor:
    module = _extra("brotli", "brotli")
    return lambda body: bytes(module.compress(body, quality=_BROTLI_QUALITY))


def _extra(package: str, extra: str) -> ModuleType:
    try:
        return import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"the compression needs the package {package}, which is not installed",
            hint=f"pip install 'pgevents-stream[{extra}]'",
        ) from error


_OPENERS: dict[str, Callable[[], Compressor]] = {
    "br": _brotli,
    "deflate": _deflate,
    "gzip": _gzip,
    "identity": _identity,
    "zstd": _zstd,
}

ENCODINGS = tuple(_OPENERS)
"""The names, which are also the declared content encodings."""
