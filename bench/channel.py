"""A channel in confirm mode on a bare socket: the AMQP handshake and nothing else."""

import socket
from typing import Any

from pika import frame, spec

from pgevents.sink.amqp.url import AmqpUrl

CHANNEL = 1
# What RabbitMQ proposes by default, and so what the stream has.
FRAME_MAX = 131_072
TIMEOUT_S = 30.0


def open_channel(url: AmqpUrl) -> socket.socket:
    """Log in, open one channel and switch confirms on."""
    address = url.addresses[0]
    connection = socket.create_connection((address.host, address.port), timeout=TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(frame.ProtocolHeader().marshal())
    _expect(connection, spec.Connection.Start)
    login = f"\0{url.user}\0{url.password}"
    _send(connection, 0, spec.Connection.StartOk({}, "PLAIN", login, "en_US"))
    _expect(connection, spec.Connection.Tune)
    _send(connection, 0, spec.Connection.TuneOk(channel_max=1, frame_max=FRAME_MAX, heartbeat=0))
    _send(connection, 0, spec.Connection.Open(url.vhost))
    _expect(connection, spec.Connection.OpenOk)
    _send(connection, CHANNEL, spec.Channel.Open())
    _expect(connection, spec.Channel.OpenOk)
    _send(connection, CHANNEL, spec.Confirm.Select())
    _expect(connection, spec.Confirm.SelectOk)
    return connection


def _send(connection: socket.socket, channel: int, method: Any) -> None:
    connection.sendall(frame.Method(channel, method).marshal())


def _expect(connection: socket.socket, kind: type) -> None:
    """Read the one frame the broker owes us now. Raises ConnectionError when it is another, or none."""
    received = b""
    while True:
        size, answer = frame.decode_frame(received)
        if size:
            break
        part = connection.recv(4096)
        if not part:
            raise ConnectionError(f"the broker hung up instead of {kind.__name__}")
        received += part
    if not isinstance(getattr(answer, "method", None), kind):
        raise ConnectionError(f"the broker answered {answer} instead of {kind.__name__}")
