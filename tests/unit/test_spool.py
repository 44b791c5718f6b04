"""What a transaction did before it committed: in memory, then in a file."""

import resource
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgevents.errors import PiecesUnusable
from pgevents.spool import MEMORY_BYTES, Spool


@pytest.fixture
def limited() -> Iterator[None]:
    """No file may grow beyond a megabyte. Python ignores the signal, so that writing fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEMORY_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=50))))
def test_what_was_put_in_comes_out_in_order(entries: list[tuple[int, int, bytes]]) -> None:
    kept = Spool()
    for entry in entries:
        kept.add(*entry)

    assert list(kept.read()) == entries
    kept.close()


def test_so_it_does_from_the_disk() -> None:
    entries = [(number, number, bytes(1000)) for number in range(2 * MEMORY_BYTES // 1000)]
    kept = Spool()
    for entry in entries:
        kept.add(*entry)

    assert list(kept.read()) == entries
    kept.close()


def fill(kept: Spool) -> None:
    for number in range(8 * MEMORY_BYTES // 1000):
        kept.add(number, 1, bytes(1000))


@pytest.mark.usefixtures("limited")
def test_a_disk_that_takes_no_more_is_told_with_a_hint() -> None:
    with (
        closing(Spool()) as kept,  # although what is in its buffer can still not be written
        pytest.raises(PiecesUnusable, match="cannot be used: File too large") as caught,
    ):
        fill(kept)

    assert "ulimit -f" in caught.value.hint


def test_a_folder_that_is_not_there_is_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))

    with closing(Spool()) as kept, pytest.raises(PiecesUnusable, match="No such file or directory") as caught:
        fill(kept)

    assert "TMPDIR" in caught.value.hint
