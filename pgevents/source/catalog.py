"""What the stream does not say about types, tables and origins, read from the catalog when first needed."""

import logging
import time

from pgevents.postgres import Sql
from pgevents.wal import Column, PgType, TableFacts

logger = logging.getLogger(__name__)

_SHAPED_TYPES = """
select t.oid, t.typbasetype, case when e.typarray = t.oid then t.typelem else 0 end, coalesce(e.typdelim, ','),
    t.typtype = 'e'
from pg_catalog.pg_type t left join pg_catalog.pg_type e on e.oid = t.typelem
where (t.typtype in ('d', 'e') or e.typarray = t.oid)
"""

_TABLE = """
select c.oid, c.relreplident, c.relkind = 'r', (
    select count(*) from pg_catalog.pg_attribute where attrelid = c.oid and attnum > 0 and attisdropped)
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = %s and c.relname = %s and c.relkind in ('r', 'p', 'm')
"""

_COLUMNS = """
select attname, atttypid, attgenerated <> '', attstorage = 'p' from pg_catalog.pg_attribute
where attrelid = %s and attnum > 0 and not attisdropped order by attnum
"""

_KEYS = """
select i.indisprimary, i.indisreplident, a.attname
from pg_catalog.pg_index i
join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey[0:i.indnkeyatts - 1])
where i.indrelid = %s and (i.indisprimary or i.indisreplident) order by a.attnum
"""

_BUILTIN_LIMIT = 16_384
"""Smaller OIDs are assigned by PostgreSQL itself (FirstNormalObjectId), so one look at start finds them all."""


# A transaction holds the lock on its own xid until after others can see what it did.
_STILL_COMMITTING = """
select 1 from pg_catalog.pg_locks where locktype = 'transactionid' and transactionid = %s::text::xid and granted
"""

# A commit can be sent before it can be seen, by microseconds, or by as long as a synchronous standby takes.
VISIBLE_WITHIN_S = 5.0
_LOOK_AGAIN_S = 0.005

# The loop stands still while the catalog is asked, signals and heartbeats included.
ANSWER_TIMEOUT_S = 10.0


class SqlCatalog:
    """The catalog through an ordinary connection, opened at the first question.

    Types and origins keep their meaning for life and are remembered; tables are asked anew each time.
    """

    def __init__(self, dsn: str) -> None:
        self._sql = Sql(dsn, answer_timeout_s=ANSWER_TIMEOUT_S)
        self._types: dict[int, PgType] = {}
        self._origins: dict[int, str | None] = {}
        self._xid = 0

    def begin(self, xid: int) -> None:
        self._xid = xid

    def type(self, oid: int) -> PgType:
        if not self._types:
            self._types = {row[0]: PgType(*row[1:]) for row in self._sql.rows(_SHAPED_TYPES)}
        if oid not in self._types and oid >= _BUILTIN_LIMIT:
            self._until_visible()
            found = self._sql.rows(_SHAPED_TYPES + "and t.oid = %s", oid)
            # What is not found is asked again: it is asked once a relation, and may be there next time.
            return self._types.setdefault(oid, PgType(*found[0][1:])) if found else PgType()
        return self._types.get(oid, PgType())

    def table(self, schema: str, name: str) -> TableFacts | None:
        self._until_visible()
        found = self._sql.rows(_TABLE, schema, name)
        if not found:
            return None
        oid, identity, published, dropped = found[0]
        columns = self._sql.rows(_COLUMNS, oid)
        keys = self._sql.rows(_KEYS, oid)
        return TableFacts(
            columns=tuple(Column(column, type_oid) for column, type_oid, _, _ in columns),
            generated=frozenset(column for column, _, generated, _ in columns if generated),
            identity=identity,
            primary_key=tuple(column for primary, _, column in keys if primary),
            index_key=tuple(column for _, replica, column in keys if replica),
            published=published,
            inline=frozenset(column for column, _, _, inline in columns if inline),
            dropped=dropped,
        )

    def origin(self, number: int) -> str | None:
        if number not in self._origins:
            found = self._sql.rows("select roname from pg_catalog.pg_replication_origin where roident = %s", number)
            self._origins[number] = found[0][0] if found else None
        return self._origins[number]

    def _until_visible(self) -> None:
        """Wait until what the transaction did to the catalog can be seen; blocks for ``VISIBLE_WITHIN_S`` at most."""
        xid, self._xid = self._xid, 0
        ends_at = time.monotonic() + VISIBLE_WITHIN_S
        while xid and self._sql.rows(_STILL_COMMITTING, xid):
            if time.monotonic() >= ends_at:
                logger.warning("a commit that was sent cannot be seen yet", extra={"xid": xid})
                return
            time.sleep(_LOOK_AGAIN_S)

    def close(self) -> None:
        self._sql.close()
