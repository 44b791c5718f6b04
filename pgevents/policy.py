"""What becomes of every error of PostgreSQL and RabbitMQ: a table for each, in groups of one verdict. Pure.

An error is looked up by its sentence, then by its code, then by the class of its code. Of several sentences that fit,
the longest decides, so that the order of the table is the reader's. A sentence is written as the server says it in
English, with … for what varies. What no rule knows is final: it stops the stream.

``says`` and ``hint`` are templates for ``str.format``. Confirms and returns are no errors; ``sink/amqp`` knows them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from operator import itemgetter
from typing import Generic, TypeVar

from pgevents.errors import (
    AccessRefused,
    AuthenticationFailed,
    DecodeError,
    ExchangeMissing,
    GapDetected,
    NotPrimary,
    PGEventsError,
    PluginRefused,
    PrivilegeError,
    PublishRejected,
    SinkDegraded,
    SinkError,
    SinkRefused,
    SinkUnavailable,
    SlotInUse,
    SlotLost,
    SlotMismatch,
    SlotMissing,
    SourceDegraded,
    SourceError,
    SourceRefused,
    SourceUnavailable,
)

Fault_co = TypeVar("Fault_co", bound=PGEventsError, covariant=True)


class Verdict(Enum):
    """What becomes of an error. Our error's class carries it: ``transient``, ``alert``, ``exit_code``."""

    RETRY = "tried again; a person is called when that has not helped for a minute"
    ALERT = "tried again, and a person is called at once"
    REFUSE = "exit code 4 at the start; in a running stream tried again, and a person is called at once"
    GAP = "exit code 3: changes are lost for good"
    CONFIGURATION = "exit code 4: a person must change something"
    STOP = "exit code 1"


@dataclass(frozen=True, slots=True)
class Rule(Generic[Fault_co]):
    """Errors with one cause: our error for them, what it says, and what an operator can do.

    PostgreSQL's codes are SQLSTATEs, or two characters for a class of them; RabbitMQ's are reply codes, alone or with
    the stage they are met at. Words stand for what the drivers say without a code.
    """

    error: type[Fault_co]
    hint: str
    codes: Sequence[str] = ()
    sentences: Sequence[str] = ()
    says: str = "{text}"

    def fault(self, **names: object) -> Fault_co:
        return self.error(self.says.format(**names), hint=self.hint.format(**names))


Table = Mapping[Verdict, Sequence[Rule[Fault_co]]]

NO_SQLSTATE = "no SQLSTATE"

_AGAIN = "A stream that was running tries again by itself."
_REPORT = "Nothing unconfirmed was acknowledged. Keep the slot and report this message."

