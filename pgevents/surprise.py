"""What nobody foresaw, turned into one error of ours. The only place that catches every exception."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from pgevents.errors import PGEventsError

logger = logging.getLogger(__name__)


@contextmanager
def surprises_named() -> Iterator[None]:
    """Let errors of ours pass, and raise PGEventsError for any other.

    It names the kind alone: the text of an unforeseen error may hold row values, and goes to the debug log.
    """
    try:
        yield
    except PGEventsError:
        raise
    except Exception as error:
        raise _surprise(error) from error


def _surprise(error: Exception) -> PGEventsError:
    logger.debug("unforeseen", exc_info=error)
    causes = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
    kinds = ", ".join(sorted({type(cause).__name__ for cause in causes}))
    return PGEventsError(
        f"an unforeseen {kinds} ended the stream",
        hint="Nothing unconfirmed was acknowledged. Set PGEVENTS_LOG_LEVEL=debug, run it again and report it.",
    )
