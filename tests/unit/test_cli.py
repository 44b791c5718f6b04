import errno
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import click
import pytest

from pgevents import cli
from pgevents.settings import OPTIONS

Run = Callable[..., subprocess.CompletedProcess[str]]

MODULES_HELP_DOES_WITHOUT = ("psycopg2", "pika", "orjson", "rich", "tenacity", "pgevents.app")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the command as a shell does, in an empty folder and a bare environment."""

    def pgevents(
        *arguments: str, stdout: int | IO[bytes] = subprocess.PIPE, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        bare = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(cli.__file__).parents[1])}
        return subprocess.run(
            [sys.executable, "-m", "pgevents", *arguments],
            cwd=tmp_path,
            env=bare | environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )

    return pgevents


def leaves(command: click.Command, *path: str) -> list[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        return [(path, command)]
    return [leaf for name, inner in command.commands.items() for leaf in leaves(inner, *path, name)]


COMMANDS = [(path, command) for path, command in leaves(cli.commands) if path != ("demo",)]


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(path) for path, _ in COMMANDS])
def test_every_command_has_help_with_an_example_of_itself(
    path: tuple[str, ...], command: click.Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*path, "--help"]) == 0

    assert f"pgevents {' '.join(path)}" in capsys.readouterr().out.partition("Example:")[2]


@pytest.mark.parametrize("path", [["stream"], ["config", "show"]])
def test_every_option_of_the_table_is_a_flag_of(path: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([*path, "--help"])
    text = capsys.readouterr().out

    assert [option.flag for option in OPTIONS if f"  {option.flag} " not in text] == []


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from pgevents.cli import main; main(['--help']); "
        f"print([name for name in {MODULES_HELP_DOES_WITHOUT!r} if name in sys.modules], file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)

    assert "demo" in done.stdout
    assert done.stderr == "[]\n"


def test_the_version_names_what_faults_are_most_often_about(run: Run) -> None:
    done = run("--version")

    assert done.stdout.startswith("pgevents ")
    assert all(f"{name} " in done.stdout for name in ("Python", "psycopg2", "pika"))


@pytest.mark.parametrize(
    ("arguments", "near"), [(["steam"], "stream"), (["slot", "statsu"], "status"), (["confg"], "config")]
)
def test_an_unknown_command_names_the_nearest(run: Run, arguments: list[str], near: str) -> None:
    done = run(*arguments)

    assert done.returncode == 2
    assert f"Error: No such command {arguments[-1]!r}. Did you mean {near}?" in done.stderr


def test_a_command_like_none_is_answered_with_all_of_them(run: Run) -> None:
    assert "Commands are create, drop, status." in run("slot", "zzz").stderr


def test_an_unknown_flag_names_the_nearest(run: Run) -> None:
    done = run("stream", "--windw", "3")

    assert done.returncode == 2
    assert "No such option '--windw'" in done.stderr.replace(": --windw", " '--windw'")
    assert "--window" in done.stderr


PRINTING = (
    ["config", "show"],
    ["config", "check"],
    ["skip", "list", "--json"],
    ["schema"],
    ["--help"],
    ["--version"],
)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_what_standard_output_does_not_take_is_an_error_in_one_line(
    run: Run, arguments: list[str], unbuffered: str
) -> None:
    with Path("/dev/full").open("wb") as full:
        done = run(*arguments, stdout=full, PYTHONUNBUFFERED=unbuffered)

    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: cannot write to standard output: No space left on device",
        "hint: Send it to where there is room for it, such as another file.",
    ]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_reader_that_has_ended_ends_a_command_and_nothing_is_said_of_it(
    run: Run, arguments: list[str], unbuffered: str
) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with open(theirs, "wb") as pipe:  # noqa: PTH123 - a descriptor
        done = run(*arguments, stdout=pipe, PYTHONUNBUFFERED=unbuffered)

    assert (done.returncode, done.stderr) == (1, "")


def test_a_full_device_is_also_named_where_the_encoding_would_not_do(run: Run) -> None:
    with Path("/dev/full").open("wb") as full:
        done = run("schema", stdout=full, PYTHONIOENCODING="ascii")

    assert (done.returncode, done.stderr.count("\n")) == (1, 2)


def test_an_error_is_one_line_and_a_hint_on_standard_error(run: Run) -> None:
    done = run("stream", "--sink", "null:", PGEVENTS_WINDOW="0")

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: window = '0' (environment PGEVENTS_WINDOW) is not allowed",
        "hint: It must be a whole number from 1 to 10000.",
    ]


def test_an_error_with_a_line_break_stays_on_its_line(run: Run) -> None:
    done = run("config", "show", PGEVENTS_SLOT="a\nhint: send money")

    assert done.stderr.splitlines()[0] == (
        "error: slot = 'a\\nhint: send money' (environment PGEVENTS_SLOT) is not allowed"
    )


def test_a_server_that_cannot_be_reached_is_an_error_like_any_other(run: Run, tmp_path: Path) -> None:
    done = run("slot", "status", "--dsn", f"host={tmp_path} password=hunter2")

    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_streaming_needs_a_sink(run: Run) -> None:
    done = run("stream")

    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: no sink is given")


@pytest.mark.parametrize("text", ["3", "0/G", "yesterday", "1/2/3"])
def test_the_lsn_to_stop_at_is_checked_at_once(run: Run, text: str) -> None:
    done = run("stream", "--sink", "null:", "--until-lsn", text)

    assert done.returncode == 2
    assert f"{text!r} is not an LSN such as 16/B374D848, nor the word now" in done.stderr


@pytest.mark.parametrize("arguments", [["--queue", "q"], ["--bind", "public.#"], ["--sink", "stdout:"]])
def test_tailing_a_queue_needs_a_broker(run: Run, arguments: list[str]) -> None:
    done = run("tail", *arguments)

    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: no broker is given to tail a queue of")


def test_dropping_a_slot_without_a_terminal_needs_yes(run: Run) -> None:
    done = run("slot", "drop", "--slot", "shop")

    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: dropping slot shop must be confirmed, and standard input is not a terminal",
        "hint: Add --yes.",
    ]


@pytest.mark.parametrize(("typed", "goes_on"), [("shop", True), ("shoo", False)])
def test_dropping_a_slot_at_a_terminal_needs_its_name_typed(tmp_path: Path, typed: str, goes_on: bool) -> None:
    arguments = ("slot", "drop", "--slot", "shop", "--dsn", f"host={tmp_path}")

    code, shown = at_a_terminal(*arguments, typed=typed)

    assert "Type the slot's name to drop it" in shown
    # There is no server: going on is seen by the error of the connection.
    assert ("another name was typed" not in shown) is goes_on
    assert code == (1 if goes_on else 2)


@pytest.mark.parametrize(("no_color", "is_coloured"), [("", True), ("1", False)])
def test_errors_are_coloured_at_a_terminal_unless_told_not_to(no_color: str, is_coloured: bool) -> None:
    _, shown = at_a_terminal("stream", NO_COLOR=no_color)

    assert "no sink is given" in shown
    assert ("\033[" in shown) is is_coloured


@contextmanager
def terminal(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command on a pseudo-terminal, and our end of that."""
    ours, theirs = pty.openpty()
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-m", "pgevents", *arguments],
        env=bare | environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def at_a_terminal(*arguments: str, typed: str = "", **environment: str) -> tuple[int, str]:
    """Exit code and what was shown on a terminal where one line is typed."""
    with terminal(*arguments, **environment) as (process, ours):
        os.write(ours, f"{typed}\n".encode())
        shown = "".join(shown_on(ours))
        return process.wait(60), shown


