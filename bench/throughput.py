"""Events a second, each against the best that could be had in the same minute.

Machines are noisy, so what is compared runs in turn, in several rounds; a ratio is taken within a round, and the
median of the rounds counts.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median

from bench.backlog import Backlog, copied_slot
from bench.ceiling import measure_ceiling
from bench.fault import WrongRun
from bench.recvlogical import options_of, replay
from bench.report import THROUGHPUT_HEAD, Section, Target, throughput_line
from bench.run import Run
from bench.servers import Servers
from bench.stream import STATE_FILE, StreamRun, stream_once

BROKER_RATIO = 0.55
NULL_RATIO = 0.65

Say = Callable[[str], None]


def stream_backlog(servers: Servers, backlog: Backlog, slot: str, sink: str, *, state: str = STATE_FILE) -> StreamRun:
    """Stream the whole backlog. Raises WrongRun unless every change was confirmed, and none twice."""
    run = stream_once(servers, backlog, slot, sink, state=state)
    if run.confirmed != backlog.changes:
        raise WrongRun(f"{run.confirmed} events were confirmed, of {backlog.changes} changes")
    return run


def against_broker(servers: Servers, backlog: Backlog, *, rounds: int, say: Say) -> Section:
    """The stream into a quorum queue, and pre-made messages into an equal one."""
    plugin = servers.plugins[0]
    bodies = servers.folder / "events.ndjson"
    with copied_slot(servers.database, backlog, plugin) as slot:
        stream_backlog(servers, backlog, slot, f"file:{bodies}")
    _check_lines(bodies, backlog.changes)
    pairs = []
    for number in range(1, rounds + 1):
        say(f"quorum queue, round {number} of {rounds}")
        # Each goes first in turn: what a run leaves to the broker to tidy up must not always fall on the same one.
        raw = _publish_raw(servers, backlog, bodies) if number % 2 else None
        stream = _publish_stream(servers, backlog, plugin)
        pairs.append((raw or _publish_raw(servers, backlog, bodies), stream))
    body_bytes = bodies.stat().st_size / backlog.changes - 1
    bodies.unlink()
    return _broker_section(plugin, pairs, body_bytes)


def _publish_stream(servers: Servers, backlog: Backlog, plugin: str) -> StreamRun:
    servers.queue.renew()
    with copied_slot(servers.database, backlog, plugin) as slot:
        run = stream_backlog(servers, backlog, slot, servers.queue.sink)
    servers.queue.check_count(backlog.changes)
    return run


def _publish_raw(servers: Servers, backlog: Backlog, bodies: Path) -> Run:
    servers.queue.renew()
    run = measure_ceiling(servers.queue.sink, bodies)
    servers.queue.check_count(backlog.changes)
    return run


def _broker_section(plugin: str, pairs: list[tuple[Run, StreamRun]], body_bytes: float) -> Section:
    raws, streams = [raw for raw, _ in pairs], [stream for _, stream in pairs]
    ratios = [stream.rate / raw.rate for raw, stream in pairs]
    ratio = median(ratios)
    return Section(
        "quorum_queue",
        f"Into a quorum queue, confirmed; events of {body_bytes:.0f} bytes",
        [
            THROUGHPUT_HEAD,
            throughput_line(
                f"pgevents stream, {plugin}",
                [run.rate for run in streams],
                cpu_us=[run.cpu_us for run in streams],
                rss=[run.peak_rss_mib for run in streams],
                ratio=ratio,
            ),
            throughput_line(
                "the broker's ceiling, pre-made frames",
                [run.rate for run in raws],
                cpu_us=[run.cpu_us for run in raws],
            ),
        ],
        {
            "body_bytes": body_bytes,
            "ratios": ratios,
            "stream": [asdict(run) for run in streams],
            "ceiling": [asdict(run) for run in raws],
        },
        [Target("events/s into a quorum queue, of the broker's ceiling", ratio, BROKER_RATIO, at_least=True)],
        [f"Start-up, {median([run.startup_s for run in streams]):.1f} s to Ready, is not counted in rates and CPU."],
    )


def against_recvlogical(servers: Servers, backlog: Backlog, plugin: str, *, rounds: int, say: Say) -> Section:
    """The null and the file sink, and pg_recvlogical with the same plug-in options."""
    nulls, files, bare = [], [], []
    path = servers.folder / "replayed.ndjson"
    for number in range(1, rounds + 1):
        say(f"{plugin}: null, file and pg_recvlogical, round {number} of {rounds}")
        nulls.append(_replay_stream(servers, backlog, plugin, "null:"))
        bare.append(backlog.changes / _replay_bare(servers, backlog, plugin))
        files.append(_replay_stream(servers, backlog, plugin, f"file:{path}"))
        _check_lines(path, backlog.changes)
        path.unlink()
    return _sinks_section(plugin, {"null": nulls, "file": files}, bare)


def _check_lines(path: Path, expected: int) -> None:
    with path.open("rb") as file:
        count = sum(1 for _ in file)
    if count != expected:
        raise WrongRun(f"the file holds {count} events, not {expected}")


def _replay_stream(servers: Servers, backlog: Backlog, plugin: str, sink: str) -> StreamRun:
    with copied_slot(servers.database, backlog, plugin) as slot:
        return stream_backlog(servers, backlog, slot, sink)


def _replay_bare(servers: Servers, backlog: Backlog, plugin: str) -> float:
    with copied_slot(servers.database, backlog, plugin) as slot:
        return replay(servers, backlog, slot, options_of(servers.postgres.log_path, slot))


def _sinks_section(plugin: str, runs: dict[str, list[StreamRun]], bare: list[float]) -> Section:
    ratios = {sink: [run.rate / rate for run, rate in zip(each, bare, strict=True)] for sink, each in runs.items()}
    lines = [
        throughput_line(
            f"pgevents stream, {sink}:",
            [run.rate for run in each],
            cpu_us=[run.cpu_us for run in each],
            rss=[run.peak_rss_mib for run in each],
            ratio=median(ratios[sink]),
        )
        for sink, each in runs.items()
    ]
    name = f"null: events/s, of pg_recvlogical, {plugin}"
    return Section(
        plugin,
        f"Without a broker, plug-in {plugin}",
        [THROUGHPUT_HEAD, *lines, throughput_line("pg_recvlogical to /dev/null", bare)],
        {
            "ratios": ratios,
            "pg_recvlogical": bare,
            **{sink: [asdict(run) for run in each] for sink, each in runs.items()},
        },
        [Target(name, median(ratios["null"]), NULL_RATIO, at_least=True)],
    )
