"""The error policy: each sentence and code as its server says it, through the real adapters, to a verdict."""

import re
import ssl
from typing import Any

import psycopg2
import pytest
from pika.adapters.utils.connection_workflow import AMQPConnectorAMQPHandshakeError
from pika.exceptions import (
    AMQPError,
    AMQPHeartbeatTimeout,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
    StreamLostError,
)
from psycopg2 import errors as states

from pgevents import policy
from pgevents.errors import (
    EXIT_FAILED,
    EXIT_GAP,
    EXIT_REFUSED,
    AuthenticationFailed,
    ExchangeMissing,
    PGEventsError,
    PluginRefused,
    PrivilegeError,
    PublishRejected,
    SinkUnavailable,
    SlotInUse,
    SlotLost,
    SlotMismatch,
    SlotMissing,
    SourceError,
    SourceUnavailable,
)
from pgevents.event import Address, Envelope
from pgevents.fault import translated
from pgevents.policy import NO_SQLSTATE, POSTGRES, RABBITMQ, Rule, Verdict
from pgevents.sink.amqp.fault import connect_fault, declare_fault, lost_fault
from pgevents.sink.amqp.url import parse

RETRY, ALERT, REFUSE, GAP = Verdict.RETRY, Verdict.ALERT, Verdict.REFUSE, Verdict.GAP
CONFIGURATION, STOP = Verdict.CONFIGURATION, Verdict.STOP

# What a verdict means to the supervisor and to the exit code.
MEANING = {
    RETRY: (True, False, EXIT_FAILED),
    ALERT: (True, True, EXIT_FAILED),
    REFUSE: (False, True, EXIT_REFUSED),
    GAP: (False, False, EXIT_GAP),
    CONFIGURATION: (False, False, EXIT_REFUSED),
    STOP: (False, False, EXIT_FAILED),
}

URL = parse("amqp://app:secret@broker.example/shop?exchange=pgevents")
ADDRESS = URL.addresses[0]


def meaning(error: PGEventsError | type[PGEventsError]) -> tuple[bool, bool, int]:
    return error.transient, error.alert, error.exit_code


# PostgreSQL. A connection that is refused comes without SQLSTATE; then the code here is empty.

CONNECTING = 'connection to server at "db.example" (192.0.2.1), port 5432 failed: '
LOCAL = 'connection to server on socket "/run/.s.PGSQL.5432" failed: No such file or directory'
IS_IT_RUNNING = "\n\tIs the server running locally and accepting connections on that socket?"

