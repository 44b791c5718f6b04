"""What the errors of a disk mean to an operator. Pure but for the words, which are the system's."""

import errno
import os

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
