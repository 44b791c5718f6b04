"""The proxy's modes, on live connections and new ones."""

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

import pytest

from chaos.proxy import BLACK_HOLE, PASS, REFUSE, Direction, Proxy, bandwidth, cut_after, half_open, latency
from pgevents.demo.process import eventually

LONG_S = 10.0
# Long enough on loopback to say that nothing comes.
SHORT_S = 0.2


class Line(NamedTuple):
    """A listener, the proxy in front of it, and one connection through both."""

    listener: socket.socket
    proxy: Proxy
    client: socket.socket
    server: socket.socket

    def dial(self) -> tuple[socket.socket, socket.socket]:
        client = socket.create_connection(("127.0.0.1", self.proxy.port), timeout=LONG_S)
        server, _ = self.listener.accept()
        server.settimeout(LONG_S)
        return client, server


@pytest.fixture
def line() -> Iterator[Line]:
    with socket.create_server(("127.0.0.1", 0)) as listener, Proxy(listener.getsockname()[1]) as proxy:
        listener.settimeout(LONG_S)
        client, server = Line(listener, proxy, listener, listener).dial()
        with client, server:
            yield Line(listener, proxy, client, server)


def received(end: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer if the connection ends before."""
    got = b""
    while len(got) < size and (part := end.recv(size - len(got))):
        got += part
    return got


def is_silent(end: socket.socket) -> bool:
    end.settimeout(SHORT_S)
    try:
        end.recv(1)
    except TimeoutError:
        return True
    finally:
        end.settimeout(LONG_S)
    return False


def test_bytes_pass_both_ways_and_so_does_the_end(line: Line) -> None:
    line.client.sendall(b"question")
    assert received(line.server, 8) == b"question"
    line.server.sendall(b"answer")
    line.server.shutdown(socket.SHUT_WR)

    assert received(line.client, 100) == b"answer"
    line.client.sendall(b"thanks")
    line.client.close()
    assert received(line.server, 100) == b"thanks"
    line.server.close()
    assert eventually(lambda: line.proxy.connections == 0, deadline_s=LONG_S)


def test_a_reset_ends_every_connection_with_an_rst_and_new_ones_pass(line: Line) -> None:
    line.proxy.reset()

    for end in (line.client, line.server):
        with pytest.raises(ConnectionResetError):
            end.recv(1)
    client, server = line.dial()
    with client, server:
        client.sendall(b"x")
        assert received(server, 1) == b"x"


def test_refusing_leaves_live_connections_alone_and_takes_no_new_ones(line: Line) -> None:
    line.proxy.switch(REFUSE)

    with pytest.raises(ConnectionRefusedError):
        line.dial()
    line.client.sendall(b"x")
    assert received(line.server, 1) == b"x"


def test_a_cut_link_is_mended_on_the_same_port(line: Line) -> None:
    port = line.proxy.port
    for _ in range(3):
        line.proxy.cut()
        with pytest.raises(ConnectionRefusedError):
            line.dial()
        line.proxy.mend()
        client, server = line.dial()
        with client, server:
            client.sendall(b"x")
            assert received(server, 1) == b"x"

    with pytest.raises(ConnectionResetError):
        line.client.recv(1)
    assert line.proxy.port == port


def test_a_black_hole_swallows_bytes_and_ends_until_it_is_mended(line: Line) -> None:
    line.proxy.switch(BLACK_HOLE)
    line.client.sendall(b"question")
    line.server.sendall(b"answer")
    line.server.shutdown(socket.SHUT_WR)

    assert is_silent(line.client)
    assert is_silent(line.server)
    line.proxy.mend()
    assert received(line.server, 8) == b"question"
    assert received(line.client, 100) == b"answer"


def test_a_black_hole_hides_that_the_server_has_gone(line: Line) -> None:
    line.proxy.switch(BLACK_HOLE)
    line.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    line.server.close()

    assert is_silent(line.client)
    line.proxy.mend()
    with pytest.raises(ConnectionResetError):
        line.client.recv(1)


def test_a_black_hole_takes_new_connections(line: Line) -> None:
    line.proxy.switch(BLACK_HOLE)

    client, server = line.dial()

    with client, server:
        client.sendall(b"x")
        assert is_silent(server)


@pytest.mark.parametrize("deaf", list(Direction))
def test_a_half_open_link_is_deaf_in_one_direction_only(line: Line, deaf: Direction) -> None:
    line.proxy.switch(half_open(deaf))
    line.client.sendall(b"up")
    line.server.sendall(b"down")

    held, heard = (line.server, line.client) if deaf is Direction.TO_SERVER else (line.client, line.server)
    assert received(heard, 2) == (b"do" if heard is line.client else b"up")
    assert is_silent(held)
    line.proxy.mend()
    assert received(held, 2) == (b"do" if held is line.client else b"up")


def test_latency_delays_each_direction(line: Line) -> None:
    line.proxy.switch(latency(0.15))
    began = time.monotonic()

    line.client.sendall(b"x")
    line.server.sendall(received(line.server, 1))
    received(line.client, 1)

    assert time.monotonic() - began >= 0.3


def test_what_a_mode_has_delayed_goes_on_at_once_when_it_is_changed(line: Line) -> None:
    line.proxy.switch(latency(60))
    line.client.sendall(b"x")
    assert is_silent(line.server)

    line.proxy.mend()

    assert received(line.server, 1) == b"x"


def test_bandwidth_limits_the_rate_and_loses_nothing(line: Line) -> None:
    line.proxy.switch(bandwidth(40_000))
    began = time.monotonic()

    line.client.sendall(b"x" * 20_000)

    assert len(received(line.server, 20_000)) == 20_000
    assert 0.4 <= time.monotonic() - began < 5


def test_a_link_is_cut_after_so_many_bytes_in_one_direction_and_passes_again(line: Line) -> None:
    line.proxy.switch(cut_after(5, Direction.TO_CLIENT))
    line.client.sendall(b"any number of bytes in the other one")
    assert received(line.server, 36)

    line.server.sendall(b"1234567890")

    assert received(line.client, 5) == b"12345"
    with pytest.raises(ConnectionResetError):
        line.client.recv(1)
    assert line.proxy.mode is PASS
    client, server = line.dial()
    with client, server:
        server.sendall(b"1234567890")
        assert received(client, 10) == b"1234567890"


def test_a_client_is_reset_where_nobody_listens_behind_the_proxy() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]

    with (
        Proxy(port) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), timeout=LONG_S) as client,
        pytest.raises(ConnectionResetError),
    ):
        client.recv(1)