POSTGRES: Table[PGEventsError] = {
    Verdict.RETRY: (
        Rule(
            SourceUnavailable,
            f"Check host and port, and that the server runs. {_AGAIN}",
            # 08 connection, 57 operator intervention: shutdown 57P01, crash 57P02, starting up 57P03, cancelled 57014
            codes=(NO_SQLSTATE, "08", "57"),
            sentences=("server closed the connection unexpectedly",),
        ),
        Rule(
            SourceUnavailable,
            "No host is given: name the database with --dsn, PGEVENTS_DSN or PGHOST, or start the server here.",
            sentences=("Is the server running locally and accepting connections on that socket?",),
        ),
        Rule(
            SlotInUse,
            "Another process reads this slot; it may take wal_sender_timeout to be let go.",
            codes=("55006",),
            sentences=('replication slot "…" is active for PID …',),
        ),
        Rule(
            SourceUnavailable,
            f"Another session was in the way. {_AGAIN}",
            # serialization failure, deadlock, lock timeout, idle in transaction
            codes=("40001", "40P01", "55P03", "25P03", "25P04"),
        ),
        Rule(
            SourceUnavailable,
            "The server takes no writes, as during a promotion. If it stays so, connect to the primary.",
            codes=("25006",),
            sentences=("cannot execute … during recovery",),
        ),
        Rule(
            SourceUnavailable,
            f"Decoding failed inside the server, which mostly passes. {_AGAIN}",
            sentences=(
                "could not find record while sending logically-decoded data…",
                "could not read from reorderbuffer spill file…",
                "Unable to restore changes for xid …",
                "…: Stale file handle",
                'could not rename file "pg_logical/snapshots/…',
                'could not open file "pg_logical/snapshots/…',
                "pfree called with invalid pointer …",
                "unrecognized SI message ID: …",
                "could not find block containing chunk …",
                "Internal error encountered during logical decoding…",  # Aurora
                "…to fetch WAL: no donor available",  # Neon
            ),
        ),
        Rule(
            SourceUnavailable,
            "A standby named in synchronized_standby_slots is away. Bring it back, or take its slot off that list.",
            sentences=('replication slot "…" specified in parameter "…" does not have active_pid',),
        ),
    ),
    Verdict.ALERT: (
        Rule(
            SourceDegraded,
            "Free connections, or raise max_connections, max_wal_senders or the role's limit. It is tried again.",
            codes=("53300",),
            sentences=(
                "sorry, too many clients already",
                "remaining connection slots are reserved for …",
                "too many connections for role …",
                "too many connections for database …",
                "number of requested standby connections exceeds …max_wal_senders…",
                "no more connections allowed…",  # PgBouncer
            ),
        ),
        Rule(
            SourceDegraded,
            "Free space on the server's disk; pg_replication_slots shows who keeps WAL. It is tried again.",
            codes=("53100",),
            sentences=("…: No space left on device", "…: Disk quota exceeded"),
        ),
        Rule(
            SourceDegraded,
            "The server is short of memory or of another resource: see its log. It is tried again.",
            codes=("53",),
            sentences=("…has exceeded the compute time quota…",),  # Neon
        ),
        Rule(
            SourceDegraded,
            "The server failed to use a file: see its log, and look at its disk. It is tried again.",
            codes=("58",),
        ),
        Rule(
            # Whether it is lost for good, wal_status says when it is tried again: then it ends with SlotLost.
            SourceDegraded,
            "Put the segment back if there is an archive. It is tried again until the server calls slot {slot} lost.",
            sentences=("requested WAL segment … has already been removed",),
        ),
    ),
    Verdict.REFUSE: (
        Rule(
            AuthenticationFailed,
            "Check user, password and pg_hba.conf.",
            codes=("28",),
            sentences=(
                '…authentication failed for user "…"',
                "no password supplied",
                "no pg_hba.conf entry for …",
                "pg_hba.conf rejects …",
                'role "…" does not exist',
                'role "…" is not permitted to log in',
            ),
        ),
        Rule(
            AuthenticationFailed,
            "Check sslmode, sslrootcert, sslcert and sslkey, and that no certificate has expired.",
            sentences=(
                "SSL error: certificate verify failed…",
                "SSL error: …alert…",
                "SSL error: …unsupported protocol…",
                "SSL error: wrong version number",
                "server certificate for … does not match host name …",
                "could not get server's host name from server certificate",
                'root certificate file "…" does not exist',
                "could not … certificate file …",
                "could not … private key file …",
                "could not … root certificate …",
                "certificate present, but not private key file …",
                "certificate does not match private key file …",
                "private key file … has group or world access…",
                "server does not support SSL, but SSL was required",
                "connection requires a valid client certificate",
                "channel binding … required…",
            ),
        ),
        Rule(
            NotPrimary,
            "Connect to the primary; with several hosts in the DSN add target_session_attrs=read-write.",
            sentences=(
                "recovery is in progress",
                "logical decoding cannot be used while in recovery",
                "…Create the replication slot from the writer node instead…",  # RDS
            ),
        ),
    ),
    Verdict.GAP: (
        Rule(
            SlotLost,
            "The server removed WAL that the slot needed, so changes are gone. Reload what depends on the events, "
            "drop it (pgevents slot drop --slot {slot}), and start with --create-slot --accept-gap.",
            sentences=(
                "can no longer get changes from replication slot …",
                "can no longer access replication slot …",
                "cannot read from logical replication slot …",
            ),
        ),
        Rule(
            GapDetected,
            "The snapshot ended with the session that exported it. Begin again with a new slot and a new snapshot.",
            sentences=(
                "invalid snapshot identifier: …",
                'snapshot "…" does not exist',
                "could not import the requested snapshot",
            ),
        ),
    ),
    Verdict.CONFIGURATION: (
        Rule(
            # Asked for at the start. What a watermark knows of and is gone is a gap, and start.py says so.
            SlotMissing,
            "pgevents slot create --slot {slot}, or stream with --create-slot.",
            sentences=('replication slot "…" does not exist',),
        ),
        Rule(
            SlotMismatch,
            "Connect to the slot's own database, or use another slot name.",
            sentences=(
                'replication slot "…" was not created in this database',
                "cannot use physical replication slot for logical decoding",
                "…is a physical replication slot",
            ),
        ),
        Rule(
            PluginRefused,
            # Without quotes: SQL would take a quoted list for one library of that name.
            "ALTER SYSTEM SET output_plugin_libraries = pgoutput, test_decoding, {plugin}; SELECT pg_reload_conf(); "
            "or for one role: ALTER ROLE … SET output_plugin_libraries = pgoutput, {plugin}; "
            "A slot with --plugin pgoutput works without either.",
            sentences=('library "…" may not be used as an output plugin',),
        ),
        Rule(
            PluginRefused,
            "Install {plugin} on the server (Debian: postgresql-NN-wal2json), or use --plugin pgoutput, which every "
            "server has.",
            sentences=(
                'could not access file "…": …',
                'could not load library "…": …',
                "output plugins have to declare the _PG_output_plugin_init symbol",
            ),
        ),
        Rule(
            SourceRefused,
            "This version of the plug-in does not know the option: install a newer one, or use --plugin pgoutput.",
            sentences=('option "…" = "…" is unknown', "unrecognized pgoutput option: …"),
        ),
        Rule(
            SourceRefused,
            "Create it, or stream with --create-slot: both need the table owner's role.",
            sentences=('publication "…" does not exist',),
        ),
        Rule(
            SourceRefused,
            "ALTER SYSTEM SET wal_level = 'logical'; then restart the server.",
            sentences=(
                "logical decoding requires …wal_level… >= …logical…",
                "logical decoding on standby requires …wal_level… >= …logical… on the primary",
                "replication slots can only be used if …wal_level… >= …replica…",
            ),
        ),
        Rule(
            SourceRefused,
            "Drop a slot nobody reads, or raise max_replication_slots and restart.",
            codes=("53400",),
            sentences=(
                "all replication slots are in use",
                "replication slots can only be used if …max_replication_slots… > 0",
            ),
        ),
        Rule(
            SourceRefused,
            "ALTER SYSTEM SET max_wal_senders = 10; then restart the server.",
            sentences=("number of requested standby connections exceeds …max_wal_senders… (currently 0)",),
        ),
        Rule(
            PrivilegeError,
            "ALTER ROLE … WITH REPLICATION; (on RDS: GRANT rds_replication TO …;) as an administrator.",
            sentences=(
                "must be superuser or replication role to …",
                "permission denied to start WAL sender",
                "permission denied to use replication slots",
                "must have REPLICATION …",
            ),
        ),
        Rule(PrivilegeError, "Ask an administrator for the privilege it names.", codes=("42501",)),
        Rule(
            SourceRefused,
            "A slot belongs to one database: name it in --dsn or PGDATABASE.",
            codes=("3D000",),
            sentences=('database "…" does not exist', 'database "…" is not currently accepting connections'),
        ),
        Rule(
            SourceRefused,
            "Creating a slot waits for every transaction that was running when it began: end the long ones.",
            sentences=("canceling statement due to statement timeout",),
        ),
        Rule(
            SourceRefused,
            "Replication needs a connection to PostgreSQL itself: name its own host and port, not those of a pooler.",
            sentences=("unsupported startup parameter…", "…replication connections are not supported…"),
        ),
        Rule(
            SourceRefused,
            "Look for the name in the DSN, PGSERVICE and PGSERVICEFILE.",
            sentences=('definition of service "…" not found', 'service file "…" not found'),
        ),
        Rule(
            SourceRefused,
            "A row or transaction is more than the server can print (1 GB): bring it to its latest minor version, "
            "leave the table out with --exclude-table, or pass it by with pg_replication_slot_advance.",
            codes=("54000",),
            sentences=(
                "invalid memory alloc request size …",
                "…Cannot enlarge string buffer…",
                "string buffer exceeds maximum allowed length …",
            ),
        ),
        Rule(
            SourceRefused,
            "ALTER SYSTEM SET logical_decoding_work_mem to a higher value, then SELECT pg_reload_conf();",
            sentences=(
                "Internal error encountered during logical decoding of aborted sub-transaction…",
                "…increase logical_decoding_work_mem…",
            ),
        ),
    ),
    Verdict.STOP: (
        Rule(
            DecodeError,
            "Look into the server's log.",
            # character not in repertoire, untranslatable character; the server's own sentence holds bytes of the row
            codes=("22021", "22P05"),
            says="it holds text that is not valid in the database's encoding or cannot be put into UTF-8",
        ),
        Rule(
            SourceError,
            "The server's files are damaged: see its log before anything is written to them.",
            codes=("XX001", "XX002"),
        ),
    ),
}

