"""Nobody can connect to a stream: it opens connections, and listens for none."""

import os
import socket
from pathlib import Path

from pgevents.demo.process import descendants
from tests.contract.amqp import bind
from tests.integration.command import Command, Shop

LISTEN = "0A"


def listening(pid: int) -> list[str]:
    """The addresses, in the kernel's hexadecimal, at which a process takes connections."""
    mine = {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()}
    rows = [line.split() for name in ("tcp", "tcp6") for line in socket_table(pid, name)]
    return [row[1] for row in rows if row[3] == LISTEN and f"socket:[{row[9]}]" in mine]


def socket_table(pid: int, name: str) -> list[str]:
    path = Path(f"/proc/{pid}/net/{name}")
    return path.read_text().splitlines()[1:] if path.exists() else []


def test_what_listens_is_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        assert f"0100007F:{port:04X}" in listening(os.getpid())


def test_a_running_stream_listens_on_no_port(database15: str, vhost: str, tmp_path: Path) -> None:
    shop = Shop(database15)
    bind(vhost, "all")

    with Command(tmp_path, "stream", *shop.options, "--sink", vhost) as stream:
        stream.ready()

        assert [address for pid in (stream.pid, *descendants(stream.pid)) for address in listening(pid)] == []
