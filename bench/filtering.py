"""What filters cost: one with a condition, and as many as there are tables."""

from collections.abc import Sequence
from dataclasses import asdict
from statistics import median

from bench.backlog import Backlog, copied_slot
from bench.fault import WrongRun
from bench.report import THROUGHPUT_HEAD, Section, Target, throughput_line
from bench.servers import Servers
from bench.stream import StreamRun, stream_once
from bench.throughput import Say

MOST_PERCENT = 10.0
MANY_RULES_RATIO = 1.05
"""As many rules as tables to one; what is above 1 is left to the noise."""

# It lets everything through, and has to read two columns for that: one as it was sent, and an exact numeric.
_FILTER = """
[[filter]]
tables = ["bench.orders"]
when = "new.status <> 'void' AND new.amount >= 0"
"""
_SHARD_FILTER = """
[[filter]]
tables = ["bench.{table}"]
when = "new.status <> 'void' AND new.id > 0"
"""

Pair = tuple[StreamRun, StreamRun]
"""The first event of each table, and all of them."""

# What is looked for is smaller than the noise of one run.
_ROUNDS_EACH = 3


def filter_cost(servers: Servers, backlog: Backlog, plugin: str, *, rounds: int, say: Say) -> Section:
    """The null sink with and without a table filter and a condition, each first in turn."""
    without: list[StreamRun] = []
    ruled: list[StreamRun] = []
    options = ("--table", "bench.*", *_rules(servers, _FILTER))
    for number in range(rounds * _ROUNDS_EACH):
        say(f"a filter's cost, {plugin}, round {number + 1} of {rounds * _ROUNDS_EACH}")
        for turn in (number, number + 1):
            if turn % 2:
                ruled.append(_publish(servers, backlog, plugin, *options))
            else:
                without.append(_publish(servers, backlog, plugin))
    return _filter_section(plugin, without, ruled)


def _filter_section(plugin: str, without: list[StreamRun], ruled: list[StreamRun]) -> Section:
    pairs = list(zip(ruled, without, strict=True))
    ratios = [one.rate / other.rate for one, other in pairs]
    cpu_ratios = [one.cpu_us / other.cpu_us for one, other in pairs]
    lost, added = 100 * (1 - median(ratios)), 100 * (median(cpu_ratios) - 1)
    what = f"a table filter and a condition, {plugin}"
    return Section(
        f"filter_{plugin}",
        f"A table filter and a condition on two columns, null sink, plug-in {plugin}; everything passes",
        [
            THROUGHPUT_HEAD,
            _line("without rules", without, [run.cpu_us for run in without]),
            _line("with both", ruled, [run.cpu_us for run in ruled], median(ratios)),
        ],
        {
            "ratios": ratios,
            "cpu_ratios": cpu_ratios,
            "without": [asdict(run) for run in without],
            "ruled": [asdict(run) for run in ruled],
        },
        [
            Target(f"rate lost to {what}", lost, MOST_PERCENT, at_least=False, unit=" %"),
            Target(f"CPU added by {what}", added, MOST_PERCENT, at_least=False, unit=" %"),
        ],
    )


def many_rules(servers: Servers, first: Backlog, whole: Backlog, *, rounds: int, say: Say) -> Section:
    """One rule for every table, and as many rules as tables, on the same events.

    What comes after the warm-up is the difference of two runs: one of all events, one of the ``first`` of each table.
    """
    plugin, tables = servers.plugins[0], first.changes
    kinds = {1: _SHARD_FILTER.format(table="shard_*"), tables: _filters(tables)}
    runs: dict[int, list[Pair]] = {count: [] for count in kinds}
    for number in range(1, rounds + 1):
        say(f"{tables:,} rules, round {number} of {rounds}")
        for count in sorted(kinds, reverse=bool(number % 2)):
            options = _rules(servers, kinds[count])
            warm_up = _publish(servers, first, plugin, *options)
            runs[count].append((warm_up, _publish(servers, whole, plugin, *options)))
    return _many_section(plugin, tables, runs)


def _many_section(plugin: str, tables: int, runs: dict[int, list[Pair]]) -> Section:
    cpu_us = {count: _warm_cpu_us(pairs) for count, pairs in runs.items()}
    ratios = [many / one for one, many in zip(*cpu_us.values(), strict=True)]
    return Section(
        "many_rules",
        f"{tables:,} tables in turn, null sink, plug-in {plugin}; rates with the warm-up, CPU and ratio without",
        [
            THROUGHPUT_HEAD,
            *(
                _line(
                    f"rules: {count:,}",
                    [whole for _, whole in pairs],
                    cpu_us[count],
                    0 if count == 1 else median(ratios),
                )
                for count, pairs in runs.items()
            ),
        ],
        {
            "ratios": ratios,
            "cpu_us": cpu_us,
            "runs": {count: [[asdict(run) for run in pair] for pair in pairs] for count, pairs in runs.items()},
        },
        [Target(f"CPU/event of {tables:,} rules, of that of one", median(ratios), MANY_RULES_RATIO, at_least=False)],
        [_warm_up_note(count, [warm_up for warm_up, _ in pairs]) for count, pairs in runs.items()],
    )


def _warm_cpu_us(pairs: list[Pair]) -> list[float]:
    """Of each round. The warm-up is the median one: it is the same each time, and what it differs by is noise."""
    warm_up_s = median([warm_up.cpu_s for warm_up, _ in pairs])
    return [(whole.cpu_s - warm_up_s) / (whole.confirmed - warm_up.confirmed) * 1e6 for warm_up, whole in pairs]


def _warm_up_note(rules: int, runs: list[StreamRun]) -> str:
    cpu_s, startup_s = median([run.cpu_s for run in runs]), median([run.startup_s for run in runs])
    return f"Rules: {rules:,}: start-up {startup_s:.1f} s; one event of each table costs {cpu_s:.2f} s of CPU."


def _line(name: str, runs: Sequence[StreamRun], cpu_us: Sequence[float], ratio: float = 0) -> str:
    rss = [run.peak_rss_mib for run in runs]
    return throughput_line(
        f"pgevents stream, {name}", [run.rate for run in runs], cpu_us=cpu_us, rss=rss, ratio=ratio
    )


def _filters(tables: int) -> str:
    return "".join(_SHARD_FILTER.format(table=f"shard_{number}") for number in range(tables))


def _rules(servers: Servers, rules: str) -> tuple[str, str]:
    """The option that has a stream read these rules; those given before are gone."""
    # Not pgevents.toml, which every other run would read too.
    path = servers.folder / "rules.toml"
    path.write_text(rules)
    return "--config", str(path)


def _publish(servers: Servers, backlog: Backlog, plugin: str, *options: str) -> StreamRun:
    """Stream it into nothing. Raises WrongRun unless every change was published."""
    with copied_slot(servers.database, backlog, plugin) as slot:
        run = stream_once(servers, backlog, slot, "null:", *options)
    if run.confirmed != backlog.changes:
        raise WrongRun(f"{run.confirmed} events were confirmed, of {backlog.changes} changes")
    return run