RABBITMQ: Table[SinkError] = {
    Verdict.RETRY: (
        Rule(
            SinkUnavailable,
            f"Check host and port, and that the broker runs. {_AGAIN}",
            codes=("unreachable",),
            says="cannot reach RabbitMQ at {address}: {text}",
        ),
        Rule(SinkUnavailable, _AGAIN, codes=("lost",), says="the connection to RabbitMQ was lost: {text}"),
        Rule(SinkUnavailable, _AGAIN, codes=("no heartbeat",), says="RabbitMQ sent no heartbeat in time"),
        Rule(
            # Connection forced: a shutdown, rabbitmqctl close_connection, or its user or virtual host deleted.
            SinkUnavailable,
            _AGAIN,
            codes=("320",),
            says="RabbitMQ closed the connection: {text}",
        ),
        Rule(
            SinkUnavailable,
            "It is declared again, unless --no-declare is given: then create it.",
            codes=("404 publishing",),
            says="exchange {exchange!r} is gone: {text}",
        ),
        Rule(SinkUnavailable, f"Another connection holds it. {_AGAIN}", codes=("405",)),
    ),
    Verdict.ALERT: (
        Rule(
            SinkDegraded,
            "Close others, or raise the limit (rabbitmqctl set_vhost_limits, set_user_limits). It is tried again.",
            sentences=("…connection limit (…) is reached", "number of channels opened … has reached the maximum …"),
            says="user {user!r} gets no connection: {text}",
        ),
        Rule(
            SinkDegraded,
            "See the broker's log; rabbitmqctl restart_vhost may help. It is tried again.",
            codes=("506", "541"),
            sentences=("…vhost … is down",),
            says="RabbitMQ failed: {text}",
        ),
    ),
    Verdict.REFUSE: (
        Rule(
            AccessRefused,
            "Check user and password of the RabbitMQ URL; the user guest may come from localhost only.",
            codes=("403 connect",),
            says="user {user!r} was refused by {address}: {text}",
        ),
        Rule(
            AccessRefused,
            "Create it (rabbitmqctl add_vhost) or let user {user!r} in (rabbitmqctl set_permissions).",
            codes=("402 connect", "530 connect"),
            says="virtual host {vhost!r} was refused by {address}: {text}",
        ),
        Rule(
            AccessRefused,
            "Grant configure (or use --no-declare) and write on it with rabbitmqctl set_permissions.",
            codes=("403",),
            says="user {user!r} has no permission on exchange {exchange!r}: {text}",
        ),
        Rule(
            AccessRefused,
            "Give the CA that signed it as cacertfile=, and a name it holds as server_name_indication=.",
            codes=("certificate",),
            says="the certificate of {address} was refused: {text}",
        ),
        Rule(
            AccessRefused,
            "Check that the port is the broker's TLS port, and what it wants of certfile= and keyfile=.",
            codes=("no TLS",),
            says="no TLS with {address}: {text}",
        ),
        Rule(
            ExchangeMissing,
            "Create it, or leave out --no-declare to have it declared as a durable topic exchange.",
            codes=("404 declare",),
            says="there is no exchange {exchange!r}: {text}",
        ),
    ),
    Verdict.CONFIGURATION: (
        Rule(
            SinkRefused,
            "Name another exchange=, or use --no-declare to publish to it as it is.",
            codes=("406 declare",),
            says="exchange {exchange!r} exists, but is no durable topic exchange: {text}",
        ),
        Rule(
            SinkRefused,
            "Name another exchange=: only other exchanges may publish to an internal one.",
            sentences=("cannot publish to internal exchange …",),
            says="exchange {exchange!r} takes nothing from clients: {text}",
        ),
    ),
    Verdict.STOP: (
        Rule(
            PublishRejected,
            "Raise max_message_size in rabbitmq.conf, or leave the wide column or table out.",
            sentences=("message size … larger than … size …",),
        ),
        Rule(
            # 311 and 313 belong to what we never ask for; from 501 on the protocol was broken.
            SinkError,
            _REPORT,
            codes=("311", "313", "406", "501", "502", "503", "504", "505", "530", "540"),
            says="RabbitMQ refused what was sent to it: {text}",
        ),
    ),
}

