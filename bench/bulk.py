"""One transaction of very many rows: memory must not grow with it."""

from dataclasses import asdict

from bench.backlog import Backlog, copied_slot
from bench.report import THROUGHPUT_HEAD, Section, Target, throughput_line
from bench.servers import Servers
from bench.stream import StreamRun
from bench.throughput import Say, stream_backlog

PEAK_RSS_MIB = 150.0


def one_transaction(servers: Servers, backlog: Backlog, *, say: Say) -> Section:
    """Stream it once into each kind of sink."""
    servers.queue.renew()
    sinks = {"null:": "null:", "quorum queue": servers.queue.sink}
    runs: dict[str, StreamRun] = {}
    for name, sink in sinks.items():
        say(f"one transaction of {backlog.changes:,} rows, {name}")
        with copied_slot(servers.database, backlog, servers.plugins[0]) as slot:
            runs[name] = stream_backlog(servers, backlog, slot, sink)
    servers.queue.check_count(backlog.changes)
    peak = max(run.peak_rss_mib for run in runs.values())
    return Section(
        "one_transaction",
        f"One transaction of {backlog.changes:,} rows, plug-in {servers.plugins[0]}",
        [THROUGHPUT_HEAD, *(_line(name, run) for name, run in runs.items())],
        {name.rstrip(":"): asdict(run) for name, run in runs.items()},
        [Target(f"peak RSS over {backlog.changes:,} rows", peak, PEAK_RSS_MIB, at_least=False, unit=" MiB")],
    )


def _line(name: str, run: StreamRun) -> str:
    return throughput_line(f"pgevents stream, {name}", [run.rate], cpu_us=[run.cpu_us], rss=[run.peak_rss_mib])
