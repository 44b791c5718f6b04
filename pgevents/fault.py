"""psycopg2's errors, handed to the policy: their SQLSTATE, their sentence, and the LSN in their context."""

import re

import psycopg2

from pgevents import policy
from pgevents.errors import DecodeError, PGEventsError, SourceError
from pgevents.lsn import Lsn


def translated(error: psycopg2.Error, *, slot: str = "", plugin: str = "") -> PGEventsError:
    """Our error for one of the driver's; what the policy does not know is a SourceError, which is final."""
    text = _one_line(error)
    # At connecting libpq hands on no SQLSTATE, and of what it says itself there is none.
    silent = policy.NO_SQLSTATE if isinstance(error, psycopg2.OperationalError) else ""
    rule = policy.of_postgres(error.pgcode or silent, text)
    if rule.error is DecodeError:
        return _unprintable(error, rule)
    return rule.fault(text=text, slot=slot or "NAME", plugin=plugin or "wal2json")


def _one_line(error: psycopg2.Error) -> str:
    """The server's message without ``FATAL:`` and line breaks."""
    message = error.diag.message_primary or str(error)
    return " ".join(re.sub(r"\b(FATAL|ERROR):\s+", "", message).split())


def _unprintable(error: psycopg2.Error, rule: policy.Rule[PGEventsError]) -> PGEventsError:
    """The server failed to print a row; its context holds the LSN, when it was decoding."""
    found = re.search(r"in the (\w+) callback, associated LSN (\S+)", error.diag.context or "")
    if found is None:
        return SourceError(f"the server cannot print a value: {rule.says}", hint=rule.hint)
    return DecodeError(rule.says, lsn=Lsn.parse(found[2]), tag=found[1])