def shown_on(ours: int) -> Iterator[str]:
    """What is written to a pseudo-terminal; Linux answers EIO once the other end is closed."""
    while True:
        try:
            yield os.read(ours, 4096).decode(errors="replace")
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return


def test_the_configuration_is_shown_with_its_origins_and_no_secret(run: Run) -> None:
    done = run("config", "show", "--json", "--dsn", "host=h password=hunter2", PGSLOT="shop", PGPASSWORD="hunter2")

    shown = json.loads(done.stdout)
    assert shown["options"]["slot"] == {"value": "shop", "origin": "environment PGSLOT"}
    assert shown["options"]["dsn"] == {"value": "host=h password=***", "origin": "flag --dsn"}
    assert shown["libpq"] == {"PGPASSWORD": "***"}
    assert shown["file"] is None


def test_the_configuration_as_text_has_a_line_an_option(run: Run, tmp_path: Path) -> None:
    (tmp_path / "pgevents.toml").write_text('tables = ["a.b", "c.*"]\ncreate_slot = true')

    lines = [line.split() for line in run("config", "show", PGHOST="db").stdout.splitlines()]

    assert ["tables", "a.b,c.*", "pgevents.toml"] in lines
    assert ["create_slot", "true", "pgevents.toml"] in lines
    assert ["sink", "-", "default"] in lines
    assert lines[-1] == ["PGHOST", "db", "environment,", "read", "by", "libpq"]
    assert len(lines) == len(OPTIONS) + 1


def test_the_schema_is_printed_as_it_is_packaged(run: Run) -> None:
    packaged = Path(cli.__file__).with_name("event.schema.json").read_text("utf-8")

    assert run("schema").stdout == packaged


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for(run: Run, shell: str) -> None:
    done = run("completion", shell)

    assert done.returncode == 0
    assert f"_PGEVENTS_COMPLETE={shell}_complete" in done.stdout


def test_completion_completes_a_flag(run: Run) -> None:
    done = run(_PGEVENTS_COMPLETE="bash_complete", COMP_WORDS="pgevents stream --on-un", COMP_CWORD="2")

    assert "--on-unroutable" in done.stdout


def test_an_interrupted_command_exits_as_a_shell_expects() -> None:
    with terminal("slot", "drop", "--slot", "shop") as (process, ours):
        shown = ""
        for text in shown_on(ours):
            shown += text
            if "drop it:" in shown:
                break

        assert interrupted(process) == 130
        assert "Traceback" not in "".join(shown_on(ours))


def interrupted(process: subprocess.Popen[bytes]) -> int:
    """The exit code after Ctrl-C, pressed again where it came a moment before input() waits and was not noticed."""
    for _ in range(30):
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            return process.wait(2)
    raise AssertionError("Ctrl-C was ignored for a minute")
