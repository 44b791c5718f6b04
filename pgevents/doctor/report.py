"""Findings as lines for a person, and their fixes as SQL. Pure."""

from collections.abc import Iterable, Iterator, Sequence

from pgevents.doctor.finding import Finding
from pgevents.log import one_line
from pgevents.mask import mask_dsn

MARKS = {"ok": "✔", "warning": "!", "fatal": "✘"}


def lines(findings: Sequence[Finding]) -> Iterator[str]:
    """A line each, the fix of a problem below it, and a last line that counts them."""
    for finding in findings:
        said = f"{finding.subject}: {finding.problem}" if finding.problem else finding.subject
        yield f"{MARKS[finding.level]} {finding.check}: {_plain(said)}"
        if finding.fix:
            yield f"    fix: {_plain(finding.fix)}"
    fatal, warnings = (sum(finding.level == level for finding in findings) for level in ("fatal", "warning"))
    yield f"{len(findings)} checks: {fatal} fatal, {warnings} to think about"


def fixes(findings: Iterable[Finding]) -> Iterator[str]:
    """A script: each problem as a comment, and below it the statements that mend it, or what else does."""
    yield "-- Read it before you run it, as an administrator of the database, with psql or alike."
    # The slot last: pgoutput fails on changes that are older than its publication.
    for finding in sorted(findings, key=_makes_a_slot):
        if finding.level == "ok":
            continue
        yield f"\n-- {finding.check}: {_plain(finding.subject)}: {_plain(finding.problem)}"
        if finding.fix:
            yield f"-- {_plain(finding.fix)}"
        yield from (f"{statement};" for statement in finding.sql)


def _makes_a_slot(finding: Finding) -> bool:
    return any("create_logical_replication_slot" in statement for statement in finding.sql)


def _plain(text: str) -> str:
    """One line without passwords: a line break would leave the comment."""
    return one_line(mask_dsn(text))
