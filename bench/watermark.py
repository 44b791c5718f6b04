"""What keeping the watermark costs: the null sink with it in a file, in a table, and without."""

from dataclasses import asdict
from statistics import median

from bench.backlog import Backlog, copied_slot
from bench.report import THROUGHPUT_HEAD, Section, Target, throughput_line
from bench.servers import Servers
from bench.stream import STATE_FILE, StreamRun
from bench.throughput import Say, stream_backlog

MOST_PERCENT = 2.0

_STATES = {"none": "nowhere", STATE_FILE: "in a file", "postgres": "in a table"}
# What is looked for is smaller than the noise of one run.
_ROUNDS_EACH = 3


def watermark_cost(servers: Servers, backlog: Backlog, *, rounds: int, say: Say) -> Section:
    """Each state in turn, another one first each round, so that none has the better place."""
    plugin, states = servers.plugins[0], list(_STATES)
    runs: dict[str, list[StreamRun]] = {state: [] for state in states}
    for number in range(rounds * _ROUNDS_EACH):
        say(f"the watermark's cost, round {number + 1} of {rounds * _ROUNDS_EACH}")
        for state in states[number % len(states) :] + states[: number % len(states)]:
            runs[state].append(_run(servers, backlog, plugin, state))
    ratios = {
        state: [kept.rate / without.rate for kept, without in zip(runs[state], runs["none"], strict=True)]
        for state in states
    }
    cost = 100 * (1 - median(ratios[STATE_FILE]))
    return Section(
        "watermark",
        f"The watermark's cost, null sink, plug-in {plugin}; kept before each acknowledgement, at most 10 a second",
        [
            THROUGHPUT_HEAD,
            *(
                throughput_line(
                    f"watermark {where}",
                    [run.rate for run in runs[state]],
                    cpu_us=[run.cpu_us for run in runs[state]],
                    rss=[run.peak_rss_mib for run in runs[state]],
                    ratio=median(ratios[state]),
                )
                for state, where in _STATES.items()
            ),
        ],
        {"ratios": ratios, **{state: [asdict(run) for run in each] for state, each in runs.items()}},
        [Target("throughput lost to the watermark in a file", cost, MOST_PERCENT, at_least=False, unit=" %")],
    )


def _run(servers: Servers, backlog: Backlog, plugin: str, state: str) -> StreamRun:
    with servers.database.cursor() as sql:
        sql.execute("DROP SCHEMA IF EXISTS pgevents CASCADE")
    with copied_slot(servers.database, backlog, plugin) as slot:
        return stream_backlog(servers, backlog, slot, "null:", state=state)
