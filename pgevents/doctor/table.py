"""The tables to be streamed: what of them would be left out, or cannot be told."""

from collections import defaultdict
from collections.abc import Iterator

from pgevents.doctor.database import Database
from pgevents.doctor.finding import Finding, fatal, ok, refusal, warning
from pgevents.doctor.relation import Relation
from pgevents.errors import ConfigError
from pgevents.filters import TableFilter
from pgevents.spelling import some
from pgevents.table import check_patterns


def check_each_pattern(database: Database) -> Iterator[Finding]:
    found = False
    for pattern in database.settings.tables:
        try:
            check_patterns(database.sql, [pattern])
        except ConfigError as error:
            found = True
            yield refusal("table patterns", f"--table {pattern}", error)
    count = sum(relation.holds_rows for relation in database.relations)
    if count == 0:
        yield warning("table patterns", "tables", "there is none to stream", fix="See --table and --exclude-table.")
    elif not found:
        yield ok("table patterns", f"{count} tables are to be streamed")


def check_kinds(database: Database) -> Iterator[Finding]:
    """What matches and has no rows in the WAL that decoding tells of."""
    found = False
    for relation in database.relations:
        said = _unstreamable(relation)
        if said and (relation.persistence != "t" or database.settings.tables):
            found = True
            problem, fix, *sql = said
            yield warning("kind of table", str(relation), problem, fix=fix, sql=tuple(sql))
    if not found:
        yield ok("kind of table", "changes of all of them are in the WAL")


def _unstreamable(relation: Relation) -> tuple[str, ...]:
    leave_out = f"leave it out: --exclude-table '{relation}'."
    match relation.kind, relation.persistence:
        case "f", _:
            return (
                "it is a foreign table: its changes happen elsewhere",
                f"Stream from the server that has it, or {leave_out}",
            )
        case "m", _:
            return (
                "it is a materialized view, of which no events come",
                f"Stream what it is made from, or {leave_out}",
            )
        case _, "u":
            sql = f"ALTER TABLE {relation.sql} SET LOGGED"
            return "it is unlogged: its changes are not in the WAL", f"Make it logged, or {leave_out}", sql
        case _, "t":
            return "it is a temporary table, whose changes are not in the WAL", f"Use a permanent one, or {leave_out}"
    return ()


def check_identity(database: Database) -> Iterator[Finding]:
    """Tables of which updates and deletes do not tell which row they were of."""
    keyless = [relation for relation in database.relations if relation.holds_rows and relation.is_keyless]
    told = [op for op in ("update", "delete") if op in database.ops]
    for relation in keyless if told else ():
        outcome = (
            "wal2json leaves its updates and deletes out, in silence"
            if database.plugin.name == "wal2json"
            else f"published as it is, every {' and '.join(told)} of it fails"
        )
        yield fatal(
            "replica identity",
            str(relation),
            f"{_WHY_KEYLESS[relation.identity]}: {outcome}",
            fix="Give it a primary key, or have whole rows identify themselves.",
            sql=(f"ALTER TABLE {relation.sql} REPLICA IDENTITY FULL",),
        )
    if not keyless or not told:
        yield ok("replica identity", "every update and delete tells which row it was of")


_WHY_KEYLESS = {
    "d": "it has no primary key, or a deferrable one",
    "n": "its replica identity is NOTHING",
    "i": "the index of its replica identity is gone",
}


def check_toast(database: Database) -> Iterator[Finding]:
    found = False
    for relation in database.relations:
        if relation.holds_rows and relation.toastable and relation.identity != "f" and "update" in database.ops:
            found = True
            yield warning(
                "large values",
                str(relation),
                f"an update that leaves a large value of {some(relation.toastable)} as it is comes without it: the "
                "event names the column in `missing`",
                fix="REPLICA IDENTITY FULL has it sent, at the price of more WAL.",
                sql=(f"ALTER TABLE {relation.sql} REPLICA IDENTITY FULL",),
            )
    if not found:
        yield ok("large values", "every update comes with all of its values")


def check_inexact(database: Database) -> Iterator[Finding]:
    """NaN and the infinities, which wal2json before 2.6 prints as null."""
    inexact = [relation for relation in database.relations if relation.holds_rows and relation.inexact]
    if database.plugin.is_exact or not inexact:
        yield ok("values", f"{database.plugin.name} prints every value of these tables")
        return
    which = "this wal2json prints" if database.plugin.is_exact is False else "wal2json before 2.6 prints"
    for relation in inexact:
        yield warning(
            "values",
            str(relation),
            f"{which} NaN and the infinities of {some(relation.inexact)} as null",
            fix="Update wal2json to 2.6, or stream from a slot of pgoutput.",
        )


def check_generated(database: Database) -> Iterator[Finding]:
    found = False
    for relation in database.relations:
        if relation.holds_rows and relation.generated:
            found = True
            yield warning(
                "generated columns",
                str(relation),
                f"events are without {some(relation.generated)}",
                fix="Compute it again where it is needed, or make it an ordinary column that a trigger fills.",
            )
    if not found:
        yield ok("generated columns", "there are none")


def check_partitions(database: Database) -> Iterator[Finding]:
    """Partitions whose rows arrive in a name that no pattern matches."""
    keep = TableFilter(database.settings.tables)
    lost: dict[str, list[str]] = defaultdict(list)
    for relation in database.every_relation:
        if relation.holds_rows and relation.root and (keep(*relation.root) or keep(*relation.names)):
            name = database.name_in_events(relation)
            if not keep(*name):
                lost[".".join(relation.root)].append(".".join(name))
    for root, names in lost.items():
        yield fatal(
            "partitions",
            root,
            f"rows of it arrive as {some(tuple(dict.fromkeys(names)))}, which no --table matches: they are left out",
            fix="Add a pattern that matches that name as well.",
        )
    if not lost:
        yield ok("partitions", "none is left out by its name")


CHECKS = (
    check_each_pattern,
    check_kinds,
    check_identity,
    check_toast,
    check_inexact,
    check_generated,
    check_partitions,
)