UNKNOWN_TO_POSTGRES = Rule(SourceError, "Nothing was acknowledged for it. The server's log may say more.")
UNKNOWN_TO_RABBITMQ = Rule(SinkError, _REPORT, says="RabbitMQ closed the channel: {text}")


def of_postgres(sqlstate: str, text: str) -> Rule[PGEventsError]:
    """The rule for an error of the server or of libpq; ``sqlstate`` may be NO_SQLSTATE, ``text`` is one line."""
    return _find(POSTGRES, text, codes=(sqlstate, sqlstate[:2])) or UNKNOWN_TO_POSTGRES


def of_rabbitmq(code: str, text: str, *, stage: str) -> Rule[SinkError]:
    """The rule for what ended a connection or channel in ``stage``: ``connect``, ``declare`` or ``publishing``."""
    return _find(RABBITMQ, text, codes=(f"{code} {stage}", code)) or UNKNOWN_TO_RABBITMQ


def _find(table: Table[Fault_co], text: str, *, codes: Sequence[str]) -> Rule[Fault_co] | None:
    fitting = [
        (len(sentence), rule)
        for rule in rules(table)
        for sentence in rule.sentences
        if _pattern(sentence).search(text)
    ]
    if fitting:
        return max(fitting, key=itemgetter(0))[1]
    return next((rule for code in codes for rule in rules(table) if code in rule.codes), None)


def rules(table: Table[Fault_co]) -> Iterator[Rule[Fault_co]]:
    for group in table.values():
        yield from group


@cache
def _pattern(sentence: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, sentence.split("…"))))
