"""How fast a transaction passes that is skipped, by its mark or by its size, and in how little memory."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from bench.backlog import Backlog, copied_slot
from bench.bulk import PEAK_RSS_MIB
from bench.fault import WrongRun
from bench.recvlogical import options_of, replay
from bench.report import THROUGHPUT_HEAD, Section, Target, throughput_line
from bench.servers import Servers
from bench.stream import StreamRun, stream_once
from bench.throughput import Say

MARKED_RATIO = 0.9
SIZE_ROWS = 10_000


def marked_transaction(servers: Servers, backlog: Backlog, plugin: str, *, rounds: int, say: Say) -> Section:
    """The stream skipping it, and pg_recvlogical, each first in turn."""
    streams, bare = [], []
    with copied_slot(servers.database, backlog, plugin) as slot:
        _skip(servers, backlog, slot, "--skip-marked")
        options = options_of(servers.postgres.log_path, slot)
    for number in range(1, rounds + 1):
        say(f"a marked transaction, {plugin}, round {number} of {rounds}")
        for turn in (number, number + 1):
            with copied_slot(servers.database, backlog, plugin) as slot:
                if turn % 2:
                    streams.append(_skip(servers, backlog, slot, "--skip-marked"))
                else:
                    bare.append(backlog.changes / replay(servers, backlog, slot, options))
    return _marked_section(backlog, plugin, streams, bare)


def _marked_section(backlog: Backlog, plugin: str, streams: list[StreamRun], bare: list[float]) -> Section:
    rates = [backlog.changes / run.seconds for run in streams]
    ratios = [rate / other for rate, other in zip(rates, bare, strict=True)]
    peak = max(run.peak_rss_mib for run in streams)
    what = f"{backlog.changes:,} marked rows, {plugin}"
    return Section(
        f"marked_{plugin}",
        f"A marked transaction of {backlog.changes:,} rows, plug-in {plugin}: one record is published",
        [
            THROUGHPUT_HEAD,
            _skip_line("pgevents stream, --skip-marked", backlog, streams, ratio=median(ratios)),
            throughput_line("pg_recvlogical to /dev/null", bare),
        ],
        {"ratios": ratios, "pg_recvlogical": bare, "stream": [asdict(run) for run in streams]},
        [
            Target(f"skipping {what}, of pg_recvlogical", median(ratios), MARKED_RATIO, at_least=True),
            Target(f"peak RSS, {what}", peak, PEAK_RSS_MIB, at_least=False, unit=" MiB"),
        ],
    )


def size_rule(servers: Servers, backlog: Backlog, *, say: Say) -> Section:
    """The transaction skipped by its size, with each plug-in, and summarised, for which every row is decoded."""
    plugins = servers.plugins
    runs: dict[str, StreamRun] = {}
    for plugin, action in [*((plugin, "drop") for plugin in plugins), (plugins[0], "summarise")]:
        say(f"a transaction of {backlog.changes:,} rows under the size rule, {plugin}, {action}")
        with copied_slot(servers.database, backlog, plugin) as slot:
            runs[f"{plugin}, {action}"] = _skip(
                servers, backlog, slot, "--skip-rows", str(SIZE_ROWS), "--skip-action", action
            )
    peak = max(run.peak_rss_mib for run in runs.values())
    return Section(
        "size_rule",
        f"A transaction of {backlog.changes:,} narrow rows, --skip-rows {SIZE_ROWS}",
        [THROUGHPUT_HEAD, *(_skip_line(f"pgevents stream, {name}", backlog, [run]) for name, run in runs.items())],
        {name.replace(", ", "_"): asdict(run) for name, run in runs.items()},
        [Target(f"peak RSS, {backlog.changes:,} rows, size rule", peak, PEAK_RSS_MIB, at_least=False, unit=" MiB")],
    )


def _skip(servers: Servers, backlog: Backlog, slot: str, *options: str) -> StreamRun:
    """Stream it. Raises WrongRun unless nothing is published but the record, which counts every row.

    A summary of its only table is part of it.
    """
    path = servers.folder / "skipped.ndjson"
    run = stream_once(servers, backlog, slot, f"file:{path}", *options)
    _check_record(path, backlog.changes, run.confirmed)
    path.unlink()
    return run


def _check_record(path: Path, rows: int, confirmed: int) -> None:
    events = [json.loads(line) for line in path.read_text().splitlines()]
    said = [event["op"] for event in events]
    if said not in (["skip"], ["skip", "summary"]) or confirmed != len(events):
        raise WrongRun(f"instead of one record {confirmed} events were confirmed: {', '.join(said[:5])}")
    counts = [table["insert"] for table in events[0]["skip"]["rows"]]
    counts += [event["summary"]["operations"]["insert"] for event in events[1:]]
    if any(count != rows for count in counts) or not counts:
        raise WrongRun(f"the record counts {counts} rows, not {rows}")


def _skip_line(name: str, backlog: Backlog, runs: Sequence[StreamRun], *, ratio: float = 0) -> str:
    """Rates and processor time of the rows that were skipped, not of the record that was published."""
    return throughput_line(
        name,
        [backlog.changes / run.seconds for run in runs],
        cpu_us=[run.cpu_s / backlog.changes * 1e6 for run in runs],
        rss=[run.peak_rss_mib for run in runs],
        ratio=ratio,
    )
