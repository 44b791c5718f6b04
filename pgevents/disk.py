"""A file replaced so that a crash leaves the old one or the new; what the errors of a disk mean to an operator."""

import errno
import os
from pathlib import Path

# What passes without anybody changing what we were told: room is made, a file server comes back, files are closed.
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE}

_ADVICE = {
    errno.ENOSPC: "Free some space; the stream then goes on, and nothing is lost.",
    errno.EDQUOT: "Free some space; the stream then goes on, and nothing is lost.",
    errno.EFBIG: "Raise the limit on the size of a file (ulimit -f), or write to another one.",
    errno.ENOENT: "Create the folder first.",
    errno.EACCES: "The account that runs this must be allowed to write there.",
    errno.EPERM: "The account that runs this must be allowed to write there.",
    errno.EROFS: "The account that runs this must be allowed to write there.",
}


def may_pass(error: OSError) -> bool:
    """Whether trying again can help."""
    return error.errno in _PASSING


def words(error: OSError) -> str:
    """The system's sentence, without the path."""
    return os.strerror(error.errno or 0)


def advice(error: OSError) -> str:
    """What an operator can do; empty where nothing is known."""
    return _ADVICE.get(error.errno or 0, "")


def replace(path: Path, text: bytes) -> None:
    """Have the file hold ``text``; returns once that would survive a crash. Blocks; raises OSError.

    Until then the old file stands, whole. One writer at a time.
    """
    beside = path.with_name(f".{path.name}.new")
    with beside.open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
