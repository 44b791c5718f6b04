"""``python -m chaos``: everything goes wrong, for as long as one likes, and then the count."""

import json
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from chaos.fault import BrokenRig, Fault
from chaos.faults import CATALOGUE
from chaos.report import Plan, Report
from chaos.rig import rigged
from chaos.run import Storm
from chaos.servers import serving
from pgevents.demo.process import private_folder
from pgevents.errors import PGEventsError


def say(text: str) -> None:
    print(text, flush=True)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: python -m chaos --seconds 1800 --seed 7",
)
@click.option("--seconds", default=60.0, show_default=True, help="How long faults are inflicted.")
@click.option("--seed", type=int, help="Which faults come when. Default: a random one, which is printed.")
@click.option("--plugin", type=click.Choice(["wal2json", "pgoutput"]), default="wal2json", show_default=True)
@click.option("--streaming", is_flag=True, help="Large transactions are read while they run; pgoutput only.")
@click.option(
    "--queue",
    type=click.Choice(["classic", "quorum"]),
    default="classic",
    show_default=True,
    help="Type of the consumer's queue.",
)
@click.option(
    "--faults",
    "names",
    default="",
    help="Only these, with commas between; 'none' for none at all. Default: all that leave the order alone.",
)
@click.option("--list", "is_list", is_flag=True, help="Show the faults there are.")
@click.option("--keep", is_flag=True, help="Keep what the servers, the stream and the consumer wrote.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write the last line to this file.")
def main(
    seconds: float,
    seed: int | None,
    plugin: str,
    queue: str,
    names: str,
    *,
    streaming: bool,
    is_list: bool,
    keep: bool,
    json_path: Path | None,
) -> None:
    """Stream a database that is written to through private servers while everything that can break does.

    Exits 1 when a change was lost, reordered, invented, or the stream ended by itself. The last line is JSON.
    """
    if is_list:
        return _list()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)
    seed = secrets.randbelow(10**6) if seed is None else seed
    plan = Plan(seconds=seconds, seed=seed, plugin=plugin, queue_type=queue, names=names, streaming=streaming)
    faults = _chosen(names)
    folder = private_folder()
    try:
        report = _perform(folder, plan, faults)
    except (BrokenRig, PGEventsError) as error:
        sys.exit(f"chaos: {error}")
    finally:
        if keep:
            say(f"What everything wrote is in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    line = json.dumps(report.document())
    say("\n".join(["", *report.lines(), line]))
    if json_path:
        json_path.write_text(line + "\n")
    sys.exit(0 if report.outcome.is_good else 1)


def _perform(folder: Path, plan: Plan, faults: Sequence[Fault]) -> Report:
    say(f"again with: {plan.command}")
    with (
        serving(folder) as servers,
        rigged(servers, plugin=plan.plugin, queue_type=plan.queue_type, seed=plan.seed, options=plan.options) as rig,
    ):
        rig.start()
        began = time.monotonic()
        storm = Storm(rig, faults, plan.seed, say)
        storm.blow(plan.seconds)
        loaded_s = time.monotonic() - began
        say(f"{loaded_s:7.1f} s  all healed; waiting until everything is delivered")
        outcome = rig.settle(by_last_copy=not all(fault.keeps_order for fault in faults))
        return Report(plan, loaded_s, storm.counts, outcome)


def _chosen(names: str) -> list[Fault]:
    known = CATALOGUE.faults
    if names == "none":
        return []
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in known:
            raise click.BadParameter(f"there is no fault {name!r}; --list shows them", param_hint="--faults")
    return [known[name] for name in chosen] or [each for each in known.values() if each.keeps_order]


def _list() -> None:
    for fault in CATALOGUE.faults.values():
        shortest, longest = fault.lasts_s
        lasting = f"{shortest:g} to {longest:g} s" if longest else ""
        say(f"{fault.number:<5} {fault.name:<22} {lasting}")


def _exit(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
