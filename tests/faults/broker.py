"""An AMQP 0-9-1 broker in this process that does as it is told, wrong things above all. pika encodes and decodes.

It keeps what it was offered, what it made durable and what it confirmed, each in order. Each connection takes the
next turn of the schedule; when that is used up, all goes well.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pika import frame, spec

from tests.faults.schedule import HEALTHY, HOLD, End, Grouping, Refusal, Settle, Turn, Verdict

TICK_S = 0.01
HEARTBEAT_S = 10
_FRAME_OVERHEAD = 8
_SETTLE_NEXT = Settle()

_CLOSED_CHANNEL = {
    End.EXCHANGE_GONE: (404, "NOT_FOUND - no exchange 'pgevents' in vhost '/'"),
    End.TOO_LARGE: (406, "PRECONDITION_FAILED - message size {size} is larger than configured max size {most}"),
    End.PRECONDITION: (406, "PRECONDITION_FAILED - unknown delivery tag 1"),
    End.NO_PERMISSION: (403, "ACCESS_REFUSED - write access to exchange 'pgevents' in vhost '/' refused"),
    End.NO_CONSUMERS: (313, "NO_CONSUMERS"),
}
_CLOSED_CONNECTION = {
    End.SHUTDOWN: (320, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"),
    End.INTERNAL_ERROR: (541, "INTERNAL_ERROR"),
}
_REFUSED_CHANNEL = {
    Refusal.NO_EXCHANGE: (404, "NOT_FOUND - no exchange 'pgevents' in vhost '/'"),
    Refusal.OTHER_EXCHANGE_TYPE: (406, "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'pgevents'"),
    Refusal.NO_PERMISSION: (403, "ACCESS_REFUSED - configure access to exchange 'pgevents' refused"),
}


class Message(NamedTuple):
    """A message as it was published."""

    id: str
    key: str
    body: bytes
    properties: spec.BasicProperties


@dataclass(slots=True, eq=False)
class Unconfirmed:
    """A published message that waits for its confirm."""

    tag: int
    message: Message
    verdict: Verdict
    owes_return: bool

    @property
    def is_refused(self) -> bool:
        return self.verdict in (Verdict.NACK, Verdict.STORE_AND_NACK)

    @property
    def is_stored(self) -> bool:
        return self.verdict in (Verdict.STORE, Verdict.STORE_AND_NACK)


@dataclass(slots=True)
class Broker:
    """What is the same for all connections. ``note`` is called whenever something happened."""

    turns: Sequence[Turn] = ()
    note: Callable[[], object] = lambda: None
    offered: list[Message] = field(default_factory=list)
    durable: list[Message] = field(default_factory=list)
    delivered: set[str] = field(default_factory=set)
    """Ids stored and confirmed in one."""
    returned: set[str] = field(default_factory=set)
    """Ids returned and confirmed."""
    sessions: "list[Session]" = field(default_factory=list)
    dialled: int = 0

    @property
    def send_buffer_bytes(self) -> int:
        """Of the connection that was asked for last."""
        return self._turn(self.dialled - 1).send_buffer_bytes

    def dial(self) -> "Callable[[], asyncio.Protocol] | None":
        """The next connection; None where it is never answered. Raises OSError to refuse it."""
        turn = self._turn(self.dialled)
        self.dialled += 1
        if turn.refusal is Refusal.REFUSED:
            raise ConnectionRefusedError(111, "Connection refused")
        return None if turn.refusal is Refusal.UNREACHABLE else lambda: Session(self, turn)

    def _turn(self, number: int) -> Turn:
        return self.turns[number] if number < len(self.turns) else HEALTHY


class Session(asyncio.Protocol):
    """One connection, and the one channel on it."""

    def __init__(self, broker: Broker, turn: Turn) -> None:
        self._broker, self._turn = broker, turn
        self._loop = asyncio.get_running_loop()
        self._inbox = b""
        self._outbox: deque[tuple[bytes, Callable[[], object]]] = deque()
        self._left_in, self._left_out = turn.cut_in, turn.cut_out
        self._is_publishing = False
        self._is_draining = False
        self._is_deaf = False
        self._publish: spec.Basic.Publish | None = None
        self._header: frame.Header | None = None
        self._body = b""
        self._published = 0
        self._verdicts = iter(turn.verdicts)
        self._settles = iter(turn.settles)
        self._unconfirmed: list[Unconfirmed] = []
        self._confirms = False
        self._ticking: asyncio.TimerHandle | None = None
        self._timers: list[asyncio.TimerHandle] = []
        broker.sessions.append(self)

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        self._is_deaf = True
        for timer in (*self._timers, self._ticking):
            if timer:
                timer.cancel()
        self._broker.sessions.remove(self)

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        if self._left_in is not None and self._is_publishing:
            data, self._left_in = data[: self._left_in], self._left_in - len(data)
        self._inbox += data
        inbox, taken = self._inbox, 0
        while not self._is_deaf:
            size, decoded = frame.decode_frame(inbox[taken:])
            if not decoded:
                break
            taken += size
            self._take(decoded)
        self._inbox = inbox[taken:]
        if self._left_in is not None and self._left_in <= 0:
            self.cut()

    def cut(self) -> None:
        """End without a word; what was not written yet never is."""
        self._is_deaf = True
        self._outbox.clear()
        self._transport.abort()

    def _send(self, method: Any, *, channel: int = 0, sent: Callable[[], object] = lambda: None) -> None:
        self._write(frame.Method(channel, method).marshal(), sent)

    def _write(self, frames: bytes, sent: Callable[[], object] = lambda: None) -> None:
        self._outbox.append((frames, sent))
        if not self._is_draining:
            self._drain()

    def _drain(self) -> None:
        """Write a piece now and the next one later; tell who asked when the last byte of a frame has left."""
        self._is_draining = False
        room = self._turn.piece
        while self._outbox and room and not self._is_deaf:
            frames, sent = self._outbox.popleft()
            part, rest = frames[:room], frames[room:]
            room -= len(part)
            if not self._let_out(part):
                return
            if rest:
                self._outbox.appendleft((rest, sent))
            else:
                sent()
        if self._outbox and not self._is_deaf:
            self._is_draining = True
            self._loop.call_soon(self._drain)

    def _let_out(self, part: bytes) -> bool:
        if self._left_out is not None and self._is_publishing:
            if len(part) > self._left_out:
                self._transport.write(part[: self._left_out])
                self._is_deaf = True
                self._outbox.clear()
                self._transport.close()
                return False
            self._left_out -= len(part)
        self._transport.write(part)
        return True

    def _leave(self) -> None:
        """End when everything written has left."""
        self._is_deaf = True
        while self._outbox:
            frames, sent = self._outbox.popleft()
            self._transport.write(frames)
            sent()
        self._transport.close()

    def _beat(self) -> None:
        self._write(frame.Heartbeat().marshal())
        self._later(HEARTBEAT_S / 2, self._beat)

    def _later(self, delay_s: float, callback: Callable[[], object]) -> None:
        self._timers.append(self._loop.call_later(delay_s, callback))

    # The handshake

    def _take(self, decoded: Any) -> None:
        match decoded:
            case frame.ProtocolHeader():
                self._greet()
            case frame.Method(method=method, channel_number=channel):
                self._obey(method, channel)
            case frame.Header():
                self._header = decoded
                self._arrive_if_whole()
            case frame.Body(fragment=fragment):
                self._body += fragment
                self._arrive_if_whole()

    def _greet(self) -> None:
        match self._turn.refusal:
            case Refusal.DROP_AT_HEADER:
                self.cut()
            case Refusal.OTHER_PROTOCOL:
                self._write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                self._leave()
            case _:
                capabilities = {
                    "publisher_confirms": True,
                    "basic.nack": True,
                    "connection.blocked": True,
                    "authentication_failure_close": True,
                }
                self._send(spec.Connection.Start(server_properties={"capabilities": capabilities}))

    def _obey(self, method: Any, channel: int) -> None:
        match method:
            case spec.Basic.Publish():
                self._publish, self._body = method, b""
            case spec.Connection.StartOk():
                self._welcome()
            case spec.Connection.TuneOk():
                self._later(HEARTBEAT_S / 2, self._beat)
            case spec.Connection.Open():
                self._open()
            case spec.Channel.Open():
                self._open_channel(channel)
            case spec.Exchange.Declare():
                self._declare(channel)
            case spec.Confirm.Select():
                self._select(channel)
            case _:
                self._part(method, channel)

    def _part(self, method: Any, channel: int) -> None:
        match method:
            case spec.Channel.Close():
                self._send(spec.Channel.CloseOk(), channel=channel)
            case spec.Connection.Close():
                self._send(spec.Connection.CloseOk())
                self._leave()
            case spec.Connection.CloseOk():
                self._leave()

    def _welcome(self) -> None:
        if self._turn.refusal is Refusal.WRONG_PASSWORD:
            self._close_connection(403, "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.")
        else:
            self._send(spec.Connection.Tune(channel_max=2047, frame_max=self._turn.frame_max, heartbeat=HEARTBEAT_S))

    def _open(self) -> None:
        match self._turn.refusal:
            case Refusal.SILENT_AT_OPEN:
                self._hang()
            case Refusal.DROP_AT_OPEN:
                self.cut()
            case Refusal.NO_VHOST:
                self._close_connection(530, "NOT_ALLOWED - vhost / not found")
            case Refusal.CONNECTION_LIMIT:
                self._close_connection(
                    530, "NOT_ALLOWED - access to vhost '/' refused: connection limit (1) is reached"
                )
            case _:
                self._send(spec.Connection.OpenOk())

    def _open_channel(self, channel: int) -> None:
        match self._turn.refusal:
            case Refusal.SILENT_AT_CHANNEL:
                pass
            case Refusal.CHANNEL_LIMIT:
                self._close_connection(530, "NOT_ALLOWED - number of channels opened (1) has reached the maximum")
            case _:
                self._send(spec.Channel.OpenOk(), channel=channel)

    def _declare(self, channel: int) -> None:
        refusal = self._turn.refusal
        if refusal is Refusal.DROP_AT_DECLARE:
            self.cut()
        elif refusal in _REFUSED_CHANNEL:
            self._close_channel(channel, *_REFUSED_CHANNEL[refusal])
        else:
            self._send(spec.Exchange.DeclareOk(), channel=channel)

    def _select(self, channel: int) -> None:
        if self._turn.refusal is Refusal.DROP_AT_CONFIRM:
            self.cut()
        else:
            self._confirms = True
            self._send(spec.Confirm.SelectOk(), channel=channel)
            self._is_publishing = True

    def _close_channel(self, channel: int, code: int, text: str) -> None:
        self._forget()
        self._send(spec.Channel.Close(code, text, 60, 40), channel=channel)

    def _close_connection(self, code: int, text: str) -> None:
        self._forget()
        self._send(spec.Connection.Close(code, text, 0, 0))

    def _forget(self) -> None:
        """From a close on nothing published is looked at, and nothing confirmed."""
        self._unconfirmed.clear()
        self._confirms = False

    def _hang(self) -> None:
        self._is_deaf = True
        for timer in self._timers:
            timer.cancel()

    # Publishing

    def _arrive_if_whole(self) -> None:
        if self._publish and self._header and len(self._body) >= self._header.body_size:
            published, properties = self._publish, self._header.properties
            message = Message(properties.message_id, published.routing_key, self._body, properties)
            self._publish = self._header = None
            if self._confirms:
                self._arrive(message)

    def _arrive(self, message: Message) -> None:
        broker, turn = self._broker, self._turn
        broker.offered.append(message)
        broker.note()
        self._published += 1
        is_last = turn.end is not End.NEVER and self._published > turn.end_after
        if is_last and turn.end is not End.WITHHOLD:
            self._end(message)
            return
        self._judge(message, next(self._verdicts, Verdict.STORE))
        if turn.block and self._published == turn.block.after + 1:
            self._block(turn.block.seconds)
        if not is_last:
            self._settle_next()

    def _judge(self, message: Message, verdict: Verdict) -> None:
        waiting = Unconfirmed(self._published, message, verdict, owes_return=verdict is Verdict.RETURN_LATE)
        if waiting.is_stored:
            self._broker.durable.append(message)
        if verdict is Verdict.RETURN:
            self._return(message)
        self._unconfirmed.append(waiting)
        if not self._ticking and not self._withholds:
            self._ticking = self._loop.call_later(TICK_S, self._tick)

    @property
    def _withholds(self) -> bool:
        return self._turn.end is End.WITHHOLD and self._published > self._turn.end_after

    def _end(self, message: Message) -> None:
        end = self._turn.end
        if end in (End.DROP_UNCONFIRMED, End.DROP_CONFIRMED):
            self._judge(message, Verdict.STORE)
        if end is End.DROP_CONFIRMED:
            self._settle_rest()
            self._leave()
        elif end in _CLOSED_CHANNEL:
            code, text = _CLOSED_CHANNEL[end]
            size = len(message.body)
            self._close_channel(1, code, text.format(size=size, most=size - 1))
        elif end in _CLOSED_CONNECTION:
            self._close_connection(*_CLOSED_CONNECTION[end])
        elif end is End.SILENT:
            self._hang()
        else:
            self.cut()

    def _block(self, seconds: float) -> None:
        self._send(spec.Connection.Blocked("low on memory"))
        self._transport.pause_reading()
        self._later(seconds, self._unblock)

    def _unblock(self) -> None:
        if not self._is_deaf:
            self._send(spec.Connection.Unblocked())
            self._transport.resume_reading()

    # Confirms

    def _tick(self) -> None:
        """Time has passed: the next confirm of the schedule, or after them all the rest."""
        self._ticking = None
        if self._is_deaf or self._withholds or not self._unconfirmed:
            return
        settle = next(self._settles, None)
        if settle is None:
            self._settle_rest()
        else:
            self._settle(settle)
            self._ticking = self._loop.call_later(TICK_S, self._tick)

    def _settle_next(self) -> None:
        """Something was published: the next confirm of the schedule, if there is one."""
        self._settle(next(self._settles, HOLD))

    def _settle_rest(self) -> None:
        while self._unconfirmed:
            self._settle(_SETTLE_NEXT)

    def _settle(self, settle: Settle) -> None:
        """Confirm what ``settle`` picks. What a multiple would cover and not mean is confirmed alone before."""
        if settle.grouping is Grouping.HOLD or not self._unconfirmed:
            return
        last = settle.pick % len(self._unconfirmed)
        match settle.grouping:
            case Grouping.SINGLE:
                covered = [self._unconfirmed[last]]
            case Grouping.MULTIPLE:
                covered = self._unconfirmed[: last + 1]
            case _:
                covered = list(self._unconfirmed)
        tag = 0 if settle.grouping is Grouping.ALL else covered[-1].tag
        refused = covered[-1].is_refused
        for other in [each for each in covered if each.is_refused is not refused]:
            self._confirm([other], other.tag, multiple=False)
        alike = [each for each in covered if each.is_refused is refused]
        self._confirm(alike, tag, multiple=settle.grouping is not Grouping.SINGLE)

    def _confirm(self, covered: Sequence[Unconfirmed], tag: int, *, multiple: bool) -> None:
        self._return_up_to(covered[-1].tag)
        gone = {each.tag for each in covered}
        self._unconfirmed = [each for each in self._unconfirmed if each.tag not in gone]
        if covered[-1].is_refused:
            self._send(spec.Basic.Nack(tag, multiple, False), channel=1)
        else:
            self._send(spec.Basic.Ack(tag, multiple), channel=1, sent=lambda: self._count(covered))

    def _return_up_to(self, tag: int) -> None:
        """RabbitMQ routes in order: no message is confirmed before an earlier one is returned."""
        for each in self._unconfirmed:
            if each.owes_return and each.tag <= tag:
                each.owes_return = False
                self._return(each.message)

    def _count(self, confirmed: Iterable[Unconfirmed]) -> None:
        for each in confirmed:
            (self._broker.delivered if each.is_stored else self._broker.returned).add(each.message.id)
        self._broker.note()

    def _return(self, message: Message) -> None:
        size = self._turn.frame_max - _FRAME_OVERHEAD
        bodies = [message.body[at : at + size] for at in range(0, len(message.body), size)]
        frames = [
            frame.Method(1, spec.Basic.Return(312, "NO_ROUTE", "pgevents", message.key)),
            frame.Header(1, len(message.body), message.properties),
            *(frame.Body(1, body) for body in bodies),
        ]
        self._write(b"".join(each.marshal() for each in frames))