SAID = [
    (RETRY, "", f"{CONNECTING}Connection refused\n\tIs the server running on that host and …"),
    (RETRY, "", f"{CONNECTING}timeout expired"),
    (RETRY, "", f"{CONNECTING}FATAL:  the database system is starting up"),
    (RETRY, "", f"{CONNECTING}FATAL:  the database system is shutting down"),
    (RETRY, "", f"{CONNECTING}FATAL:  the database system is not yet accepting connections"),
    (RETRY, "", 'could not translate host name "db.example" to address: Name or service not known'),
    (RETRY, "", f"{LOCAL}{IS_IT_RUNNING}"),
    (RETRY, "", "server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally"),
    (RETRY, "", "SSL SYSCALL error: EOF detected"),
    (RETRY, "", "SSL connection has been closed unexpectedly"),
    (RETRY, "", "SSL error: unexpected eof while reading"),
    (RETRY, "08006", "connection failure"),
    (RETRY, "08P01", "protocol violation"),
    (RETRY, "57P01", "terminating connection due to administrator command"),
    (RETRY, "57P02", "terminating connection because of crash of another server process"),
    (RETRY, "57P03", "the database system is starting up"),
    (RETRY, "57014", "canceling statement due to user request"),
    (RETRY, "40001", "canceling statement due to conflict with recovery"),
    (RETRY, "40P01", "deadlock detected"),
    (RETRY, "55P03", "canceling statement due to lock timeout"),
    (RETRY, "25P03", "terminating connection due to idle-in-transaction timeout"),
    (RETRY, "55006", 'replication slot "shop" is active for PID 4711'),
    (RETRY, "XX000", "could not find record while sending logically-decoded data: missing contrecord at 0/1"),
    (RETRY, "58030", "could not read from reorderbuffer spill file: Input/output error"),
    (RETRY, "XX000", "could not read from reorderbuffer spill file: read 0 instead of 8 bytes"),
    (RETRY, "58P01", "Unable to restore changes for xid 733"),
    (RETRY, "XX000", 'could not stat file "pg_replslot/shop/xid-733-lsn-0-1.spill": Stale file handle'),
    (RETRY, "58P01", 'could not rename file "pg_logical/snapshots/0-1.snap.7.tmp" to "…": No such file or directory'),
    (RETRY, "58P01", 'could not open file "pg_logical/snapshots/0-1.snap": No such file or directory'),
    (RETRY, "XX000", "pfree called with invalid pointer 0x55 (header 0x0000000000000000)"),
    (RETRY, "XX000", "unrecognized SI message ID: -42"),
    (RETRY, "XX000", "could not find block containing chunk 0x55"),
    (RETRY, "XX000", "Internal error encountered during logical decoding"),
    (RETRY, "XX000", "failed to establish remote connection to fetch WAL: no donor available"),
    (RETRY, "25006", "cannot execute UPDATE in a read-only transaction"),
    (RETRY, "25006", "cannot execute CREATE PUBLICATION during recovery"),
    (RETRY, "55000", 'replication slot "1" specified in parameter "synchronized_…" does not have active_pid'),
    (ALERT, "", f"{CONNECTING}FATAL:  sorry, too many clients already"),
    (ALERT, "", f"{CONNECTING}FATAL:  remaining connection slots are reserved for non-replication superuser …"),
    (ALERT, "", f'{CONNECTING}FATAL:  too many connections for role "app"'),
    (ALERT, "", f'{CONNECTING}FATAL:  too many connections for database "shop"'),
    (ALERT, "", f"{CONNECTING}FATAL:  number of requested standby connections exceeds max_wal_senders (currently 9)"),
    (ALERT, "", f"{CONNECTING}FATAL:  no more connections allowed (max_client_conn)"),
    (ALERT, "53300", "zu viele Verbindungen"),
    (ALERT, "53100", 'could not extend file "base/5/16384": No space left on device'),
    (ALERT, "58030", 'could not write to file "pg_replslot/shop/state.tmp": No space left on device'),
    (ALERT, "XX000", "could not write: Disk quota exceeded"),
    (ALERT, "53200", "out of memory"),
    (ALERT, "XX000", "Your account or project has exceeded the compute time quota. Upgrade your plan."),
    (ALERT, "58030", "could not read block 7 in file"),
    (ALERT, "58P01", "requested WAL segment 000000010000000000000007 has already been removed"),
    (ALERT, "XX000", "requested WAL segment 000000010000000000000007 has already been removed"),
    (REFUSE, "", f'{CONNECTING}FATAL:  password authentication failed for user "app"'),
    (REFUSE, "", f'{CONNECTING}FATAL:  LDAP authentication failed for user "app"'),
    (REFUSE, "", "connection to server failed: fe_sendauth: no password supplied"),
    (REFUSE, "", f'{CONNECTING}FATAL:  no pg_hba.conf entry for host "192.0.2.9", user "app", database "shop", …'),
    (REFUSE, "", f'{CONNECTING}FATAL:  pg_hba.conf rejects replication connection for host "192.0.2.9", user "app"'),
    (REFUSE, "", f'{CONNECTING}FATAL:  role "app" does not exist'),
    (REFUSE, "", f'{CONNECTING}FATAL:  role "app" is not permitted to log in'),
    (REFUSE, "28P01", "Passwort-Authentifizierung fehlgeschlagen"),
    (REFUSE, "28000", "kein pg_hba.conf-Eintrag"),
    (REFUSE, "", f"{CONNECTING}SSL error: certificate verify failed"),
    (REFUSE, "", f"{CONNECTING}SSL error: tlsv1 alert unknown ca"),
    (REFUSE, "", f"{CONNECTING}SSL error: unsupported protocol"),
    (REFUSE, "", f"{CONNECTING}SSL error: wrong version number"),
    (REFUSE, "", 'server certificate for "db" (and 1 other name) does not match host name "db.example"'),
    (REFUSE, "", "could not get server's host name from server certificate"),
    (REFUSE, "", 'root certificate file "/app/root.crt" does not exist'),
    (REFUSE, "", 'could not read root certificate file "/app/root.crt": no certificate or crl found'),
    (REFUSE, "", "could not load system root certificate paths: whatever"),
    (REFUSE, "", 'could not load private key file "/app/app.key": bad decrypt'),
    (REFUSE, "", 'certificate present, but not private key file "/app/app.key"'),
    (REFUSE, "", 'certificate does not match private key file "/app/app.key": key values mismatch'),
    (REFUSE, "", 'private key file "/app/app.key" has group or world access; file must have permissions u=rw (0600)'),
    (REFUSE, "", "server does not support SSL, but SSL was required"),
    (REFUSE, "", f"{CONNECTING}FATAL:  connection requires a valid client certificate"),
    (REFUSE, "", "channel binding is required, but server did not offer an authentication method that supports it"),
    (REFUSE, "55000", "recovery is in progress"),
    (REFUSE, "55000", "logical decoding cannot be used while in recovery"),
    (REFUSE, "XX000", "cannot do this here. Create the replication slot from the writer node instead."),
    (GAP, "55000", 'can no longer get changes from replication slot "shop"'),
    (GAP, "55000", 'can no longer access replication slot "shop"'),
    (GAP, "55000", 'cannot read from logical replication slot "shop"'),
    (GAP, "22023", 'invalid snapshot identifier: "00000003-1"'),
    (GAP, "42704", 'snapshot "00000003-1" does not exist'),
    (GAP, "55000", "could not import the requested snapshot"),
    (CONFIGURATION, "42704", 'replication slot "shop" does not exist'),
    (CONFIGURATION, "55000", 'replication slot "shop" was not created in this database'),
    (CONFIGURATION, "55000", "cannot use physical replication slot for logical decoding"),
    (CONFIGURATION, "55000", '"shop" is a physical replication slot'),
    (CONFIGURATION, "42501", 'library "wal2json" may not be used as an output plugin'),
    (CONFIGURATION, "58P01", 'could not access file "wal2json": No such file or directory'),
    (CONFIGURATION, "XX000", 'could not load library "/usr/lib/wal2json.so": undefined symbol: pfree'),
    (CONFIGURATION, "XX000", "output plugins have to declare the _PG_output_plugin_init symbol"),
    (CONFIGURATION, "22023", 'option "numeric-data-types-as-string" = "1" is unknown'),
    (CONFIGURATION, "XX000", "unrecognized pgoutput option: messages"),
    (CONFIGURATION, "42704", 'publication "pgevents" does not exist'),
    (CONFIGURATION, "55000", "logical decoding requires wal_level >= logical"),
    (CONFIGURATION, "55000", 'logical decoding requires "wal_level" >= "logical"'),
    (CONFIGURATION, "55000", 'logical decoding on standby requires "wal_level" >= "logical" on the primary'),
    (CONFIGURATION, "55000", "replication slots can only be used if wal_level >= replica"),
    (CONFIGURATION, "55000", 'replication slots can only be used if "max_replication_slots" > 0'),
    (CONFIGURATION, "53400", "all replication slots are in use"),
    (CONFIGURATION, "53400", "alle Replikations-Slots sind in Benutzung"),
    (CONFIGURATION, "", "FATAL:  number of requested standby connections exceeds max_wal_senders (currently 0)"),
    (CONFIGURATION, "42501", "must be superuser or replication role to use replication slots"),
    (CONFIGURATION, "42501", "permission denied to start WAL sender"),
    (CONFIGURATION, "42501", "permission denied to use replication slots"),
    (CONFIGURATION, "42501", "must have REPLICATION privilege"),
    (CONFIGURATION, "42501", "permission denied for table orders"),
    (CONFIGURATION, "", f'{CONNECTING}FATAL:  database "shop" does not exist'),
    (CONFIGURATION, "", f'{CONNECTING}FATAL:  database "shop" is not currently accepting connections'),
    (CONFIGURATION, "3D000", "Datenbank »shop« existiert nicht"),
    (CONFIGURATION, "57014", "canceling statement due to statement timeout"),
    (CONFIGURATION, "", f"{CONNECTING}FATAL:  unsupported startup parameter: replication"),
    (CONFIGURATION, "", f"{CONNECTING}FATAL:  replication connections are not supported"),
    (CONFIGURATION, "", 'definition of service "shop" not found'),
    (CONFIGURATION, "", 'service file "/app/pg_service.conf" not found'),
    (CONFIGURATION, "XX000", "invalid memory alloc request size 1073741824"),
    (CONFIGURATION, "54000", "out of memory"),
    (CONFIGURATION, "XX000", "Cannot enlarge string buffer containing 1073741811 bytes by 13 more bytes."),
    (CONFIGURATION, "XX000", "string buffer exceeds maximum allowed length (1073741823 bytes)"),
    (CONFIGURATION, "XX000", "Internal error encountered during logical decoding of aborted sub-transaction 7"),
    (CONFIGURATION, "XX000", "too many changes, increase logical_decoding_work_mem"),
    (STOP, "22021", 'invalid byte sequence for encoding "UTF8": 0xff'),
    (STOP, "22P05", 'character with byte sequence 0x81 in encoding "WIN1252" has no equivalent in encoding "UTF8"'),
    (STOP, "XX001", "invalid page in block 7 of relation base/5/16384"),
    (STOP, "42601", 'syntax error at or near "selekt"'),
    (STOP, "XX000", "something nobody has ever seen"),
]  # fmt: skip


