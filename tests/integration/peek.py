"""What a slot of pgoutput would deliver, looked at and left there."""

import secrets
import struct
from contextlib import closing

import psycopg2
from psycopg2.extensions import parse_dsn

from pgevents.mark import PREFIX, Mark, parse_mark
from tests.integration.role import publish_all

Seen = Mark | str
"""A mark, or a change such as ``I orders``."""


class Peek:
    """A slot that sees all that is run from here on, in a database of which everything is published."""

    def __init__(self, dsn: str) -> None:
        publish_all(dsn, "everything")
        self._dsn = dsn
        self._slot = f"{parse_dsn(dsn)['dbname']}_{secrets.token_hex(4)}"
        self._rows("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", self._slot)

    def transactions(self) -> list[list[Seen]]:
        """What each transaction holds, in order; those that hold nothing are left out."""
        rows = self._rows(
            "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, 'proto_version', '1',"
            " 'publication_names', 'everything', 'messages', 'true')",
            self._slot,
        )
        seen: list[list[Seen]] = []
        names: dict[bytes, str] = {}
        for message in rows:
            match message[:1]:
                case b"B":
                    seen.append([])
                case b"R":
                    names[message[1:5]] = message[5:].split(b"\0")[1].decode()
                case b"M":
                    seen[-1].append(_mark(message))
                case b"I" | b"U" | b"D" as operation:
                    seen[-1].append(f"{operation.decode()} {names[message[1:5]]}")
                case b"T":
                    seen[-1].append("T")
        return [changes for changes in seen if changes]

    def _rows(self, query: str, *parameters: str) -> list[bytes]:
        with closing(psycopg2.connect(self._dsn)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute(query, parameters)
            return [bytes(row[0]) if isinstance(row[0], memoryview) else b"" for row in cursor.fetchall()]


def _mark(message: bytes) -> Mark:
    """Layout: flags u8, LSN u64, prefix, length u32, content."""
    flags, prefix, rest = message[1], *message[10:].split(b"\0", 1)
    (length,) = struct.unpack("!I", rest[:4])
    assert (flags, prefix, length) == (1, PREFIX.encode(), len(rest) - 4)
    return parse_mark(rest[4:])
