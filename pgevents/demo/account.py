"""PostgreSQL refuses to run as root: choosing who it runs as instead."""

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from pgevents.demo.process import OURSELVES, Account, LaunchError

NOBODY = 65534


def unprivileged_account(program: Path, folder: Path) -> Account:
    """Ourselves for an ordinary user; for root, the first account that can run ``program`` in ``folder``.

    ``folder`` is handed over where the account is another user. Raises LaunchError when none can.
    """
    if os.geteuid() != 0:
        return OURSELVES
    for account in _candidates():
        if _can_run(account, program, folder):
            account.own(folder)
            return account
    raise LaunchError(
        "PostgreSQL does not run as root, and no other account can be used here",
        hint="Run this as an ordinary user, or let users nobody or postgres read the programs and the folder.",
    )


def _candidates() -> Iterator[Account]:
    # A user namespace changes no owner of any file, but containers often forbid it.
    yield Account(prefix=("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--"))
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        yield Account(user=entry.pw_uid, group=entry.pw_gid)


def _can_run(account: Account, program: Path, folder: Path) -> bool:
    try:
        return account.run([str(program), "--version"], cwd=folder).returncode == 0
    except OSError:
        return False