def of_psycopg2(sqlstate: str, text: str) -> psycopg2.Error:
    """The driver's error as it is raised: without an SQLSTATE it is libpq's."""
    if not sqlstate:
        return psycopg2.OperationalError(f"{text}\n")
    error: Any = states.lookup(sqlstate)(f"{text}\n")
    error.__setstate__({"pgcode": sqlstate})
    raised: psycopg2.Error = error
    return raised


@pytest.mark.parametrize(
    ("verdict", "sqlstate", "text"), SAID, ids=[f"{code or 'libpq'} {text}" for _, code, text in SAID]
)
@pytest.mark.fault("F36")
def test_what_postgresql_says_has_its_verdict(verdict: Verdict, sqlstate: str, text: str) -> None:
    error = translated(of_psycopg2(sqlstate, text), slot="shop", plugin="wal2json")

    assert meaning(error) == MEANING[verdict], error
    assert "\n" not in str(error)
    assert not re.search("FATAL|ERROR", str(error))
    assert error.hint


@pytest.mark.parametrize(
    ("sqlstate", "text", "kind"),
    [
        ("55006", 'replication slot "shop" is active for PID 4711', SlotInUse),
        ("28P01", 'password authentication failed for user "app"', AuthenticationFailed),
        ("55000", 'can no longer get changes from replication slot "shop"', SlotLost),
        ("42704", 'replication slot "shop" does not exist', SlotMissing),
        ("55000", 'replication slot "shop" was not created in this database', SlotMismatch),
        ("42501", 'library "wal2json" may not be used as an output plugin', PluginRefused),
        ("42501", "permission denied for table orders", PrivilegeError),
        ("57P01", "terminating connection due to administrator command", SourceUnavailable),
    ],
)  # fmt: skip
def test_an_error_is_of_the_class_that_says_what_it_is(sqlstate: str, text: str, kind: type[PGEventsError]) -> None:
    assert type(translated(of_psycopg2(sqlstate, text))) is kind


