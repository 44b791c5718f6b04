"""Our machine: the folders that a stream writes to, and their room."""

import ipaddress
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from pgevents.doctor.finding import Finding, fatal, ok, warning
from pgevents.settings import Settings

SMALL_BYTES = 100 * 2**20


def is_loopback(host: str) -> bool:
    """Whether the name or address is surely this machine's own."""
    with suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def check_state_file(settings: Settings) -> Iterator[Finding]:
    """Where the watermark is kept; a table is looked at with the database."""
    match settings.state:
        case "postgres":
            return
        case "none":
            yield warning(
                "watermark file",
                "--state none",
                "changes that are lost between two runs go unnoticed",
                fix="Name a file, or postgres for a table.",
            )
        case path:
            yield from _writable("watermark file", Path(path.removeprefix("file:")), option="--state")


def check_park_file(settings: Settings) -> Iterator[Finding]:
    if "park" in (settings.on_unroutable, settings.on_poison):
        yield from _writable("park file", Path(settings.park_file), option="--park-file")


def check_file_sink(settings: Settings) -> Iterator[Finding]:
    if settings.sink.startswith("file:"):
        path = settings.sink.removeprefix("file:")
        if path.startswith("//"):
            path = unquote("/" + path.removeprefix("//").partition("/")[2])
        yield from _writable("file sink", Path(path), option="--sink")


def check_temporary_folder(settings: Settings) -> Iterator[Finding]:
    """Where transactions wait that are read while they run."""
    if not settings.streaming:
        return
    try:
        folder = Path(tempfile.gettempdir())
    except OSError:
        yield warning(
            "temporary folder",
            "--streaming",
            "there is none that can be written to: a transaction of more than 1 MiB is read at its commit",
            fix="Name one with TMPDIR.",
        )
        return
    yield _room(
        "temporary folder",
        folder,
        f"transactions may wait in {folder} for their commit",
        "what it does not hold is read at its commit",
        option="TMPDIR",
    )


def _writable(check: str, path: Path, *, option: str) -> Iterator[Finding]:
    problem = _obstacle(path)
    if problem:
        yield fatal(
            check, str(path), problem, fix=f"Make the folder and let this account write to it, or change {option}."
        )
    else:
        yield _room(check, path.parent, f"{path} can be written", "when it is full the stream stops", option=option)


def _room(check: str, folder: Path, use: str, when_full: str, *, option: str) -> Finding:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < SMALL_BYTES:
        return warning(
            check,
            str(folder),
            f"only {free_bytes / 2**20:,.0f} MiB are free; {when_full}",
            fix=f"Free some space, or change {option}.",
        )
    return ok(check, f"{use}, {free_bytes / 2**30:,.1f} GiB are free")


def _obstacle(path: Path) -> str:
    """Why a file cannot be written and replaced there; empty when it can."""
    if not path.parent.is_dir():
        return "its folder does not exist"
    if path.is_dir():
        return "it is a folder"
    try:
        # Not os.access, which sees no read-only file system as root; a file without a name leaves nothing behind.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        return f"nothing can be written to its folder: {os.strerror(error.errno or 0)}"
    if path.exists() and not os.access(path, os.W_OK):
        return "this account may not write to it"
    return ""


CHECKS = (check_state_file, check_park_file, check_file_sink, check_temporary_folder)
