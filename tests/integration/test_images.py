"""The images under deploy/, as far as they can be built and started without Docker: their own commands."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pgevents.demo.postgres import Postgres
from pgevents.demo.postgres_binaries import Binaries

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
POSTGRES_IMAGE = ROOT / "deploy" / "postgres"

ALLOWED = "pgoutput,test_decoding,wal2json"

# The minor versions of August 2026, which brought output_plugin_libraries (CVE-2026-6471).
FIRST_MINOR = {14: 24, 15: 19, 16: 15, 17: 11, 18: 6}


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Each instruction of a Dockerfile with its arguments, continued lines joined."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines()) if word]


def copied(dockerfile: Path) -> list[str]:
    """What a Dockerfile copies from its build context."""
    copies = (shlex.split(rest) for word, rest in instructions(dockerfile) if word == "COPY")
    return [source for sources in copies if not sources[0].startswith("--from") for source in sources[:-1]]


def test_what_the_dockerfiles_copy_exists_and_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    ours = copied(DOCKERFILE)

    assert "*" in ignored
    assert set(ours) == sent
    assert all((ROOT / name).exists() for name in ours)
    assert all((POSTGRES_IMAGE.parent / name).is_file() for name in copied(POSTGRES_IMAGE / "Dockerfile"))


def test_the_image_runs_as_a_numbered_user_that_is_not_root() -> None:
    words = [word for word, _ in instructions(DOCKERFILE)]
    users = [rest for word, rest in instructions(DOCKERFILE) if word == "USER"]

    assert users == ["10001:10001"]
    assert words.count("FROM") == 2
    assert words.index("USER") > len(words) - words[::-1].index("FROM") - 1


def copy_into(folder: Path, path: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(path, folder)


def test_the_images_build_steps_install_the_checkout(tmp_path: Path) -> None:
    """The very RUN lines of deploy/Dockerfile, with the image's folders in a folder of ours."""
    source = tmp_path / "src"
    source.mkdir()
    for name in copied(DOCKERFILE):
        copy_into(source, ROOT / name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    for step in (rest for word, rest in instructions(DOCKERFILE) if word == "RUN"):
        here = re.sub(r"(?<= )/(wheels|opt)\b", rf"{tmp_path}/\1", f" {step}")
        subprocess.run(["sh", "-ec", here], cwd=source, env=os.environ | {"PATH": path}, check=True)

    installed = tmp_path / "opt" / "pgevents" / "bin" / "pgevents"
    (tmp_path / "pgevents.toml").write_text('sink = "null:"\n[[filter]]\nwhen = "new.total > 100"\n')
    subprocess.run([installed, "config", "check"], cwd=tmp_path, check=True)
    version = subprocess.run([installed, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True)
    schema = subprocess.run([installed, "schema"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert version.stdout.startswith("pgevents ")
    assert json.loads(schema.stdout)["$schema"]


def server_arguments(binaries: Binaries, folder: Path, *command: str) -> list[str]:
    """What the official image's entry point gets from ours on a server of that version."""
    official = folder / "docker-entrypoint.sh"
    official.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    official.chmod(0o755)
    path = os.pathsep.join([str(binaries.folder), str(folder), os.environ["PATH"]])
    answer = subprocess.run(
        [POSTGRES_IMAGE / "allow-wal2json", *command],
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout.splitlines()


def image_command() -> list[str]:
    command = dict(instructions(POSTGRES_IMAGE / "Dockerfile"))["CMD"]
    words: list[str] = json.loads(command)
    return words


@pytest.fixture(params=["postgres15", "postgres18"])
def server(request: pytest.FixtureRequest) -> Postgres:
    found: Postgres = request.getfixturevalue(request.param)
    return found


def test_wal2json_is_allowed_exactly_where_the_server_knows_the_setting(server: Postgres, tmp_path: Path) -> None:
    major, minor = server.version
    setting = ["-c", f"output_plugin_libraries={ALLOWED}"] if minor >= FIRST_MINOR[major] else []

    arguments = server_arguments(server.binaries, tmp_path, *image_command())

    assert arguments == [*image_command(), *setting]


def test_the_server_takes_the_arguments_it_is_started_with(server: Postgres, tmp_path: Path) -> None:
    arguments = server_arguments(server.binaries, tmp_path, *image_command())

    program = str(server.binaries.folder / arguments[0])
    question = [program, "-C", "wal_level", "-D", str(server.folder / "data"), *arguments[1:]]
    answer = subprocess.run(question, capture_output=True, text=True, check=False)

    assert (answer.stdout, answer.returncode) == ("logical\n", 0), answer.stderr


def test_options_alone_are_taken_for_the_server(server: Postgres, tmp_path: Path) -> None:
    whole = server_arguments(server.binaries, tmp_path, "postgres", "-c", "work_mem=8MB")

    assert server_arguments(server.binaries, tmp_path, "-c", "work_mem=8MB") == whole[1:]


def test_a_shell_in_the_image_is_left_alone(server: Postgres, tmp_path: Path) -> None:
    assert server_arguments(server.binaries, tmp_path, "bash", "-l") == ["bash", "-l"]