def test_an_error_without_sqlstate_that_is_not_libpqs_is_unknown() -> None:
    assert type(translated(psycopg2.ProgrammingError("no results to fetch"))) is SourceError


def test_the_bytes_that_cannot_be_printed_are_not_shown() -> None:
    error = translated(of_psycopg2("22021", 'invalid byte sequence for encoding "UTF8": 0xff 0x6f'))

    assert "0xff" not in str(error)


def test_a_hint_names_the_slot() -> None:
    text = 'replication slot "shop" does not exist'

    assert "--slot shop," in translated(of_psycopg2("42704", text), slot="shop").hint
    assert "--slot NAME," in translated(of_psycopg2("42704", text)).hint


# RabbitMQ.


def at_connecting(kind: type[AMQPError], code: int, text: str) -> BaseException:
    """What pika makes of a connection that the broker closes before it is open."""
    error: BaseException = AMQPConnectorAMQPHandshakeError(kind(repr(ConnectionClosedByBroker(code, text))))
    return error


NOT_THIS_VHOST = "NOT_ALLOWED - access to vhost 'shop' refused for user 'app'"
NOT_THIS_EXCHANGE = "ACCESS_REFUSED - access to exchange 'pgevents' in vhost 'shop' refused for user 'app'"
NO_EXCHANGE = "NOT_FOUND - no exchange 'pgevents' in vhost 'shop'"
CHANNELS = "NOT_ALLOWED - number of channels opened for user 'app' has reached the maximum allowed user limit of (9)"

