"""Cutting the stream of envelopes into what a sink confirms as one."""

from dataclasses import dataclass

from pgevents.event import Envelope
from pgevents.lsn import NOWHERE, Lsn


@dataclass(frozen=True, slots=True)
class Batch:
    """Envelopes in order, and the LSN that may be acknowledged once all of them are confirmed.

    ``end_lsn`` is 0 while no transaction has ended. A batch without envelopes carries an LSN alone.
    """

    envelopes: list[Envelope]
    end_lsn: Lsn


class Cutter:
    """Collects envelopes until ``max_events`` or ``max_bytes`` of bodies are reached."""

    __slots__ = ("_bytes", "_end_lsn", "_envelopes", "_max_bytes", "_max_events")

    def __init__(self, *, max_events: int, max_bytes: int, end_lsn: Lsn = NOWHERE) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._envelopes: list[Envelope] = []
        self._bytes = 0
        self._end_lsn = end_lsn

    def add(self, envelope: Envelope) -> bool:
        """Take one envelope; true when the batch is full and must be cut."""
        self._envelopes.append(envelope)
        self._bytes += len(envelope.body)
        return len(self._envelopes) >= self._max_events or self._bytes >= self._max_bytes

    def widen(self, max_events: int) -> None:
        """Let a batch hold so many from now on."""
        self._max_events = max_events

    def cut(self, end_lsn: Lsn) -> Batch | None:
        """The batch so far; None if it holds no envelope and ``end_lsn`` was given to an earlier one.

        ``end_lsn``: every envelope of the transactions before it has been added, to this batch or another.
        """
        if not self._envelopes and end_lsn <= self._end_lsn:
            return None
        batch = Batch(self._envelopes, end_lsn)
        self._envelopes, self._bytes, self._end_lsn = [], 0, end_lsn
        return batch
