"""The publication that pgoutput reads: whether it is there, and what it drops in silence."""

from collections.abc import Iterator

from pgevents import publication as publications
from pgevents.doctor.database import Database
from pgevents.doctor.finding import Finding, fatal, ok, refusal, warning
from pgevents.doctor.published import OPS, Publication
from pgevents.errors import PGEventsError
from pgevents.postgres import Sql, quoted

_NARROWING_SINCE = 150_000

# Row filters and column lists, from PostgreSQL 15 on.
_NARROWED = """
select n.nspname || '.' || c.relname, r.prqual is not null, r.prattrs is not null
from pg_catalog.pg_publication_rel r join pg_catalog.pg_publication p on p.oid = r.prpubid
join pg_catalog.pg_class c on c.oid = r.prrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where p.pubname = %s and (r.prqual is not null or r.prattrs is not null) order by 1
"""


def check_publication(database: Database) -> Iterator[Finding]:
    """Everything about it, where the plug-in reads one."""
    if database.plugin.name != "pgoutput":
        yield ok("publication", f"{database.plugin.name} needs none")
        return
    settings, found = database.settings, database.publication
    if found is None:
        yield _missing(database)
        return
    try:
        publications.check(database.sql, settings.publication, settings.tables)
    except PGEventsError as error:
        yield refusal("publication", _named(found), error, sql=_additions(database))
    else:
        yield ok("publication", f"{_named(found)} holds what is asked for")
    yield from _check_ops(found)
    yield from _check_tables(database, found)
    if database.version >= _NARROWING_SINCE:
        yield from _check_narrowing(database.sql, found)


def _named(publication: Publication) -> str:
    return f"publication {publication.name}"


def _missing(database: Database) -> Finding:
    settings = database.settings
    statement = publications.statement(database.sql, settings.publication, settings.tables)
    if not settings.create_slot:
        return fatal(
            "publication",
            f"publication {settings.publication}",
            "there is none of that name",
            fix="Stream with --create-slot as the tables' owner, or create it.",
            sql=(statement,),
        )
    return warning(
        "publication",
        f"publication {settings.publication}",
        "it is still to be created, which takes the tables' owner, and for all tables a superuser",
        fix="Create it as one of them, or stream as one of them the first time.",
        sql=(statement,),
    )


def _additions(database: Database) -> tuple[str, ...]:
    settings = database.settings
    lacking = publications.unpublished(database.sql, settings.publication, settings.tables)
    names = ", ".join(quoted(*table) for table in lacking)
    return (f"ALTER PUBLICATION {quoted(settings.publication)} ADD TABLE {names}",) if lacking else ()


def _check_ops(publication: Publication) -> Iterator[Finding]:
    left_out = [op for op in OPS if op not in publication.ops]
    if not left_out:
        yield ok("published operations", "all of them")
        return
    level = warning if left_out == ["truncate"] else fatal
    yield level(
        "published operations",
        _named(publication),
        f"every {', '.join(left_out)} is dropped in silence",
        fix="Publish it too.",
        sql=(f"ALTER PUBLICATION {quoted(publication.name)} SET (publish = '{', '.join(OPS)}')",),
    )


def _check_tables(database: Database, publication: Publication) -> Iterator[Finding]:
    if any(relation.holds_rows for relation in database.relations):
        yield ok("published tables", f"{_named(publication)} has tables to stream")
        return
    yield warning(
        "published tables",
        _named(publication),
        "none of its tables matches what is to be streamed: no event will come",
        fix=f"Add tables: ALTER PUBLICATION {quoted(publication.name)} ADD TABLE …",
    )


def _check_narrowing(sql: Sql, publication: Publication) -> Iterator[Finding]:
    found = sql.rows(_NARROWED, publication.name)
    for table, has_filter, has_columns in found:
        parts = [part for part, there in (("rows", has_filter), ("columns", has_columns)) if there]
        yield warning(
            "published rows and columns",
            f"{table} in {_named(publication)}",
            f"only some of its {' and '.join(parts)} are published; the others are dropped in silence",
            fix=f"If that is not meant, take the table out of {quoted(publication.name)} and add it again, in one "
            "transaction, without WHERE and without a list of columns.",
        )
    if not found:
        yield ok("published rows and columns", "all of them")


CHECKS = (check_publication,)
