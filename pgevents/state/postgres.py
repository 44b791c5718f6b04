"""The watermark in a table of the streamed database, for several hosts that may stream from one slot."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

import orjson

from pgevents.errors import PrivilegeError, StateRefused, StateUnavailable
from pgevents.lsn import Lsn
from pgevents.postgres import Sql
from pgevents.state.document import gaps_read, gaps_written
from pgevents.watermark import Watermark, overtaken

SCHEMA, TABLE = "pgevents", "watermark"
MIGRATION = "0001_watermark.sql"

_EXISTS = "select pg_catalog.to_regclass('pgevents.watermark') is not null"
_LOAD = """
select system_id, timeline, database, slot, plugin, end_lsn::text, gaps::text from pgevents.watermark where slot = %s
"""
_SAVE = """
insert into pgevents.watermark (system_id, timeline, database, slot, plugin, end_lsn, gaps)
values (%s, %s, %s, %s, %s, %s::pg_catalog.pg_lsn, %s::jsonb)
on conflict (slot) do update set system_id = excluded.system_id, timeline = excluded.timeline,
    database = excluded.database, plugin = excluded.plugin, end_lsn = excluded.end_lsn, gaps = excluded.gaps,
    saved_at = pg_catalog.now()
where (pg_catalog.jsonb_array_length(excluded.gaps), excluded.end_lsn)
    >= (pg_catalog.jsonb_array_length(watermark.gaps), watermark.end_lsn)
returning 1
"""


class PostgresState:
    """A row of ``pgevents.watermark``, the slot's."""

    # A write is a commit, which moves the WAL on, which is news to acknowledge: without a pause it would never end.
    # Under five seconds, because a server that shuts down waits for the last acknowledgement.
    idle_interval_s = 4.0

    def __init__(self, dsn: str, slot: str) -> None:
        # A commit must be on disk when it returns, whatever the role's or the database's default is.
        self._sql = Sql(dsn, settings={"synchronous_commit": "on", "lock_timeout": "5s"})
        self._asking = threading.Lock()
        self._slot = slot
        self._has_table = False

    def load(self) -> Watermark | None:
        """The watermark, None where there is none. Blocks; raises SourceError or StateUnavailable."""
        with self._alone():
            return self._load()

    def _load(self) -> Watermark | None:
        self._has_table = bool(self._sql.rows(_EXISTS)[0][0])
        if not self._has_table:
            return None
        found = self._sql.rows(_LOAD, self._slot)
        if not found:
            return None
        system_id, timeline, database, slot, plugin, end_lsn, gaps = found[0]
        return Watermark(
            system_id, timeline, database, slot, plugin, Lsn.parse(end_lsn), gaps_read(orjson.loads(gaps))
        )

    def save(self, watermark: Watermark) -> None:
        """Returns once it is committed and flushed. Makes the table where it is missing.

        Blocks; raises SourceError, and StateRefused where the role may not make the table.
        """
        with self._alone():
            self._save(watermark)

    def _save(self, watermark: Watermark) -> None:
        if not self._has_table:
            self._create()
        saved = self._sql.rows(
            _SAVE,
            watermark.system_id,
            watermark.timeline,
            watermark.database,
            watermark.slot,
            watermark.plugin,
            str(watermark.end_lsn),
            orjson.dumps(gaps_written(watermark)).decode(),
        )
        if not saved:  # one that woke up too late must not take the slot's watermark back
            raise overtaken(watermark.slot)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Not behind a statement that hangs, as for a lock or a synchronous standby: that would say nothing."""
        if not self._asking.acquire(blocking=False):
            raise StateUnavailable(f"an earlier write to {self} has not ended", hint="Look at pg_stat_activity.")
        try:
            yield
        finally:
            self._asking.release()

    def close(self) -> None:
        self._sql.close()

    def __str__(self) -> str:
        return f"table {SCHEMA}.{TABLE}"

    def _create(self) -> None:
        try:
            self._has_table = bool(self._sql.rows(_EXISTS)[0][0])
            if self._has_table:
                return
            self._sql.run(files("pgevents.migrations").joinpath(MIGRATION).read_text("utf-8"))
        except PrivilegeError as error:
            raise StateRefused(
                f"there is no table {SCHEMA}.{TABLE}, and the role may not create it: {error}",
                hint=f"As the database's owner run migrations/{MIGRATION} and grant the role USAGE on the schema and "
                "SELECT, INSERT, UPDATE on the table; deploy/sql/role.sql does all of it.",
            ) from error
