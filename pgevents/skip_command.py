"""``pgevents skip``: windows, by which transactions are skipped that nobody marked, added while a stream runs."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from pgevents import log
from pgevents.errors import ConfigError
from pgevents.flags import AS_JSON, Commands, takes
from pgevents.lsn import NOWHERE, Lsn
from pgevents.rule import SkipRule
from pgevents.rule_table import timestamp
from pgevents.rules import FIRST_XID, MAX_XID, parse_rules
from pgevents.terminal import as_text, resolution_of, say
from pgevents.window import ACTIONS, Window, WindowFile, path_of

MAX_REASON = 1000


@click.group(cls=Commands)
def skip() -> None:
    """Skip transactions that nobody marked. A running stream takes it up within 2 seconds."""


@skip.command("add", epilog="\b\nExample:\n  pgevents skip add --xid 812 --reason 'prices with VAT, 50 million rows'")
@takes("slot", "state")
@click.option("--xid", metavar="XID", help="This transaction; for a day, because xids come round again.")
@click.option("--lsn", metavar="LSN[..LSN]", help="Transactions whose commit LSN is in this range, ends included.")
@click.option("--since", metavar="TIME", help="Transactions committed from then on, such as 2026-11-20T18:00Z.")
@click.option("--until", metavar="TIME", help="Transactions committed before then.")
@click.option("--reason", metavar="TEXT", required=True, help="Why, for whoever looks for the changes.")
@click.option(
    "--action", type=click.Choice([each.value for each in ACTIONS]), default="drop", help="What to do. Default: drop"
)
def add_window(config: str | None, slot: str | None, state: str | None, **rule: Any) -> None:
    """Add a window, and print its name. Give one of --xid, --lsn, or --since and --until, either or both."""
    wanted = _rule(**rule)
    resolution = resolution_of(config, {"slot": slot, "state": state})
    file = WindowFile(path_of(resolution.settings, resolution.file))
    window = file.add(wanted)
    say(f"Added to {file.path}; a stream with the same configuration takes it up within 2 seconds.")
    if not _may_have_watermark(resolution.settings.state):
        say("No watermark is beside it. Does the stream run with this --config, --slot and --state?")
    click.echo(window.rule.name)


@skip.command("list", epilog="\b\nExample:\n  pgevents skip list --json")
@takes("slot", "state")
@AS_JSON
def list_windows(config: str | None, *, as_json: bool, **flags: Any) -> None:
    """List the windows: name, action, what is skipped, when and by whom it was added, and why."""
    file = _file(config, **flags)
    windows = file.windows()
    if as_json:
        click.echo(as_text([window.as_dict() for window in windows]))
        return
    for window in windows:
        click.echo(log.one_line(_line(window)))
    say(f"{len(windows)} windows are in {file.path}" if file.path.exists() else f"There is no file {file.path}")


@skip.command("remove", epilog="\b\nExample:\n  pgevents skip remove window-3f2a")
@click.argument("name", metavar="NAME")
@takes("slot", "state")
def remove_window(config: str | None, name: str, **flags: Any) -> None:
    """Remove a window. What was skipped stays skipped."""
    file = _file(config, **flags)
    file.remove(name)
    say(f"Removed {name} from {file.path}")


def _file(config: str | None, **flags: Any) -> WindowFile:
    resolution = resolution_of(config, flags)
    return WindowFile(path_of(resolution.settings, resolution.file))


def _may_have_watermark(state: str) -> bool:
    return state in ("postgres", "none") or Path(state.removeprefix("file:")).exists()


def _line(window: Window) -> str:
    rule = window.rule
    tests = {
        "xid": "" if rule.xid is None else str(rule.xid),
        "lsn": "" if rule.last == NOWHERE else f"{rule.first}..{rule.last}",
        "since": rule.since,
        "until": rule.until,
    }
    test = " ".join(f"{name} {value}" for name, value in tests.items() if value)
    return f"{rule.name}  {rule.action}  {test}  added {window.added_at} by {window.added_by}  {rule.reason}"


def _rule(
    *, xid: str | None, lsn: str | None, since: str | None, until: str | None, reason: str, action: str
) -> SkipRule:
    """The rule that the flags describe, still without a name. Raises ConfigError."""
    if sum((xid is not None, lsn is not None, (since, until) != (None, None))) != 1:
        raise ConfigError(
            "a window is for an xid, for LSNs or for a time",
            hint="Give one of --xid, --lsn, or --since and --until.",
        )
    if not reason.strip() or len(reason) > MAX_REASON:
        raise ConfigError("--reason is empty or too long", hint=f"It must be of 1 to {MAX_REASON} characters.")
    test = {
        "xid": None if xid is None else _xid(xid),
        "lsn": None if lsn is None else _lsns(lsn),
        "since": None if since is None else _time("--since", since),
        "until": None if until is None else _time("--until", until),
    }
    if test["since"] and test["until"] and str(test["since"]) >= str(test["until"]):
        raise ConfigError(f"--since {test['since']} is not before --until {test['until']}", hint="Exchange them.")
    given = {key: value for key, value in {**test, "action": action, "reason": reason}.items() if value}
    (rule,) = parse_rules({"skip": [given]}, "skip add").skip
    return rule


def _xid(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise ConfigError(f"--xid {text!r} is not a number", hint="An event has it in tx.xid.")
    epochs, xid = divmod(int(text), MAX_XID + 1)
    if epochs:
        raise ConfigError(
            f"--xid {text} does not fit into 32 bits",
            hint=f"pg_current_xact_id() and txid_current() also count epochs. Without them it is {xid}.",
        )
    if xid < FIRST_XID:
        raise ConfigError(f"--xid {text} is no transaction", hint=f"Xids are from {FIRST_XID} to {MAX_XID}.")
    return xid


def _lsns(text: str) -> str:
    try:
        first, last = map(Lsn.parse, text.split("..") if ".." in text else (text, text))
    except ValueError as error:
        raise ConfigError(
            f"--lsn {text!r} is neither an LSN nor a range of them",
            hint="Write 16/B374D848, or 16/B374D848..16/B3800000. An event has its commit LSN in tx.lsn.",
        ) from error
    if not NOWHERE < first <= last:
        raise ConfigError(f"--lsn {text} holds no commit", hint="Write the lower LSN first.")
    return text


def _time(flag: str, text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ConfigError(
                f"{flag} {text!r} does not say in which time zone", hint="Add Z for UTC, or an offset such as +02:00."
            )
        return timestamp(moment)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{flag} {text!r} is not a time", hint="Write 2026-11-20T18:00:00Z.") from error
