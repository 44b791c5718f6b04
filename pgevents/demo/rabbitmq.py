"""A private RabbitMQ node with an epmd of its own, for the demo and for tests."""

import base64
import json
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from pgevents.demo.certificate import Certificate
from pgevents.demo.process import LaunchError, ServerProcess, eventually, free_ports, tail
from pgevents.demo.rabbitmq_settings import PORTS, NodeSettings

START_DEADLINE_S = 90.0
STOP_DEADLINE_S = 30.0
PORT_ATTEMPTS = 3
DEBIAN_SCRIPTS = Path("/usr/lib/rabbitmq/bin")

_PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
_NAMES_REQUEST = b"\x00\x01n"


def rabbitmq_scripts() -> Path | None:
    """The folder of rabbitmq-server and rabbitmqctl that run under any user, or None without RabbitMQ."""
    if (DEBIAN_SCRIPTS / "rabbitmq-server").exists():
        # What Debian puts on the PATH insists on root or rabbitmq.
        return (DEBIAN_SCRIPTS / "rabbitmq-server").resolve().parent
    on_path = shutil.which("rabbitmq-server")
    return Path(on_path).resolve().parent if on_path else None


class RabbitMQ:
    """A node in ``folder``, on free ports of 127.0.0.1. ``start`` it, or use it in a ``with`` statement.

    ``plugins`` are enabled from the first start; ``api`` needs rabbitmq_management among them.
    ``schedulers`` is how many processors the Erlang machine uses. With a ``certificate`` it also speaks TLS.
    """

    def __init__(
        self,
        folder: Path,
        *,
        plugins: Sequence[str] = (),
        schedulers: int = 1,
        certificate: Certificate | None = None,
    ) -> None:
        scripts = rabbitmq_scripts()
        if scripts is None:
            raise LaunchError(
                "there is no RabbitMQ server on this machine",
                hint="On Debian or Ubuntu: apt-get install rabbitmq-server",
            )
        self.settings = NodeSettings(folder.resolve(), tuple(plugins), schedulers, certificate=certificate)
        self._scripts = scripts
        self._epmd: ServerProcess | None = None
        self._node: ServerProcess | None = None

    @property
    def folder(self) -> Path:
        return self.settings.folder

    @property
    def port(self) -> int:
        return self.settings.ports["amqp"]

    @property
    def log_path(self) -> Path:
        return self.folder / "log" / f"{self.settings.nodename}.log"

    @property
    def pids(self) -> list[int]:
        """The node and its epmd, as far as they run."""
        return [server.pid for server in (self._node, self._epmd) if server]

    def url(self, vhost: str = "/", query: str = "") -> str:
        """An AMQP URL of the administrator, as in ``url("/", "exchange=pgevents")``."""
        login = f"{self.settings.user}:{self.settings.password}"
        address = f"amqp://{login}@127.0.0.1:{self.port}/{quote(vhost, safe='')}"
        return f"{address}?{query}" if query else address

    def tls_url(self, vhost: str = "/", query: str = "") -> str:
        """The same over TLS."""
        plain, secure = (f"127.0.0.1:{self.settings.ports[name]}/" for name in ("amqp", "amqps"))
        return self.url(vhost, query).replace("amqp://", "amqps://", 1).replace(plain, secure, 1)

    def start(self) -> Self:
        """Boot the node; returns once AMQP clients are greeted."""
        if self.settings.ports:
            self._boot()
        else:
            self._boot_on_free_ports()
        return self

    def stop(self) -> None:
        """End the node and its epmd; what was confirmed is on disk. Does nothing when they do not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the node at once, as a crash would."""
        self._end()

    def renew(self, certificate: Certificate) -> None:
        """Show this one to those who connect from now on."""
        certificate.write(self.folder)
        self.ctl("eval", "ssl:clear_pem_cache().")

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            # Ctrl-C while it starts, most likely.
            self.kill()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def ctl(self, *arguments: str) -> str:
        """What ``rabbitmqctl`` prints for this node. Takes about a second: it boots a machine of its own."""
        command = [str(self._scripts / "rabbitmqctl"), "--quiet", *arguments]
        answer = subprocess.run(
            command, env=self.settings.environment(), cwd=self.folder, capture_output=True, text=True, check=False
        )
        if answer.returncode != 0:
            raise LaunchError(f"rabbitmqctl {' '.join(arguments)} failed: {answer.stderr or answer.stdout}")
        return answer.stdout

    def api(self, method: str, path: str, body: object = None) -> Any:
        """One request to the management API, as in ``api("PUT", "/api/vhosts/shop")``; what it answers, or None."""
        token = base64.b64encode(f"{self.settings.user}:{self.settings.password}".encode()).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.settings.ports['management']}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Basic {token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - our own node
            answer = response.read()
        return json.loads(answer) if answer else None

    def _boot_on_free_ports(self) -> None:
        # The node says in a dozen ways that a port is taken, epmd in none: any early end is worth another try.
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self.settings.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
            try:
                return self._boot()
            except LaunchError:
                self.settings.ports = {}
                if attempt == PORT_ATTEMPTS:
                    raise
        return None

    def _boot(self) -> None:
        self.settings.write()
        try:
            self._start_epmd()
            self._start_node()
        except LaunchError:
            self.kill()
            raise

    def _start_epmd(self) -> None:
        epmd = self._launch(_epmd(), "-port", str(self.settings.ports["epmd"]), "-address", "127.0.0.1")
        self._epmd = epmd
        ready = eventually(lambda: not epmd.is_running or self._epmd_answers(), deadline_s=START_DEADLINE_S)
        if not ready or not epmd.is_running:
            raise LaunchError(f"Erlang's epmd did not start; the end of its log:\n{epmd.log_tail()}")

    def _start_node(self) -> None:
        node = self._launch(str(self._scripts / "rabbitmq-server"), on_our_death=signal.SIGTERM)
        self._node = node
        ready = eventually(lambda: not node.is_running or self._greets(), deadline_s=START_DEADLINE_S)
        if not ready or not node.is_running:
            logs = f"{node.log_tail()}\n{tail(self.log_path)}"
            raise LaunchError(f"RabbitMQ did not start; the end of its logs:\n{logs}")

    def _launch(self, *command: str, on_our_death: signal.Signals = signal.SIGKILL) -> ServerProcess:
        return ServerProcess.start(
            command,
            log_path=self.folder / "log" / f"{Path(command[0]).name}.console.log",
            env=self.settings.environment(),
            cwd=self.folder,
            on_our_death=on_our_death,
        )

    def _epmd_answers(self) -> bool:
        """Whether the port mapper answers a NAMES request, which starts with its own port."""
        port = self.settings.ports["epmd"]
        return _exchange(port, _NAMES_REQUEST).startswith(port.to_bytes(4, "big"))

    def _greets(self) -> bool:
        """Whether a client that says AMQP 0-9-1 is answered with connection.start, by this very node.

        The answer names the cluster, which is called like its first node unless told otherwise.
        """
        own_name = self.settings.nodename.partition("@")[0].encode()
        return own_name in _exchange(self.port, _PROTOCOL_HEADER)

    def _end(self, *signals: signal.Signals) -> None:
        node, epmd, self._node, self._epmd = self._node, self._epmd, None, None
        if node is not None:
            node.end(*signals, deadline_s=STOP_DEADLINE_S)
        if epmd is not None:
            epmd.end(deadline_s=STOP_DEADLINE_S)


def _exchange(port: int, request: bytes) -> bytes:
    """The first bytes of the answer on a port of this machine; none where nobody answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(request)
            return client.recv(4096)
    except OSError:
        return b""


def _epmd() -> str:
    epmd = shutil.which("epmd")
    if epmd is None:
        raise LaunchError("RabbitMQ is here but Erlang's epmd is not on the PATH")
    return epmd
