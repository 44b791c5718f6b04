"""Having Debian's or Ubuntu's package manager install a server, without the package starting a service."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

POLICY = Path("/usr/sbin/policy-rc.d")
# invoke-rc.d asks this script; 101 means that the action is forbidden.
FORBID_SERVICES = "#!/bin/sh\nexit 101\n"


def install_packages(packages: Sequence[str], *, say: Callable[[str], object]) -> str:
    """Install with apt-get; empty when all went well, else a plain sentence about why not."""
    command = f"apt-get install {' '.join(packages)}"
    if shutil.which("apt-get") is None:
        return "this is no Debian or Ubuntu, so it has to be installed by hand."
    if not packages:
        return "the package manager offers no such package."
    if os.geteuid() != 0:
        return f"only root may install it: sudo {command}"
    say(f"Installing {' and '.join(packages)} with apt-get, without starting a service.")
    with services_forbidden():
        answer = _install(packages)
    return "" if answer.returncode == 0 else f"{command} failed: {_last_line(answer.stderr)}"


def newest_wal2json_packages() -> list[str]:
    """The newest PostgreSQL that the package manager has wal2json for, and that wal2json; may be empty."""
    if shutil.which("apt-cache") is None:
        return []
    names = _offered_wal2json()
    if not names and os.geteuid() == 0:
        _apt_get("update")
        names = _offered_wal2json()
    if not names:
        return []
    major = max(int(name) for name in names)
    return [f"postgresql-{major}", f"postgresql-{major}-wal2json"]


def _offered_wal2json() -> list[str]:
    command = ["apt-cache", "search", "--names-only", "^postgresql-[0-9]+-wal2json$"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return re.findall(r"^postgresql-(\d+)-wal2json", answer.stdout, re.MULTILINE)


def _install(packages: Sequence[str]) -> subprocess.CompletedProcess[str]:
    answer = _apt_get("install", "-y", "--no-install-recommends", *packages)
    if answer.returncode == 0:
        return answer
    # A fresh machine has no package lists, an old one has lists of packages that are gone.
    _apt_get("update")
    return _apt_get("install", "-y", "--no-install-recommends", *packages)


def _apt_get(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=120", *arguments],
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@contextmanager
def services_forbidden(policy: Path = POLICY) -> Iterator[None]:
    """Packages start no service inside; the policy that was there before is put back afterwards."""
    saved = policy.with_name(policy.name + ".before-pgevents")
    # A saved one that is still there is the true one: an earlier run was killed before it put it back.
    if policy.exists() and not saved.exists():
        policy.rename(saved)
    try:
        policy.write_text(FORBID_SERVICES)
        policy.chmod(0o755)
        yield
    finally:
        policy.unlink(missing_ok=True)
        if saved.exists():
            saved.rename(policy)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it did not say why."
