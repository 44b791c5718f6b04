"""Which output plug-in a stream would read, whether the server loads it, and what it can print."""

import os
import re
from dataclasses import dataclass

from pgevents.errors import PGEventsError, PluginRefused, SourceError
from pgevents.postgres import Sql
from pgevents.server import Server

# Creating a slot waits for every running transaction that writes.
_PATIENCE = "5s"

_CREATE = "select pg_catalog.pg_create_logical_replication_slot(%s, 'wal2json', true)"
_DROP = "select pg_catalog.pg_drop_replication_slot(%s)"
# An option that the plug-in does not know is an error before the first change is read. Reads nothing away.
_PEEK = """
select count(*) from pg_catalog.pg_logical_slot_peek_changes(%s, null, 1,
    'format-version', '2', 'numeric-data-types-as-string', '1')
"""


@dataclass(frozen=True, slots=True)
class Plugin:
    """``refusal`` is why the server would not load it, ``unseen`` why that is not known.

    ``is_exact`` is None where it is not known whether every number can be printed. ``reason`` says why it was chosen.
    """

    name: str
    reason: str = ""
    is_exact: bool | None = True
    refusal: PGEventsError | None = None
    unseen: str = ""


def examine(sql: Sql, server: Server, name: str) -> Plugin:
    """What of the plug-in can be seen; ``auto`` becomes the one a new slot would get.

    wal2json is asked through a temporary slot, the only way to learn whether the server loads it for this role.
    """
    if name not in ("auto", "wal2json"):
        return Plugin(name)
    if server.wal_level != "logical" or not server.may_replicate:
        return Plugin("wal2json", is_exact=None, unseen="no slot can be made as things stand")
    try:
        return Plugin("wal2json", is_exact=_is_exact(sql), reason="the server loads it")
    except PluginRefused as error:
        if name == "auto":
            return Plugin("pgoutput", reason=f"no wal2json: {error}")
        return Plugin("wal2json", is_exact=None, refusal=error)
    except SourceError as error:
        return Plugin("wal2json", is_exact=None, unseen=str(error))


def _is_exact(sql: Sql) -> bool:
    """Whether wal2json knows the option that keeps NaN and the infinities. An error drops a temporary slot."""
    slot = f"pgevents_doctor_{os.getpid()}"
    sql.run(f"set statement_timeout = '{_PATIENCE}'")
    try:
        sql.rows(_CREATE, slot, plugin="wal2json")
        sql.rows(_PEEK, slot, plugin="wal2json")
        sql.rows(_DROP, slot)
    except SourceError as error:
        if re.search(r'option "numeric-data-types-as-string".* is unknown', str(error)):
            return False
        raise
    finally:
        sql.run("set statement_timeout = 0")
    return True