# Both are filled in by the handshake.
UNTRUSTED, NO_TLS = ssl.SSLCertVerificationError(1, "certificate verify failed"), ssl.SSLError(1, "wrong version")
UNTRUSTED.verify_message, NO_TLS.reason = "self-signed certificate", "WRONG_VERSION_NUMBER"

LOGIN, VHOST = ProbableAuthenticationError, ProbableAccessDeniedError

AT_CONNECTING = [
    (REFUSE, at_connecting(LOGIN, 403, "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN."),
     "user 'app' was refused by broker.example:5672: ACCESS_REFUSED - Login was refused"),
    (REFUSE, at_connecting(VHOST, 530, "NOT_ALLOWED - vhost shop not found"), "virtual host 'shop' was refused by"),
    (REFUSE, at_connecting(VHOST, 530, NOT_THIS_VHOST), "user 'app'$"),
    (REFUSE, at_connecting(VHOST, 402, "INVALID_PATH - no access"), "virtual host 'shop' was refused"),
    (ALERT, at_connecting(VHOST, 530, f"{NOT_THIS_VHOST}: connection limit (9) is reached"),
     r"user 'app' gets no connection: .*limit \(9\) is reached"),
    (ALERT, at_connecting(VHOST, 530, "NOT_ALLOWED - connection refused: user connection limit (9) is reached"),
     "user 'app' gets no connection"),
    (ALERT, at_connecting(VHOST, 541, "INTERNAL_ERROR - access to vhost 'shop' refused: vhost 'shop' is down"),
     "RabbitMQ failed: .*vhost 'shop' is down"),
    (RETRY, at_connecting(VHOST, 320, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"),
     "RabbitMQ closed the connection: CONNECTION_FORCED"),
    (RETRY, ConnectionClosedByBroker(320, "CONNECTION_FORCED - maintenance"), "closed the connection: .*maintenance"),
    (RETRY, ConnectionRefusedError(111, "Connection refused"), "at broker.example:5672: Connection refused"),
    (RETRY, TimeoutError(), "no answer within"),
    (RETRY, ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), "cannot reach RabbitMQ"),
    (REFUSE, UNTRUSTED, "the certificate of broker.example:5672 was refused: self-signed certificate"),
    (REFUSE, NO_TLS, "no TLS with broker.example:5672: WRONG_VERSION_NUMBER"),
    (STOP, at_connecting(VHOST, 599, "SOMETHING_NEW - never seen"), "SOMETHING_NEW"),
]  # fmt: skip

WHILE_DECLARING = [
    (REFUSE, 403, NOT_THIS_EXCHANGE,
     "user 'app' has no permission on exchange 'pgevents': ACCESS_REFUSED"),
    (REFUSE, 404, NO_EXCHANGE, "there is no exchange 'pgevents': NOT_FOUND"),
    (RETRY, 405, "RESOURCE_LOCKED - cannot obtain exclusive access", "RESOURCE_LOCKED"),
    (CONFIGURATION, 406, "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'pgevents' in vhost 'shop'",
     "exchange 'pgevents' exists, but is no durable topic exchange: PRECONDITION_FAILED"),
    (ALERT, 530, CHANNELS,
     "user 'app' gets no connection: NOT_ALLOWED - number of channels"),
    (ALERT, 541, "INTERNAL_ERROR", "RabbitMQ failed: INTERNAL_ERROR"),
]  # fmt: skip

