"""PostgreSQL's own client, which writes down what the plug-in prints and does nothing else: what could be had."""

import re
import subprocess
import time
from pathlib import Path

from bench.backlog import Backlog, confirmed_flush
from bench.fault import WrongRun
from bench.servers import Servers

LONGEST_RUN_S = 300.0

_STARTED = re.compile(r'START_REPLICATION SLOT "([^"]+)" LOGICAL 0/0 \((.*)\)')
_OPTION = re.compile(r'"([^"]+)" \'([^\']*)\'')


def options_of(log: Path, slot: str) -> dict[str, str]:
    """The plug-in options of the last stream that read ``slot``, from the server's log.

    The last, because a stream that asks for an option the plug-in does not know asks again without.
    """
    found = [options for name, options in _STARTED.findall(log.read_text()) if name == slot]
    if not found:
        raise WrongRun(f"the log of PostgreSQL does not say how slot {slot} was read")
    return dict(_OPTION.findall(found[-1]))


def replay(servers: Servers, backlog: Backlog, slot: str, options: dict[str, str]) -> float:
    """Have it receive the backlog into /dev/null, and give the seconds it took."""
    program = servers.postgres.binaries.folder / "pg_recvlogical"
    command = [str(program), "--dbname", servers.dsn, "--slot", slot, "--start", "--no-loop"]
    command += ["--file", "/dev/null", "--fsync-interval", "0", "--endpos", str(backlog.until)]
    for name, value in options.items():
        command += ["--option", f"{name}={value}"]
    began = time.perf_counter()
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST_RUN_S)
    seconds = time.perf_counter() - began
    if answer.returncode != 0 or confirmed_flush(servers.database, slot) < backlog.until:
        raise WrongRun(f"pg_recvlogical ended with {answer.returncode}: {answer.stderr}")
    return seconds
