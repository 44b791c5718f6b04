"""``python -m bench``: speed, latency and memory, all in one run, on private servers."""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import click

from bench.backlog import (
    create_tables,
    record_many_tables,
    record_marked_transaction,
    record_narrow_transaction,
    record_one_transaction,
    record_small_transactions,
)
from bench.bulk import one_transaction
from bench.fault import WrongRun
from bench.filtering import filter_cost, many_rules
from bench.latency import commit_to_consumer
from bench.report import Section, machine_lines, targets_section
from bench.servers import Servers, describe, serving
from bench.skipping import marked_transaction, size_rule
from bench.throughput import against_broker, against_recvlogical
from bench.watermark import watermark_cost
from pgevents.demo.process import private_folder
from pgevents.errors import PGEventsError

_EVERY_FOURTH = 4
_TABLES = 1_000


def say(text: str) -> None:
    """Progress, for whoever waits; the report alone goes to standard output."""
    print(f"… {text}", file=sys.stderr, flush=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rows", envvar="BENCH_ROWS", default=200_000, show_default=True, help="Changes in the backlog.")
@click.option("--bulk-rows", default=1_000_000, show_default=True, help="Rows of the one big transaction.")
@click.option("--narrow-rows", default=5_000_000, show_default=True, help="Rows of the one for the size rule.")
@click.option("--seconds", default=10, show_default=True, help="Length of a latency round.")
@click.option("--rounds", default=3, show_default=True, help="Rounds of each comparison; the median counts.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write all figures to this file.")
def main(rows: int, bulk_rows: int, narrow_rows: int, seconds: int, rounds: int, json_path: Path | None) -> None:
    """Measure throughput, latency and memory of pgevents stream. Exits 1 when a run is wrong, not when it is slow."""
    began = time.monotonic()
    folder = private_folder()
    try:
        with serving(folder) as servers:
            machine = describe(servers)
            print(machine_lines(machine), flush=True)
            sections = []
            for section in chain(
                _sections(servers, rows=rows, bulk_rows=bulk_rows, seconds=seconds, rounds=rounds),
                _rules(servers, rows=rows, bulk_rows=bulk_rows, narrow_rows=narrow_rows, rounds=rounds),
            ):
                print(section.text(), flush=True)
                sections.append(section)
    except (WrongRun, PGEventsError) as error:
        sys.exit(f"bench: {error}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(targets_section([target for section in sections for target in section.targets]))
    print(f"\nMedians of {rounds} rounds; the whole took {time.monotonic() - began:.0f} s.")
    if json_path:
        json_path.write_text(json.dumps(_document(machine, sections), indent=2, ensure_ascii=False) + "\n")


def _sections(servers: Servers, *, rows: int, bulk_rows: int, seconds: int, rounds: int) -> Iterator[Section]:
    """The measurements in order. Latency comes first, while no slot keeps WAL and no queue is full."""
    create_tables(servers.database)
    yield commit_to_consumer(servers, seconds=seconds, rounds=rounds, say=say)
    say(f"recording {rows:,} changes")
    backlog = record_small_transactions(servers.database, rows - rows % _EVERY_FOURTH)
    yield against_broker(servers, backlog, rounds=rounds, say=say)
    for plugin in servers.plugins:
        yield against_recvlogical(servers, backlog, plugin, rounds=rounds, say=say)
    yield watermark_cost(servers, backlog, rounds=rounds, say=say)
    for plugin in servers.plugins:
        yield filter_cost(servers, backlog, plugin, rounds=rounds, say=say)
    say(f"recording one transaction of {bulk_rows:,} rows")
    yield one_transaction(servers, record_one_transaction(servers.database, bulk_rows), say=say)


def _rules(servers: Servers, *, rows: int, bulk_rows: int, narrow_rows: int, rounds: int) -> Iterator[Section]:
    """What skip rules and many filters cost. The many tables come last: every start looks at all there are."""
    say(f"recording a marked transaction of {bulk_rows:,} rows")
    marked = record_marked_transaction(servers.database, bulk_rows)
    for plugin in servers.plugins:
        yield marked_transaction(servers, marked, plugin, rounds=rounds, say=say)
    say(f"recording one transaction of {narrow_rows:,} narrow rows")
    yield size_rule(servers, record_narrow_transaction(servers.database, narrow_rows), say=say)
    # A difference of two runs is noisier than either: twice as many changes, and more rounds.
    say(f"recording {2 * rows:,} changes of {_TABLES:,} tables")
    first, whole = record_many_tables(servers.database, _TABLES, max(2, 2 * rows // _TABLES))
    yield many_rules(servers, first, whole, rounds=rounds + 2, say=say)


def _document(machine: dict[str, object], sections: list[Section]) -> dict[str, object]:
    return {
        "machine": machine,
        "sections": {section.key: section.figures for section in sections},
        "targets": [target.as_dict() for section in sections for target in section.targets],
    }


if __name__ == "__main__":
    main()