WHILE_PUBLISHING = [
    (REFUSE, 403, NOT_THIS_EXCHANGE, "no permission on exchange"),
    (CONFIGURATION, 403, "ACCESS_REFUSED - cannot publish to internal exchange 'pgevents'", "takes nothing"),
    (RETRY, 404, NO_EXCHANGE, "exchange 'pgevents' is gone: NOT_FOUND"),
    (ALERT, 506, "RESOURCE_ERROR - out of file handles", "RabbitMQ failed: RESOURCE_ERROR"),
    (ALERT, 541, "INTERNAL_ERROR", "RabbitMQ failed: INTERNAL_ERROR"),
    *((STOP, code, f"NO_{code} - in the protocol", f"refused what was sent to it: NO_{code}")
      for code in (311, 313, 406, 501, 502, 503, 504, 505, 530, 540)),
    (STOP, 599, "SOMETHING_NEW - never seen", "RabbitMQ closed the channel: SOMETHING_NEW"),
]  # fmt: skip

IN_MID_STREAM = [
    (RETRY, ConnectionClosedByBroker(320, "CONNECTION_FORCED - user 'app' is deleted"), "closed .* deleted"),
    (RETRY, ConnectionClosedByBroker(320, "CONNECTION_FORCED - vhost 'shop' is deleted"), "closed the connection"),
    (ALERT, ConnectionClosedByBroker(541, "INTERNAL_ERROR"), "RabbitMQ failed"),
    (STOP, ConnectionClosedByBroker(501, "FRAME_ERROR - type 9"), "refused what was sent to it: FRAME_ERROR"),
    (RETRY, AMQPHeartbeatTimeout("No activity or too many missed heartbeats"), "no heartbeat in time"),
    (RETRY, StreamLostError("Transport indicated EOF"), "connection to RabbitMQ was lost: .*EOF"),
]  # fmt: skip


@pytest.mark.parametrize(("verdict", "error", "says"), AT_CONNECTING, ids=[says for _, _, says in AT_CONNECTING])
def test_what_keeps_rabbitmq_from_being_reached_has_its_verdict(
    verdict: Verdict, error: BaseException, says: str
) -> None:
    fault = connect_fault(error, URL, ADDRESS)

    assert meaning(fault) == MEANING[verdict], fault
    assert re.search(says, str(fault)), fault
    assert fault.hint
    assert "secret" not in f"{fault}{fault.hint}"


@pytest.mark.parametrize(("verdict", "code", "text", "says"), WHILE_DECLARING)
def test_what_rabbitmq_says_to_a_declaration_has_its_verdict(
    verdict: Verdict, code: int, text: str, says: str
) -> None:
    fault = declare_fault(ChannelClosedByBroker(code, text), URL)

    assert meaning(fault) == MEANING[verdict], fault
    assert re.search(says, str(fault)), fault
    assert fault.hint


@pytest.mark.parametrize(("verdict", "code", "text", "says"), WHILE_PUBLISHING)
def test_what_rabbitmq_says_to_a_published_event_has_its_verdict(
    verdict: Verdict, code: int, text: str, says: str
) -> None:
    fault = lost_fault(ChannelClosedByBroker(code, text), URL, ())

    assert meaning(fault) == MEANING[verdict], fault
    assert re.search(says, str(fault)), fault
    assert fault.hint


@pytest.mark.parametrize(("verdict", "error", "says"), IN_MID_STREAM, ids=[says for _, _, says in IN_MID_STREAM])
def test_what_ends_a_connection_in_mid_stream_has_its_verdict(
    verdict: Verdict, error: BaseException, says: str
) -> None:
    fault = lost_fault(error, URL, ())

    assert meaning(fault) == MEANING[verdict], fault
    assert re.search(says, str(fault)), fault


NO_EXCHANGE = "NOT_FOUND - no exchange 'it's' in vhost '/'"


