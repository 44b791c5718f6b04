"""What one check found. Pure."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pgevents.errors import EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, PGEventsError
from pgevents.mask import mask_dsn

Level = Literal["ok", "warning", "fatal"]

_EXIT: dict[Level, int] = {"ok": EXIT_DONE, "warning": EXIT_FAILED, "fatal": EXIT_REFUSED}


@dataclass(frozen=True, slots=True)
class Finding:
    """``fatal``: a stream would not run, or changes are lost in silence. ``warning``: it may come to that.

    ``sql`` are statements that mend it, to be run as an administrator; an ``ok`` finding has no problem and no fix.
    """

    check: str
    level: Level
    subject: str
    problem: str = ""
    fix: str = ""
    sql: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON, passwords masked."""
        return {name: mask_dsn(value) if isinstance(value, str) else value for name, value in asdict(self).items()}


def ok(check: str, subject: str) -> Finding:
    return Finding(check, "ok", subject)


def warning(check: str, subject: str, problem: str, *, fix: str, sql: tuple[str, ...] = ()) -> Finding:
    return Finding(check, "warning", subject, problem, fix, sql)


def fatal(check: str, subject: str, problem: str, *, fix: str, sql: tuple[str, ...] = ()) -> Finding:
    return Finding(check, "fatal", subject, problem, fix, sql)


def unseen(check: str, subject: str, reason: object, *, fix: str = "", sql: tuple[str, ...] = ()) -> Finding:
    """For what could not be looked at, which is never ok."""
    return Finding(check, "warning", subject, f"could not be seen: {reason}", fix, sql)


def refusal(check: str, subject: str, error: PGEventsError, *, sql: tuple[str, ...] = ()) -> Finding:
    """What ``stream`` would end with."""
    return Finding(check, "fatal", subject, str(error), error.hint, sql)


def exit_code(findings: Iterable[Finding]) -> int:
    """That of the worst finding."""
    return max((_EXIT[finding.level] for finding in findings), default=EXIT_DONE)
