"""A private PostgreSQL server with logical decoding, for the demo and for tests."""

import os
import secrets
import signal
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import psycopg2
from psycopg2.extensions import make_dsn

from pgevents.demo.account import unprivileged_account
from pgevents.demo.certificate import Certificate
from pgevents.demo.postgres_binaries import Binaries, find_binaries
from pgevents.demo.process import LaunchError, ServerProcess, eventually, free_ports, tail

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 30.0
PORT_ATTEMPTS = 5
SUPERUSER = "postgres"

StopMode = Literal["fast", "immediate"]
_STOP_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}

# The log says so in these words whatever lc_messages the environment asks for: initdb is told --locale=C.
_PORT_TAKEN = "could not create any TCP/IP sockets"

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "logical",
    "max_replication_slots": "50",
    "max_wal_senders": "50",
    "max_connections": "200",
    # Segments of 1 MB come with a max_wal_size so small that a busy test would checkpoint all the time.
    "max_wal_size": "1GB",
    "synchronous_commit": "on",
    "logging_collector": "off",
}


_TLS_SETTINGS = {"ssl": "on", "ssl_cert_file": "server.crt", "ssl_key_file": "server.key"}


class Postgres:
    """A server in ``folder``, on a free port of 127.0.0.1. ``start`` it, or use it in a ``with`` statement.

    ``auth`` is ``trust`` or ``scram-sha-256``; with the latter the superuser gets a random password, which
    ``dsn`` contains. ``fsync`` off is safe as long as the machine does not crash. ``settings`` go to postgresql.conf.
    With a ``certificate`` it also speaks TLS, to whoever asks for it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        binaries: Binaries | None = None,
        auth: str = "trust",
        fsync: bool = False,
        settings: Mapping[str, str] | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self.binaries = binaries or find_binaries()
        self.password = "" if auth == "trust" else secrets.token_urlsafe(16)
        self.port = 0
        self._auth = auth
        self._certificate = certificate
        tls = _TLS_SETTINGS if certificate else {}
        self._settings = _SETTINGS | {"fsync": "on" if fsync else "off"} | tls | dict(settings or {})
        self._account = unprivileged_account(self.binaries.postgres, folder)
        self._server: ServerProcess | None = None

    @property
    def version(self) -> tuple[int, int]:
        return self.binaries.version

    @property
    def has_wal2json(self) -> bool:
        return self.binaries.has_wal2json

    @property
    def log_path(self) -> Path:
        return self.folder / "postgres.log"

    @property
    def pid(self) -> int:
        return self._running().pid

    def dsn(self, dbname: str = "postgres", **options: str) -> str:
        """A connection string of the superuser. ``options`` are libpq's, and may name another user."""
        login = {"user": SUPERUSER} | ({"password": self.password} if self.password else {})
        return make_dsn(**{"host": "127.0.0.1", "port": str(self.port), "dbname": dbname} | login | options)

    def start(self) -> Self:
        """Make the cluster when there is none, and serve; returns once a connection was answered."""
        if not (self.folder / "data" / "postgresql.conf").exists():
            self._initdb()
        if self.port:
            self._serve()
        else:
            self._serve_on_a_free_port()
        return self

    def stop(self, mode: StopMode = "fast") -> None:
        """End the server, with ``immediate`` as if it had crashed. Does nothing when it is not running."""
        if self._server is not None:
            self._server.end(_STOP_SIGNALS[mode], signal.SIGQUIT, deadline_s=STOP_DEADLINE_S)
            self._server = None

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and serve again on the same port."""
        self.stop(mode)
        self.start()

    def renew(self, certificate: Certificate) -> None:
        """Show this one to those who connect from soon on."""
        certificate.write(self.folder / "data", account=self._account)
        os.kill(self.pid, signal.SIGHUP)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            # Ctrl-C while it starts, most likely.
            self.stop("immediate")
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop("immediate")

    def _running(self) -> ServerProcess:
        if self._server is None:
            raise LaunchError(f"the PostgreSQL server in {self.folder} is not running")
        return self._server

    def _initdb(self) -> None:
        password_file = self.folder / "password"
        password_file.touch(0o600)
        self._account.own(password_file)
        password_file.write_text(self.password + "\n")
        options = [f"--auth={self._auth}", "--username", SUPERUSER, "--encoding=UTF8", "--locale=C"]
        options += ["--no-sync", "--wal-segsize=1", *([f"--pwfile={password_file}"] if self.password else [])]
        command = [str(self.binaries.initdb), "--pgdata", str(self.folder / "data"), *options]
        answer = self._account.run(command, cwd=self.folder)
        password_file.unlink()
        if answer.returncode != 0:
            raise LaunchError(f"initdb failed: {answer.stderr.strip() or answer.stdout.strip()}")
        self._write_settings()
        if self._certificate:
            self._certificate.write(self.folder / "data", account=self._account)

    def _write_settings(self) -> None:
        # Servers older than the August 2026 minors do not know the setting and would not start with it.
        known = self._account.run([str(self.binaries.postgres), "--describe-config"], cwd=self.folder).stdout
        allowed = {}
        if self.has_wal2json and "output_plugin_libraries\t" in known:
            allowed = {"output_plugin_libraries": "pgoutput, test_decoding, wal2json"}
        with (self.folder / "data" / "postgresql.conf").open("a") as file:
            for name, value in (allowed | self._settings).items():
                quoted = value.replace("'", "''")
                file.write(f"{name} = '{quoted}'\n")

    def _serve_on_a_free_port(self) -> None:
        for attempt in range(1, PORT_ATTEMPTS + 1):
            (self.port,) = free_ports(1)
            try:
                return self._serve()
            except LaunchError:
                if attempt == PORT_ATTEMPTS or _PORT_TAKEN not in tail(self.log_path):
                    self.port = 0
                    raise
        return None

    def _serve(self) -> None:
        command = [str(self.binaries.postgres), "-D", str(self.folder / "data"), "-p", str(self.port)]
        server = ServerProcess.start(
            command,
            log_path=self.log_path,
            account=self._account,
            cwd=self.folder,
            on_our_death=signal.SIGINT,
        )
        self._server = server
        ready = eventually(lambda: not server.is_running or self._answers(), deadline_s=START_DEADLINE_S)
        if not ready or not server.is_running:
            self.stop("immediate")
            raise LaunchError(f"PostgreSQL did not start; the end of {self.log_path}:\n{server.log_tail()}")

    def _answers(self) -> bool:
        """Whether this very server answers, and not another that took the port first."""
        try:
            with closing(psycopg2.connect(self.dsn(), connect_timeout=5)) as connection:
                cursor = connection.cursor()
                cursor.execute("SHOW data_directory")
                return cursor.fetchone() == (str(self.folder / "data"),)
        except psycopg2.OperationalError:
            return False
