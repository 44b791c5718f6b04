"""The files and the environment that keep a RabbitMQ node inside one folder and on ports of its own."""

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from pgevents.demo.certificate import Certificate

MANAGEMENT = "rabbitmq_management"
PORTS = ("amqp", "amqps", "dist", "epmd", "management", "stream", "prometheus")

_CONFIG = """\
listeners.tcp.1 = 127.0.0.1:{amqp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management}
stream.listeners.tcp.1 = 127.0.0.1:{stream}
prometheus.tcp.ip = 127.0.0.1
prometheus.tcp.port = {prometheus}
default_user = {user}
default_pass = {password}
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 50MB
log.console = false
log.file.level = info
"""
_TLS_CONFIG = """\
listeners.ssl.1 = 127.0.0.1:{amqps}
ssl_options.certfile = {folder}/server.crt
ssl_options.keyfile = {folder}/server.key
"""
_CLIENT_CONFIG = """\
ssl_options.cacertfile = {folder}/client_ca.crt
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
"""
_PLUGIN_KEYS = {
    MANAGEMENT: "management.",
    "rabbitmq_stream": "stream.",
    "rabbitmq_prometheus": "prometheus.",
}


@dataclass(slots=True)
class NodeSettings:
    """What a private node needs to know; ``ports`` are filled in when they are found."""

    folder: Path
    plugins: tuple[str, ...]
    schedulers: int
    user: str = "pgevents"
    password: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    ports: dict[str, int] = field(default_factory=dict)
    certificate: Certificate | None = None

    @property
    def nodename(self) -> str:
        return f"pgevents{self.ports['dist']}@localhost"

    def write(self) -> None:
        """Make the folders and write the configuration for the present ports."""
        for name in ("home", "log", "mnesia"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        text = _CONFIG + self._tls_config()
        text = text.format(user=self.user, password=self.password, folder=self.folder, **self.ports)
        # The server refuses keys of plug-ins that are not enabled.
        absent = tuple(key for plugin, key in _PLUGIN_KEYS.items() if plugin not in self.plugins)
        lines = [line for line in text.splitlines() if not line.startswith(absent)]
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "enabled_plugins").write_text(f"[{','.join(self.plugins)}].\n")

    def _tls_config(self) -> str:
        if self.certificate is None:
            return ""
        self.certificate.write(self.folder)
        return _TLS_CONFIG + (_CLIENT_CONFIG if self.certificate.client_ca else "")

    def environment(self) -> dict[str, str]:
        """All the variables a process of this node gets; nothing else of ours, least of all RABBITMQ_*."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
        return kept | self._addresses() | self._paths() | self._erlang()

    def _addresses(self) -> dict[str, str]:
        return {
            "RABBITMQ_NODENAME": self.nodename,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.ports["amqp"]),
            "RABBITMQ_DIST_PORT": str(self.ports["dist"]),
            "ERL_EPMD_PORT": str(self.ports["epmd"]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def _paths(self) -> dict[str, str]:
        return {
            "HOME": str(self.folder / "home"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "node.pid"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
        }

    def _erlang(self) -> dict[str, str]:
        schedulers = f"+S {self.schedulers}:{self.schedulers} +sbwt none"
        return {
            # Has the script become the Erlang machine instead of waiting beside it: one process, one pid.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (f"{schedulers} -kernel inet_dist_use_interface {{127,0,0,1}}"),
        }
