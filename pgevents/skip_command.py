"""``pgevents skip``: windows, by which transactions are skipped that nobody marked, added while a stream runs."""

import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pgevents import log
from pgevents.errors import ConfigError
from pgevents.flags import AS_JSON, Commands, takes
from pgevents.lsn import NOWHERE, Lsn
from pgevents.rule import SkipRule
from pgevents.rule_table import LONGEST_NAME, timestamp
from pgevents.rules import FIRST_XID, MAX_XID, parse_rules
from pgevents.settings import Settings
from pgevents.terminal import as_text, say, settings_of
from pgevents.window import ACTIONS, TABLE, Window

if TYPE_CHECKING:
    from pgevents.window import Windows

MAX_REASON = 1000


@click.group(cls=Commands)
def skip() -> None:
    """Skip transactions that nobody marked. A running stream takes it up within 2 seconds."""


@skip.command("add", epilog="\b\nExample:\n  pgevents skip add --xid 812 --reason 'prices with VAT, 50 million rows'")
@takes("dsn", "slot", "state")
@click.option("--xid", metavar="XID", help="This transaction; for a day, because xids come round again.")
@click.option("--lsn", metavar="LSN[..LSN]", help="Transactions whose commit LSN is in this range, ends included.")
@click.option("--since", metavar="TIME", help="Transactions committed from then on, such as 2026-11-20T18:00Z.")
@click.option("--until", metavar="TIME", help="Transactions committed before then.")
@click.option("--reason", metavar="TEXT", required=True, help="Why, for whoever looks for the changes.")
@click.option(
    "--action", type=click.Choice([each.value for each in ACTIONS]), default="drop", help="What to do. Default: drop"
)
@click.option(
    "--by", metavar="NAME", help="Who adds it, for its records. Default: the account that runs this, and where."
)
def add_window(
    config: str | None, dsn: str | None, slot: str | None, state: str | None, by: str | None, **rule: Any
) -> None:
    """Add a window, and print its name. Give one of --xid, --lsn, or --since and --until, either or both."""
    wanted = replace(_rule(**rule), by=_by(by))
    settings = settings_of(config, {"dsn": dsn, "slot": slot, "state": state})
    windows = _open(settings)
    before = windows.windows()
    window = windows.add(wanted)
    say(f"Added to {windows}; {_who_takes_it_up(settings)} takes it up within 2 seconds.")
    if not _may_have_watermark(settings.state):
        say("No watermark is beside it. Does the stream run with this --config, --slot and --state?")
    for note in _notes(window, before):
        say(f"note: {note}")
    click.echo(window.rule.name)


@skip.command("list", epilog="\b\nExample:\n  pgevents skip list --json")
@takes("dsn", "slot", "state")
@AS_JSON
def list_windows(config: str | None, *, as_json: bool, **flags: Any) -> None:
    """List the windows: name, action, what is skipped, when and by whom it was added, and why."""
    place = _open(settings_of(config, flags))
    windows, now = place.windows(), datetime.now(UTC)
    if as_json:
        click.echo(as_text([window.as_dict() | _over(window, now) for window in windows]))
        return
    for window in windows:
        click.echo(log.one_line(_line(window, now)))
    say(f"{len(windows)} {'window is' if len(windows) == 1 else 'windows are'} in {place}")


@skip.command("remove", epilog="\b\nExample:\n  pgevents skip remove window-3f2a")
@click.argument("name", metavar="NAME")
@takes("dsn", "slot", "state")
def remove_window(config: str | None, name: str, **flags: Any) -> None:
    """Remove a window. What was skipped stays skipped."""
    windows = _open(settings_of(config, flags))
    windows.remove(name)
    say(f"Removed {name} from {windows}")


def _open(settings: Settings) -> "Windows":
    from pgevents.session import open_windows

    return open_windows(settings)


def _who_takes_it_up(settings: Settings) -> str:
    if settings.skips == TABLE:
        return f"every stream of slot {settings.slot} that keeps its watermark there"
    return "a stream with the same configuration"


def _may_have_watermark(state: str) -> bool:
    return state in ("postgres", "none") or Path(state.removeprefix("file:")).exists()


def _line(window: Window, now: datetime) -> str:
    rule, over = window.rule, ", over since then" if window.is_over(now) else ""
    until = f" until {rule.until}" if rule.xid is not None else ""
    added = f"added {window.added_at} by {window.added_by}"
    return f"{rule.name}  {rule.action}  {_test(rule)}{until}{over}  {added}  {rule.reason}"


def _over(window: Window, now: datetime) -> dict[str, bool]:
    return {"over": True} if window.is_over(now) else {}


def _test(rule: SkipRule) -> str:
    """What a window asks of a transaction. How long an xid is skipped is no part of that."""
    if rule.xid is not None:
        return f"xid {rule.xid}"
    if rule.last != NOWHERE:
        return f"lsn {rule.first}..{rule.last}"
    return " ".join(f"{name} {time}" for name, time in (("since", rule.since), ("until", rule.until)) if time)


def _notes(window: Window, before: Iterable[Window]) -> list[str]:
    """What is hardly meant so, and still may be: a window that another one outdoes, or that is over."""
    now, test = datetime.now(UTC), _test(window.rule)
    notes = [
        f"{each.rule.name} ({each.rule.action}) is for {test} already, and decides: of several windows the first"
        for each in before
        if _test(each.rule) == test and not each.is_over(now)
    ]
    if window.rule.until and window.rule.until <= timestamp(now):
        notes.append("it is over already, and matches only what was committed before and is still to be read")
    return notes


def _by(name: str | None) -> str:
    """Empty for whoever runs this."""
    if name is None:
        return ""
    if not (0 < len(name) <= LONGEST_NAME and name.isprintable()):
        raise ConfigError(
            f"--by must be printable text of 1 to {LONGEST_NAME} characters",
            hint="Without it the account is named that runs this.",
        )
    return name


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
    if any("\ud800" <= character <= "\udfff" for character in reason):
        raise ConfigError("--reason is not text in UTF-8", hint="Is the locale of the terminal one of UTF-8?")
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
    if first == NOWHERE:
        raise ConfigError(
            f"--lsn {text} begins where no WAL is",
            hint="Begin at 0/1."
            if last
            else "Write an LSN such as 16/B374D848. An event has its commit LSN in tx.lsn.",
        )
    if first > last:
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
