"""What a transaction did before it committed, in order: in memory while it is small, then in a nameless file."""

import struct
import tempfile
from collections.abc import Iterator
from contextlib import suppress

from pgevents.disk import advice, words
from pgevents.errors import PiecesUnusable

# What a transaction may take before it goes to the disk; many may be under way at a time.
MEMORY_BYTES = 1024 * 1024

_head = struct.Struct("=QII")

Entry = tuple[int, int, bytes]
"""LSN, xid, payload."""


class Spool:
    """Entries as they came. The file is in the folder that ``TMPDIR`` names, and is gone with the process."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115 - it is closed in close()

    def add(self, lsn: int, xid: int, payload: bytes) -> None:
        """Raises PiecesUnusable where the disk is full, or takes no file."""
        try:
            self._file.write(_head.pack(lsn, xid, len(payload)))
            self._file.write(payload)
        except OSError as error:
            raise _refused(error) from error

    def read(self) -> Iterator[Entry]:
        """Everything from the beginning; nothing is added after that. Raises what ``add`` raises."""
        file = self._file
        try:
            file.seek(0)
            while head := file.read(_head.size):
                lsn, xid, size = _head.unpack(head)
                yield lsn, xid, file.read(size)
        except OSError as error:
            raise _refused(error) from error

    def close(self) -> None:
        """Forget everything."""
        with suppress(OSError):  # of what is still to be written nobody will read
            self._file.close()


def _refused(error: OSError) -> PiecesUnusable:
    return PiecesUnusable(
        f"a temporary file for what a transaction did before it committed cannot be used: {words(error)}",
        hint=f"{advice(error)} TMPDIR names the folder. The transaction is read at its commit.".strip(),
    )
