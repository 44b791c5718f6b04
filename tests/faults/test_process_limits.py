"""What the operating system gives us is short: memory, open files, and a clock to rely on."""

import re
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from pgevents.demo.process import eventually
from pgevents.lsn import Lsn
from tests.faults.evidence import DEADLINE_S, SHORT_TIMEOUT, SOON, arrives, check, is_acknowledged, walsender
from tests.integration.command import KILL, Command, Shop, pgevents, stored
from tests.integration.streaming import BOTH, ask, run

TO_FILE = ("--sink", "file:events")
UNTIL_NOW = ("--until-lsn", "now")

# Puts the wall clock of a Python process forward by the seconds in the file CLOCK.
CLOCK = """
import os, time
def offset():
    with open(os.environ["CLOCK"]) as file:
        return int(file.read() or 0)
def wrap(real, unit):
    return lambda: real() + offset() * unit
time.time, time.time_ns = wrap(time.time, 1), wrap(time.time_ns, 10**9)
"""


def ends_or_complains(command: Command) -> None:
    """Wait until it has ended, or says that it tries again; then it is killed."""
    told = eventually(lambda: command.has_ended or "trying again" in command.stderr, deadline_s=DEADLINE_S)
    assert told, command.stderr
    command.send(KILL)


@pytest.mark.fault("F08", "I14", "I18")
@pytest.mark.parametrize("plugin", BOTH)
def test_a_row_that_memory_has_no_room_for_is_not_passed(database15: str, plugin: str, tmp_path: Path) -> None:
    """A library may end the process where an allocation fails; then there is no line, and the signal says it."""
    shop = Shop(database15, plugin=plugin)
    run(shop.dsn, "INSERT INTO orders VALUES (1, 'small'), (2, repeat('x', 50000000))")
    arguments = ("stream", *shop.options, *TO_FILE, *SOON)

    with Command(tmp_path, *arguments, prefix=("prlimit", f"--as={220 * 2**20}")) as short:
        ends_or_complains(short)
        ended = short.ended()
    held = shop.confirmed
    again = pgevents(tmp_path, *arguments, *UNTIL_NOW)

    assert ended.code == -signal.SIGSEGV or re.search("^error: |trying again", ended.stderr, re.MULTILINE)
    assert "xxxx" not in ended.stderr
    assert again.code == 0, again.stderr
    events = stored(tmp_path / "events")
    check(events, [1, 2])
    assert held <= Lsn.parse(events[0]["tx"]["lsn"])


@pytest.mark.fault("F09")
def test_few_open_files_are_enough(database15: str, tmp_path: Path) -> None:
    shop = Shop(database15)
    with Command(tmp_path, "stream", *shop.options, *TO_FILE, prefix=("prlimit", "--nofile=64")) as stream:
        stream.ready()
        shop.add(*range(100))
        arrives(stream, tmp_path / "events", range(100))
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr


@pytest.mark.fault("F09", "I14")
@pytest.mark.parametrize("most", [7, 8, 9])
def test_too_few_open_files_are_an_error_and_no_crash(database15: str, tmp_path: Path, most: int) -> None:
    """For the sink, for the connections, for the watermark."""
    shop = Shop(database15)
    shop.add(1)
    arguments = ("stream", *shop.options, *TO_FILE, *SOON)

    with Command(tmp_path, *arguments, prefix=("prlimit", f"--nofile={most}")) as short:
        ends_or_complains(short)
        said = short.ended().stderr
    again = pgevents(tmp_path, *arguments, *UNTIL_NOW)

    assert re.search("Too many open files|trying again", said), said
    assert "Traceback" not in said
    assert again.code == 0, again.stderr
    check(stored(tmp_path / "events"), [1])


def many_files(count: int) -> Sequence[str]:
    """A prefix that leaves so many files open in the program it runs."""
    script = f'ulimit -n {count * 2}; n=3; while [ $n -lt {count} ]; do eval "exec $n</dev/null"; n=$((n+1)); done'
    return ("bash", "-c", f'{script}; exec "$@"', "bash")


@pytest.mark.fault("F09")
@pytest.mark.parametrize("plugin", BOTH)
def test_a_descriptor_beyond_what_select_takes_does_no_harm(database15: str, plugin: str, tmp_path: Path) -> None:
    shop = Shop(database15, plugin=plugin)
    with Command(tmp_path, "stream", *shop.options, *TO_FILE, prefix=many_files(1100)) as stream:
        stream.ready()
        descriptors = [int(each.name) for each in Path(f"/proc/{stream.pid}/fd").iterdir()]
        shop.add(1)
        arrives(stream, tmp_path / "events", [1])
        ended = stream.stopped()
    again = pgevents(tmp_path, "stream", *shop.options, "--sink", "stdout:", *UNTIL_NOW)

    assert max(descriptors) > 1024
    assert ended.code == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "warning" not in ended.stderr
    assert again.events == []


def told_ahead_s(shop: Shop) -> float:
    """By how much the clock in our last status update is ahead of the server's."""
    question = "SELECT extract(epoch FROM reply_time - now())::float FROM pg_stat_replication WHERE pid = "
    return float(ask(shop.dsn, question + str(walsender(shop))))


@pytest.mark.fault("F10", "I14")
def test_a_wall_clock_that_is_set_does_no_harm(database15: str, tmp_path: Path) -> None:
    """An hour on, and two back, while it is idle and under load, each for longer than wal_sender_timeout."""
    shop, clock = Shop(database15), tmp_path / "clock"
    clock.write_text("0")
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "sitecustomize.py").write_text(CLOCK)
    env = {"PYTHONPATH": f"{Path(__file__).parents[2]}:{tmp_path / 'python'}", "CLOCK": str(clock)}
    options = shop.with_dsn(options=SHORT_TIMEOUT)
    with Command(tmp_path, "stream", *options, *TO_FILE, env=env) as stream:
        stream.ready()
        before = walsender(shop)
        for row, offset_s in enumerate((3600, -3600, 0)):
            clock.write_text(str(offset_s))
            assert not eventually(lambda: walsender(shop) != before, deadline_s=1.2)
            shop.add(row)
            assert is_acknowledged(shop, shop.lsn)
            assert abs(told_ahead_s(shop) - offset_s) < 60
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert not re.search("warning|error", ended.stderr)
    check(stored(tmp_path / "events"), range(3))