def test_an_exchange_that_was_there_is_gone_and_one_that_never_was_is_missing() -> None:
    error = ChannelClosedByBroker(404, NO_EXCHANGE)

    gone = lost_fault(error, URL, (), exchanges=("it's",))
    missing = lost_fault(error, URL, ())

    assert (type(gone), type(missing)) == (SinkUnavailable, ExchangeMissing)
    assert str(gone).startswith('exchange "it\'s" is gone')
    assert str(missing).startswith('there is no exchange "it\'s"')


def test_an_exchange_that_cannot_be_declared_is_named() -> None:
    text = "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'second' in vhost '/': received 'topic'"

    assert str(declare_fault(ChannelClosedByBroker(406, text), URL)).startswith("exchange 'second' exists, but")


def test_an_event_larger_than_the_broker_takes_is_named() -> None:
    text = "PRECONDITION_FAILED - message size 9 is larger than configured max size 8"
    address = Address("public.orders.insert", "insert", "application/json")
    envelopes = [Envelope("small", address, 0, b"1"), Envelope("large", address, 0, b"123456789")]

    fault = lost_fault(ChannelClosedByBroker(406, text), URL, envelopes)

    assert isinstance(fault, PublishRejected)
    assert fault.message_id == "large"


# The tables themselves.

TABLES = {"PostgreSQL": POSTGRES, "RabbitMQ": RABBITMQ}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_the_class_of_every_rule_means_what_its_group_says(table: policy.Table[PGEventsError]) -> None:
    for verdict, group in table.items():
        for rule in group:
            assert meaning(rule.error) == MEANING[verdict], rule


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_the_groups_stand_in_the_order_of_the_verdicts(table: policy.Table[PGEventsError]) -> None:
    assert list(table) == [verdict for verdict in Verdict if verdict in table]


def test_every_rule_of_postgresql_is_found_by_each_of_its_sentences_and_codes() -> None:
    """An example of each sentence is found with its own rule, so none hides behind a longer one."""
    for rule in policy.rules(POSTGRES):
        for sentence in rule.sentences:
            assert policy.of_postgres(NO_SQLSTATE, sentence.replace("…", "x")) is rule, sentence
        for code in rule.codes:
            assert policy.of_postgres(code, "in other words") is rule, code
        assert rule.sentences or rule.codes


def test_every_rule_of_rabbitmq_is_found_by_each_of_its_sentences_and_codes() -> None:
    for rule in policy.rules(RABBITMQ):
        for sentence in rule.sentences:
            assert policy.of_rabbitmq("599", sentence.replace("…", "7"), stage="connect") is rule, sentence
        for code in rule.codes:
            number, _, stage = code.rpartition(" ") if code[0].isdigit() and " " in code else (code, "", "anywhere")
            assert policy.of_rabbitmq(number, "in other words", stage=stage) is rule, code
        assert rule.sentences or rule.codes


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_no_code_and_no_sentence_stands_twice(table: policy.Table[PGEventsError]) -> None:
    keys = [key for rule in policy.rules(table) for key in (*rule.codes, *rule.sentences)]

    assert len(keys) == len(set(keys))


def test_every_rule_of_postgresql_is_met_by_something_a_server_says() -> None:
    met = {id(policy.of_postgres(sqlstate or NO_SQLSTATE, text)) for _, sqlstate, text in SAID}

    assert [rule for rule in policy.rules(POSTGRES) if id(rule) not in met] == []


def test_the_longest_sentence_decides() -> None:
    few = policy.of_postgres("53300", "number of requested standby connections exceeds max_wal_senders (currently 9)")
    none = policy.of_postgres(
        "53300", "number of requested standby connections exceeds max_wal_senders (currently 0)"
    )

    assert few.error.transient
    assert not none.error.transient


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_hint_and_sentence_of_ours_can_be_filled_in(table: policy.Table[PGEventsError]) -> None:
    names = dict.fromkeys(("text", "slot", "plugin", "user", "vhost", "exchange", "address"), "x")

    def filled(rule: Rule[PGEventsError]) -> str:
        return f"{rule.says.format(**names)} {rule.hint.format(**names)}"

    assert all("{" not in filled(rule) for rule in policy.rules(table))
