"""Compressed bodies: what comes back, what is refused, and that the same is always the same."""

import gzip
import sys
import zlib
from collections.abc import Callable
from importlib import import_module

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pgevents.compression import ENCODINGS, compressed, compressor
from pgevents.errors import ConfigError

READERS: dict[str, Callable[[bytes], bytes]] = {
    "br": import_module("brotli").decompress,
    "deflate": zlib.decompress,
    "gzip": gzip.decompress,
    "identity": bytes,
    "zstd": zstandard.ZstdDecompressor().decompress,
}


def test_every_encoding_is_tested() -> None:
    assert set(READERS) == set(ENCODINGS)


@pytest.mark.parametrize("name", ENCODINGS)
@settings(deadline=None)
@given(body=st.binary(max_size=2000))
def test_a_compressed_body_comes_back(name: str, body: bytes) -> None:
    assert READERS[name](compressed(name, body)) == body


@pytest.mark.parametrize("name", ENCODINGS)
@settings(deadline=None)
@given(body=st.binary(max_size=2000))
def test_the_same_body_is_always_compressed_to_the_same_bytes(name: str, body: bytes) -> None:
    compress = compressor(name)

    assert compress(body) == compress(body) == compressed(name, body)


@pytest.mark.parametrize("name", sorted(set(ENCODINGS) - {"identity"}))
def test_a_repetitive_body_becomes_smaller(name: str) -> None:
    body = b'{"id":42,"status":"paid"}' * 100

    assert len(compressed(name, body)) < len(body) / 5


def test_gzip_says_no_time() -> None:
    assert compressed("gzip", b"x")[4:8] == b"\0\0\0\0"


@pytest.mark.parametrize(("name", "near"), [("gzp", "gzip"), ("ZSTD", "zstd")])
def test_an_unknown_encoding_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' is not a compression") as caught:
        compressor(name)

    assert f"Did you mean {near}?" in caught.value.hint


@pytest.mark.parametrize(("name", "package", "extra"), [("zstd", "zstandard", "zstd"), ("br", "brotli", "brotli")])
def test_a_missing_package_is_named_with_how_to_install_it(
    name: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compressor.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ConfigError, match=f"needs the package {package}") as caught:
        compressor(name)

    assert caught.value.hint == f"pip install 'pgevents-stream[{extra}]'"
