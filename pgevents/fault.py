"""PostgreSQL's errors in our words: whose fault they are, and what to do."""

import re

import psycopg2

from pgevents.errors import (
    AuthenticationFailed,
    DecodeError,
    PGEventsError,
    PluginRefused,
    PrivilegeError,
    SlotInUse,
    SlotLost,
    SlotMismatch,
    SlotMissing,
    SourceError,
    SourceRefused,
    SourceUnavailable,
)
from pgevents.lsn import Lsn


def translated(error: psycopg2.Error, *, slot: str = "", plugin: str = "") -> PGEventsError:
    """Our error for one of the driver's: by SQLSTATE, else by the server's English sentence; unknown is final."""
    text = _one_line(error)
    for pattern, make in _SENTENCES:
        if re.search(pattern, text):
            return make(text, slot=slot, plugin=plugin)
    state = error.pgcode or ""
    if state in _STATES:
        return _STATES[state](text, slot=slot, plugin=plugin)
    if state in _UNENCODABLE:
        return _unencodable(error)
    if state[:2] in {"08", "57", "58", "53"} or (isinstance(error, psycopg2.OperationalError) and not state):
        return _unavailable(text)
    return SourceError(text, hint="Nothing was acknowledged for it. The server's log may say more.")


def _one_line(error: psycopg2.Error) -> str:
    """The server's message without ``FATAL:`` and line breaks."""
    message = error.diag.message_primary or str(error)
    return " ".join(re.sub(r"\b(FATAL|ERROR):\s+", "", message).split())


def _unavailable(text: str, **_: str) -> PGEventsError:
    if ".s.PGSQL." in text:
        hint = "No host is given: name the database with --dsn, PGEVENTS_DSN or PGHOST, or start the server here."
        return SourceUnavailable(text, hint=hint)
    return SourceUnavailable(
        text, hint="Check host and port, and that the server runs. A stream that was running tries again by itself."
    )


def _unencodable(error: psycopg2.Error) -> PGEventsError:
    """The server failed to print a row; its own sentence holds bytes of it, its context the LSN."""
    found = re.search(r"in the (\w+) callback, associated LSN (\S+)", error.diag.context or "")
    reason = "it holds text that is not valid in the database's encoding or cannot be put into UTF-8"
    if found is None:
        return SourceError(f"the server cannot print a value: {reason}", hint="Look into the server's log.")
    return DecodeError(reason, lsn=Lsn.parse(found[2]), tag=found[1])


def _authentication(text: str, **_: str) -> PGEventsError:
    return AuthenticationFailed(text, hint="Check user, password and pg_hba.conf.")


def _no_database(text: str, **_: str) -> PGEventsError:
    return SourceRefused(text, hint="A slot belongs to one database: name it in --dsn or PGDATABASE.")


def _not_replication(text: str, **_: str) -> PGEventsError:
    return PrivilegeError(
        text, hint="ALTER ROLE … WITH REPLICATION; (on RDS: GRANT rds_replication TO …;) as an administrator."
    )


def _wal_level(text: str, **_: str) -> PGEventsError:
    return SourceRefused(text, hint="ALTER SYSTEM SET wal_level = 'logical'; then restart the server.")


def _plugin_not_allowed(text: str, *, plugin: str, **_: str) -> PGEventsError:
    name = plugin or "wal2json"
    # Without quotes: SQL would take a quoted list for one library of that name.
    return PluginRefused(
        text,
        hint=f"ALTER SYSTEM SET output_plugin_libraries = pgoutput, test_decoding, {name}; SELECT pg_reload_conf(); "
        f"or for one role: ALTER ROLE … SET output_plugin_libraries = pgoutput, {name}; "
        "A slot with --plugin pgoutput works without either.",
    )


def _plugin_not_installed(text: str, *, plugin: str, **_: str) -> PGEventsError:
    return PluginRefused(
        text,
        hint=f"Install {plugin or 'the plug-in'} on the server (Debian: postgresql-NN-wal2json), "
        "or use --plugin pgoutput, which every server has.",
    )


def _slot_in_use(text: str, **_: str) -> PGEventsError:
    return SlotInUse(text, hint="Another process reads this slot; it may take wal_sender_timeout to be let go.")


def _slot_missing(text: str, *, slot: str, **_: str) -> PGEventsError:
    return SlotMissing(text, hint=f"pgevents slot create --slot {slot}, or stream with --create-slot.")


def _slot_lost(text: str, *, slot: str, **_: str) -> PGEventsError:
    return SlotLost(
        text,
        hint=f"The server removed WAL that slot {slot} needed, so changes are lost. Drop the slot, create it "
        "again and reload what depends on it.",
    )


def _other_database(text: str, **_: str) -> PGEventsError:
    return SlotMismatch(text, hint="Connect to the slot's own database, or use another slot name.")


def _no_publication(text: str, **_: str) -> PGEventsError:
    return SourceRefused(text, hint="Create it, or stream with --create-slot: both need the table owner's role.")


def _took_too_long(text: str, **_: str) -> PGEventsError:
    return SourceRefused(
        text, hint="Creating a slot waits for every transaction that was running when it began: end the long ones."
    )


def _no_free_slot(text: str, **_: str) -> PGEventsError:
    return SourceRefused(text, hint="Drop a slot nobody reads, or raise max_replication_slots and restart.")


_SENTENCES = (
    (r"all replication slots are in use", _no_free_slot),
    (r"canceling statement due to statement timeout", _took_too_long),
    (r"may not be used as an output plugin", _plugin_not_allowed),
    (r"could not access file|could not load library", _plugin_not_installed),
    (r"output plugin .* (does not exist|not found)", _plugin_not_installed),
    (r"can no longer (get changes from|access) replication slot", _slot_lost),
    (r"requested WAL segment .* has already been removed", _slot_lost),
    (r"replication slot .* does not exist", _slot_missing),
    (r"was not created in this database", _other_database),
    (r"cannot use physical replication slot|is a physical replication slot", _other_database),
    (r"replication slot .* is active for PID", _slot_in_use),
    (r"publication .* does not exist", _no_publication),
    (r"wal_level", _wal_level),
    (r"superuser or replication role|permission denied to start WAL sender|must have REPLICATION", _not_replication),
    (r"permission denied to use replication slots", _not_replication),
    (
        r"password authentication failed|no password supplied|no pg_hba\.conf entry|authentication failed",
        _authentication,
    ),
    (r"role .* (does not exist|is not permitted to log in)", _authentication),
    (r"database .* does not exist", _no_database),
    (r"certificate|SSL error", lambda text, **_: SourceRefused(text, hint="Check sslmode and sslrootcert.")),
)

# character_not_in_repertoire, untranslatable_character
_UNENCODABLE = {"22021", "22P05"}

_STATES = {
    "28P01": _authentication,
    "28000": _authentication,
    "3D000": _no_database,
    "55006": _slot_in_use,
    "42501": lambda text, **_: PrivilegeError(text, hint="Ask an administrator for the privilege it names."),
    "40001": _unavailable,
}
